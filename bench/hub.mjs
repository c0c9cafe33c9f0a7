// The hub: a download against Python's snapshot_download, loading by name against loading by path, and what a download
// does to the event loop. Both sides use one loopback server, taking turns. HUB_MB sets the size (default 2000).
//
// Files come from hub_storage.py, by sendfile. HUB_STORAGE=node lets the hub of the tests send them: on two cores that
// measures a server in Node, which takes as long as either client.
import { spawn, spawnSync } from "node:child_process";
import { randomFillSync } from "node:crypto";
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { describeMachine, median, python, requirePython, table } from "./support.mjs";

const self = fileURLToPath(import.meta.url);
const root = fileURLToPath(new URL("..", import.meta.url));
const FILES = 5;
const ROUNDS = Number(process.env.ROUNDS ?? 3);

const DOWNLOAD = `
import json, os, resource, time
from huggingface_hub import snapshot_download
from huggingface_hub.utils import disable_progress_bars
disable_progress_bars()
start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
snapshot_download("org/large")
seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
print(json.dumps({"seconds": seconds, "cpu": cpu, "rss": used.ru_maxrss * 1024}))
`;

/** Runs a program that prints one line of JSON. */
function ask(command, args, env) {
  const { status, stdout, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    env: { ...process.env, ...env },
  });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout.trim().split("\n").at(-1));
}

/** Starts a server that prints its address. */
async function start(command, args) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  const { value } = await createInterface({ input: child.stdout })[Symbol.asyncIterator]().next();
  return { url: value, stop: () => child.kill() };
}

async function serve(folder) {
  const storage = await start(python, [join(root, "bench/hub_storage.py"), folder]);
  const program = join(root, "build/test/support/hub_server.js");
  const hub = await start(process.execPath, [
    program,
    folder,
    ...(process.env.HUB_STORAGE === "node" ? [] : [storage.url]),
  ]);
  return {
    url: hub.url,
    stop: () => {
      hub.stop();
      storage.stop();
    },
  };
}

function writeRandom(file, bytes) {
  const block = Buffer.alloc(8 * 1024 * 1024);
  const fd = openSync(file, "w");
  ftruncateSync(fd, 0);
  for (let left = bytes; left > 0; left -= block.length) {
    randomFillSync(block);
    writeSync(fd, block, 0, Math.min(left, block.length));
  }
  closeSync(fd);
}

// One side's measurements, in a process of their own --------------------------------------------------------------------

async function download() {
  const { monitorEventLoopDelay } = await import("node:perf_hooks");
  const { setTimeout: sleep } = await import("node:timers/promises");
  const { snapshot_download } = await import("../dist/hub/snapshot.js");
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  await sleep(1000);
  const idle = delay.percentile(99) / 1e6;
  delay.reset();
  const [start, before] = [performance.now(), process.cpuUsage()];
  await snapshot_download("org/large");
  const { user, system } = process.cpuUsage(before);
  const seconds = (performance.now() - start) / 1000;
  console.log(
    JSON.stringify({
      seconds,
      cpu: (user + system) / 1e6,
      idle,
      busy: delay.percentile(99) / 1e6,
      rss: process.resourceUsage().maxRSS * 1024,
    }),
  );
}

async function warm(folder) {
  const { AutoModelForCausalLM } = await import("../dist/index.js");
  const load = async (name, offline) => {
    if (offline) process.env.HF_HUB_OFFLINE = "1";
    else delete process.env.HF_HUB_OFFLINE;
    const start = performance.now();
    (await AutoModelForCausalLM.from_pretrained(name)).dispose();
    return performance.now() - start;
  };
  await load("org/demo-llama", false);
  for (let i = 0; i < 3; i++) await load(folder, false);
  const times = { path: [], online: [], offline: [] };
  for (let i = 0; i < 20; i++) {
    times.path.push(await load(folder, false));
    times.online.push(await load("org/demo-llama", false));
    times.offline.push(await load("org/demo-llama", true));
  }
  console.log(JSON.stringify(Object.fromEntries(Object.entries(times).map(([k, v]) => [k, median(v)]))));
}

/** The first load of a process, with what it has to import. */
async function first(name) {
  const { AutoModelForCausalLM } = await import("../dist/index.js");
  const { torch } = await import("../dist/index.js");
  torch.zeros([1]);
  const start = performance.now();
  await AutoModelForCausalLM.from_pretrained(name);
  console.log(JSON.stringify({ milliseconds: performance.now() - start }));
}

async function main() {
  const versions = requirePython("huggingface_hub");
  const folder = mkdtempSync(join(tmpdir(), "hub-bench-"));
  const free = statfsSync(folder);
  const megabytes = Math.min(Number(process.env.HUB_MB ?? 2000), (free.bavail * free.bsize) / 1e6 / 4);
  describeMachine({
    huggingface_hub: versions.huggingface_hub,
    download: `${Math.floor(megabytes)} MB in ${FILES} files`,
  });
  mkdirSync(join(folder, "repos", "large"), { recursive: true });
  for (let i = 1; i <= FILES; i++) {
    writeRandom(
      join(folder, `repos/large/model-0000${i}-of-0000${FILES}.safetensors`),
      Math.floor((megabytes * 1e6) / FILES),
    );
  }
  const demo = join(root, "test/fixtures/demo-llama");
  spawnSync("cp", ["-rL", demo, join(folder, "repos", "demo-llama")]);
  const server = await serve(join(folder, "repos"));
  try {
    const sides = { torchformers: [], python: [] };
    for (let round = 0; round < ROUNDS; round++) {
      for (const side of round % 2 ? ["python", "torchformers"] : ["torchformers", "python"]) {
        const cache = join(folder, "cache");
        // What one side left for the disk to write must not hold up the other.
        spawnSync("sync");
        const env = {
          HF_ENDPOINT: server.url,
          HF_HUB_CACHE: cache,
          HF_HOME: join(folder, "home"),
          HF_HUB_DISABLE_XET: "1",
        };
        const result =
          side === "python"
            ? ask(python, ["-c", DOWNLOAD], env)
            : ask(process.execPath, [self, "--download"], env);
        sides[side].push(result);
        rmSync(cache, { recursive: true, force: true });
      }
    }
    const least = (side, what) => Math.min(...sides[side].map((one) => one[what]));
    const middle = (side, what) => median(sides[side].map((one) => one[what]));
    const row = (label, of, what) => {
      const [ours, theirs] = [of("torchformers", what), of("python", what)];
      return [label, ours, theirs, theirs / ours];
    };
    table(
      ["download", "torchformers", "Python", "ratio"],
      [
        row("seconds, median", middle, "seconds"),
        row("seconds, least", least, "seconds"),
        row("processor seconds", middle, "cpu"),
        row("memory, MB", (...of) => middle(...of) / 1e6, "rss"),
      ],
    );
    console.log();
    const delays = (name) => median(sides.torchformers.map((one) => one[name]));
    table(
      ["event loop, p99", "ms"],
      [
        ["idle", delays("idle")],
        ["downloading", delays("busy")],
        ["above", delays("busy") - delays("idle")],
      ],
    );
    console.log();
    const env = {
      HF_ENDPOINT: server.url,
      HF_HUB_CACHE: join(folder, "cache"),
      HF_HOME: join(folder, "home"),
    };
    const local = join(folder, "repos", "demo-llama");
    const times = ask(process.execPath, [self, "--warm", local], env);
    const firsts = { path: [], online: [], offline: [] };
    for (let round = 0; round < ROUNDS; round++) {
      const measure = (name, more = {}) =>
        ask(process.execPath, [self, "--first", name], { ...env, ...more }).milliseconds;
      firsts.path.push(measure(local));
      firsts.online.push(measure("org/demo-llama"));
      firsts.offline.push(measure("org/demo-llama", { HF_HUB_OFFLINE: "1" }));
    }
    const rows = ["path", "online", "offline"].map((how) => [
      how,
      times[how],
      times[how] - times.path,
      median(firsts[how]),
      median(firsts[how]) - median(firsts.path),
    ]);
    table(["warm from_pretrained", "ms", "above path", "first in a process, ms", "above path"], rows);
    console.log();
  } finally {
    server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

const [mode, argument] = process.argv.slice(2);
await { "--download": download, "--warm": warm, "--first": first }[mode ?? ""]?.(argument);
if (mode === undefined) await main();
