// Faults at random, processes that are killed, and Python beside us: no wrong byte in the cache, ever. `npm run test:soak`
// does more of it.

import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { hf_hub_download, snapshot_download } from "#lib/hub/snapshot.js";
import { requests } from "#lib/hub/transfer.js";
import { root } from "../support/fixtures.js";
import { answer, hubFor, python, withoutPython } from "../support/hub.js";
import type { Fault } from "../support/hub_server.js";

const MB = 1024 * 1024;
const isSoak = process.env.TORCHFORMERS_SOAK !== undefined;

t.test("a process that is killed at any moment is picked up by the next one", async (t) => {
  const { server, cache } = await hubFor(t);
  server.create("org/m");
  const weights = randomBytes(90 * MB);
  server.commit("org/m", { "model.safetensors": weights, "config.json": "{}" });
  server.fault = ({ kind }) => (kind === "storage" ? { drip: [2 * MB, 10] } : undefined);
  const code = `import { snapshot_download } from ${JSON.stringify(path.join(root, "dist/hub/snapshot.js"))};
    await snapshot_download("org/m"); console.log("whole");`;
  let runs = 0;
  for (let whole = false; !whole; runs++) {
    const child = spawn(process.execPath, ["--input-type=module", "-e", code], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let out = "";
    child.stdout.on("data", (data) => {
      out += data;
    });
    const ended = new Promise((resolve) => child.once("close", resolve));
    const wait = runs < (isSoak ? 40 : 4) ? 60 + Math.random() * 400 : 60_000;
    const timer = setTimeout(() => child.kill("SIGKILL"), wait);
    await ended;
    clearTimeout(timer);
    whole = out.includes("whole");
    const blobs = path.join(cache, "models--org--m/blobs");
    for (const name of existsSync(blobs) ? readdirSync(blobs) : []) {
      if (!/^[0-9a-f]{64}$/.test(name)) continue;
      t.ok(readFileSync(path.join(blobs, name)).equals(weights), "a blob under its name is whole");
    }
  }
  t.ok(runs > 1, `${runs} runs`);
  t.ok(readFileSync(await hf_hub_download("org/m", "model.safetensors")).equals(weights));
});

t.test("random faults", async (t) => {
  const { server, cache } = await hubFor(t);
  process.env.HF_HUB_DOWNLOAD_TIMEOUT = "0.5";
  server.create("org/m");
  const files: Record<string, Buffer> = {
    "config.json": randomBytes(700),
    "a.safetensors": randomBytes(5 * MB),
    "b.safetensors": randomBytes(9 * MB + 17),
    "c/d.txt": randomBytes(MB),
  };
  server.commit("org/m", files);
  const runs = isSoak ? 500 : 25;
  const chance = (n: number) => Math.floor(Math.random() * n);
  const faults: (() => Fault)[] = [
    () => ({ drop: chance(6 * MB) }),
    () => ({ drop: -1 }),
    () => ({ drop: 0 }),
    () => ({ status: [429, 500, 502, 503, 504, 408][chance(6)] as number }),
    () => ({ status: 429, headers: { "retry-after": "0" } }),
    () => ({ status: [400, 403, 404, 416][chance(4)] as number }),
    () => ({ length: chance(100) - 50 }),
    () => ({ corrupt: chance(1e6) }),
    () => ({ noRanges: true }),
    () => ({ redirect: `${server.storageUrl}/nowhere` }),
    () => ({ drip: [MB, 2] }),
    () => ({ packed: (["gzip", "br", "deflate"] as const)[chance(3)] as "gzip" }),
    () => ({ raw: (socket) => socket.end(randomBytes(chance(2000))) }),
    () => ({
      raw: answer("206 Partial Content", { "content-range": "bytes 3-9/10", "content-length": 7 }, "0123456"),
    }),
    () => ({ raw: answer("200 OK", { "content-length": 9 }, "<html/>\r\n") }),
  ];
  const { longest } = requests;
  t.teardown(() => {
    requests.longest = longest;
  });
  requests.longest = 2 * MB;
  let [succeeded, failed] = [0, 0];
  for (let run = 0; run < runs; run++) {
    const share = Math.random() * 0.6;
    server.fault = () => (Math.random() < share ? faults[chance(faults.length)]?.() : undefined);
    try {
      const folder = await snapshot_download("org/m");
      for (const [name, content] of Object.entries(files))
        if (!readFileSync(path.join(folder, name)).equals(content)) t.fail(`run ${run}: ${name} is wrong`);
      succeeded++;
    } catch (error) {
      const { code } = error as { code?: string };
      if (!/^ERR_(HUB|ENTRY_NOT_FOUND|REPOSITORY_NOT_FOUND|REVISION_NOT_FOUND)$/.test(code ?? ""))
        t.fail(`run ${run}: ${(error as Error).stack}`);
      failed++;
    }
    const blobs = path.join(cache, "models--org--m/blobs");
    for (const name of existsSync(blobs) ? readdirSync(blobs) : []) {
      if (name.includes(".")) continue;
      const content = readFileSync(path.join(blobs, name));
      const hash =
        name.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${content.length}\0`);
      if (hash.update(content).digest("hex") !== name) t.fail(`run ${run}: wrong bytes in ${name}`);
    }
    if (run % 3 === 0) rmSync(cache, { recursive: true, force: true });
  }
  t.ok(succeeded > 0, `${succeeded} succeeded, ${failed} ended in a typed error`);
});

/** Starts a download in a process of its own; resolves to how it ended. */
function downloader(side: "ours" | "python"): { kill(): void; ended: Promise<string> } {
  const ours = `import { snapshot_download } from ${JSON.stringify(path.join(root, "dist/hub/snapshot.js"))};
    await snapshot_download("org/m"); console.log("whole");`;
  const theirs = 'from huggingface_hub import snapshot_download\nsnapshot_download("org/m"); print("whole")';
  const [command, args] =
    side === "ours"
      ? [process.execPath, ["--input-type=module", "-e", ours]]
      : [python as string, ["-c", theirs]];
  const child = spawn(command, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...process.env,
      HF_HUB_DISABLE_PROGRESS_BARS: "1",
      HF_HUB_DISABLE_XET: "1",
      HF_HUB_DISABLE_TELEMETRY: "1",
    },
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (data) => {
      said += data;
    });
  }
  return {
    kill: () => child.kill("SIGKILL"),
    ended: new Promise((resolve) => child.once("close", () => resolve(said))),
  };
}

t.test("Python and we at once, each killed now and then", { skip: withoutPython }, async (t) => {
  const { server, cache } = await hubFor(t);
  server.create("org/m");
  const files: Record<string, Buffer> = {
    "a.safetensors": randomBytes(20 * MB + 1),
    "b.safetensors": randomBytes(11 * MB),
    "config.json": randomBytes(900),
  };
  server.commit("org/m", files);
  server.fault = ({ kind }) => (kind === "storage" ? { drip: [MB, 15] } : undefined);
  const blobs = path.join(cache, "models--org--m/blobs");
  for (let round = 0; round < (isSoak ? 15 : 2); round++) {
    rmSync(cache, { recursive: true, force: true });
    for (let kills = 0; kills < 3; kills++) {
      const both = [downloader("python"), downloader("ours")];
      await sleep(300 + Math.random() * 1500);
      both[kills % 2]?.kill();
      await sleep(Math.random() * 300);
      both[(kills + 1) % 2]?.kill();
      await Promise.all(both.map(({ ended }) => ended));
    }
    const both = [downloader("ours"), downloader("python")];
    for (const said of await Promise.all(both.map(({ ended }) => ended)))
      t.match(said, /whole/, `round ${round}`);
    for (const name of readdirSync(blobs)) {
      if (name.includes(".")) continue;
      const content = readFileSync(path.join(blobs, name));
      const isWhole = Object.values(files).some((file) => file.equals(content)) || content.length < 200;
      t.ok(isWhole, `${name.slice(0, 8)}: a blob under its name is whole`);
    }
    const folder = await snapshot_download("org/m");
    for (const [name, content] of Object.entries(files))
      t.ok(readFileSync(path.join(folder, name)).equals(content));
  }
});
