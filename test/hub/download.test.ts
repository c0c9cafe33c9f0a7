import { createHash, randomBytes } from "node:crypto";
import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import http from "node:http";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { findCheckpoint } from "#lib/hub/checkpoint.js";
import { findFile, resolveFile } from "#lib/hub/files.js";
import { askedToWait } from "#lib/hub/http.js";
import { filterNames, isRepoId, splitRevision } from "#lib/hub/names.js";
import type { ProgressEvent } from "#lib/hub/options.js";
import { hf_hub_download, snapshot_download } from "#lib/hub/snapshot.js";
import { xet } from "#lib/hub/xet.js";
import { hubFor, TOKEN } from "../support/hub.js";
import type { Fault, HubServer } from "../support/hub_server.js";

const MB = 1024 * 1024;

/** The files of a folder with their content, links followed. */
function contents(folder: string): Record<string, string> {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  const files = names.filter((name) => statSync(path.join(folder, name)).isFile());
  return Object.fromEntries(
    files.sort().map((name) => [name, readFileSync(path.join(folder, name), "latin1")]),
  );
}

t.test("names and patterns", async (t) => {
  for (const bad of ["", "a/b/c", "-a", "a--b", "a..b", "a.git", "a/", "/a", "./a", "a b", "a".repeat(97)])
    t.equal(isRepoId(bad), false, bad);
  for (const good of ["gpt2", "org/name", "Org-1/na_me.v2", "a"]) t.equal(isRepoId(good), true, good);
  t.same(splitRevision("org/name@refs/pr/1"), { repo: "org/name", revision: "refs/pr/1" });
  t.same(splitRevision("./a@b"), { repo: "./a@b", revision: undefined });
  for (const bad of [null, 5, {}])
    t.throws(() => splitRevision(bad as unknown as string), { code: "ERR_INVALID_ARGUMENT" });
  const names = ["a.json", "b/a.json", "b/c.txt", "[x].md", "a.JSON"];
  const chosen = (allow_patterns?: string | string[], ignore_patterns?: string | string[]) =>
    filterNames(names, { allow_patterns, ignore_patterns });
  t.same(chosen("*.json"), ["a.json", "b/a.json"]);
  t.same(chosen("b/"), ["b/a.json", "b/c.txt"]);
  t.same(chosen(undefined, ["*.json", "*.JSON"]), ["b/c.txt", "[x].md"]);
  t.same(chosen("[[]x].md"), ["[x].md"]);
  t.same(chosen("?.json"), ["a.json"]);
  t.same(chosen("[!b]*"), ["a.json", "[x].md", "a.JSON"]);
  t.same(chosen([]), []);
  t.equal(askedToWait({ "retry-after": "3" }), 3000);
  t.equal(askedToWait({ "retry-after": "Thu, 01 Jan 1970 00:00:05 GMT" }, 1000), 4000);
  t.equal(askedToWait({ ratelimit: '"api";r=0;t=55' }), 55_000);
  t.equal(askedToWait({ ratelimit: '"api";r=9;t=55' }), undefined);
});

t.test("what the hub refuses is a typed error with the page to visit", async (t) => {
  const { server, cache } = await hubFor(t);
  server.create("org/gated", { gated: true });
  server.create("org/private", { private: true });
  server.create("org/disabled", { disabled: true });
  server.create("org/m");
  server.commit("org/m", { "config.json": "{}" });
  const get = (name: string, options = {}) => hf_hub_download(name, "config.json", options);
  const page = (name: string) => `${server.url}/${name}`;
  await t.rejects(get("org/none"), { code: "ERR_REPOSITORY_NOT_FOUND", page: page("org/none"), status: 401 });
  await t.rejects(get("org/none", { token: TOKEN }), { code: "ERR_REPOSITORY_NOT_FOUND", status: 404 });
  await t.rejects(get("org/private"), { code: "ERR_REPOSITORY_NOT_FOUND" });
  await t.rejects(get("org/m@nowhere"), { code: "ERR_REVISION_NOT_FOUND", page: page("org/m") });
  await t.rejects(get("org/disabled"), { code: "ERR_DISABLED_REPO", page: page("org/disabled") });
  server.commit("org/gated", { "config.json": "{}" });
  await t.rejects(get("org/gated"), {
    code: "ERR_GATED_REPO",
    page: page("org/gated"),
    hint: /settings\/tokens/,
  });
  await t.rejects(get("org/gated", { token: "hf_wrong" }), {
    code: "ERR_HUB",
    status: 401,
    message: /does not accept/,
  });
  await t.rejects(get("org/m@a", { revision: "b" }), { code: "ERR_INVALID_ARGUMENT" });
  await t.rejects(get("org/m", { token: "hf_\u00e9" }), { code: "ERR_INVALID_ARGUMENT" });
  await t.rejects(get("org/m", { token: true }), { code: "ERR_INVALID_ARGUMENT", message: /there is none/ });
  await t.rejects(get("no/such/name"), { code: "ERR_INVALID_ARGUMENT" });
  await t.rejects(hf_hub_download("org/m", "none.json"), { code: "ERR_ENTRY_NOT_FOUND" });
  t.ok(
    existsSync(
      path.join(
        cache,
        "models--org--m/.no_exist",
        server.repos.get("org/m")?.refs.get("main") as string,
        "none.json",
      ),
    ),
  );
  t.ok(await get("org/gated", { token: TOKEN }));
  process.env.HF_ENDPOINT = "ftp://nowhere";
  await t.rejects(get("org/m"), { code: "ERR_INVALID_ARGUMENT", message: /HF_ENDPOINT/ });
  process.env.HF_ENDPOINT = "http://127.0.0.1:9";
  await t.rejects(get("org/other"), { code: "ERR_HUB", message: /cannot be reached \(ECONNREFUSED\)/ });
});

t.test("names that try to leave the folder write nothing", async (t) => {
  const { server, home } = await hubFor(t);
  for (const [i, name] of ["../../../out.json", "/etc/out.json", "a/../../b.json", "C:\\x.json"].entries()) {
    server.create(`org/evil${i}`);
    server.commit(`org/evil${i}`, { [name]: "evil", "config.json": "{}" });
    await t.rejects(snapshot_download(`org/evil${i}`), {
      code: "ERR_ENTRY_NOT_FOUND",
      message: /outside of its folder/,
    });
    await t.rejects(snapshot_download(`org/evil${i}`, { local_dir: path.join(home, "local") }), {
      code: "ERR_ENTRY_NOT_FOUND",
    });
    await t.rejects(hf_hub_download(`org/evil${i}`, name), { code: "ERR_ENTRY_NOT_FOUND" });
  }
  t.notOk(
    readdirSync(home, { recursive: true, encoding: "utf8" }).some((name) =>
      /out\.json|b\.json|x\.json/.test(name),
    ),
  );
});

t.test("the cache's layout, and what is fetched", async (t) => {
  const { server, cache } = await hubFor(t);
  server.create("org/m");
  const weights = randomBytes(3 * MB);
  const commit = server.commit("org/m", {
    "config.json": '{"a": 1}',
    "model.safetensors": weights,
    "pytorch_model.bin": randomBytes(10),
    "sub/deep/x.txt": "same",
    "twin.txt": "same",
    empty: "",
  });
  server.pageSize = 2;
  const events: ProgressEvent[] = [];
  const folder = await snapshot_download("org/m", { progress_callback: (event) => events.push(event) });
  const repo = path.join(cache, "models--org--m");
  t.equal(folder, path.join(repo, "snapshots", commit));
  t.equal(readFileSync(path.join(repo, "refs/main"), "utf8"), commit);
  const sha = createHash("sha256").update(weights).digest("hex");
  t.equal(readlinkSync(path.join(folder, "model.safetensors")), `../../blobs/${sha}`);
  t.equal(
    readlinkSync(path.join(folder, "sub/deep/x.txt")),
    readlinkSync(path.join(folder, "twin.txt")).replace("../../", "../../../../"),
  );
  t.ok(readFileSync(path.join(folder, "model.safetensors")).equals(weights));
  t.same(
    readdirSync(path.join(repo, "blobs")).filter((name) => !/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(name)),
    [],
  );
  t.ok(lstatSync(path.join(cache, ".locks/models--org--m", `${sha}.lock`)).isFile());
  const total = events[0]?.total_bytes;
  t.ok(
    events.every((event) => event.total_bytes === total && event.stage === "download"),
    "totals are known first",
  );
  t.equal(events.at(-1)?.total_loaded, total);
  t.equal(server.count("resolve"), 5, "a twin is fetched once, nothing not at all");

  server.seen.length = 0;
  await snapshot_download("org/m");
  t.same(
    server.seen.map(({ kind }) => kind),
    ["revision"],
  );
  t.equal(
    await hf_hub_download("org/m", "config.json", { revision: commit }),
    path.join(folder, "config.json"),
  );
  t.equal(await findFile("org/m", "none.json", { revision: commit }), undefined);
  t.equal(server.seen.length, 1, "a commit in the cache needs no question");
  await hf_hub_download("org/m", "config.json", { force_download: true });
  t.equal(server.count("resolve"), 1);

  // Only what a load needs.
  rmSync(cache, { recursive: true });
  server.seen.length = 0;
  const { files } = await findCheckpoint("org/m");
  t.same(files, [path.join(folder, "model.safetensors")]);
  t.same(
    server.seen.filter(({ kind }) => kind === "resolve").map(({ path }) => path.split("/").at(-1)),
    ["model.safetensors"],
  );
  server.create("org/pickle");
  server.commit("org/pickle", { "pytorch_model.bin": randomBytes(9) });
  await t.rejects(findCheckpoint("org/pickle"), {
    code: "ERR_CHECKPOINT",
    message: /only safetensors is read/,
  });
  t.equal(server.seen.filter(({ path }) => path.includes("/pytorch_model.bin")).length, 0);
});

t.test("one commit for all files, though the repository changes", async (t) => {
  const { server } = await hubFor(t);
  server.create("org/m");
  const index = JSON.stringify({ weight_map: { a: "model-1.safetensors", b: "model-2.safetensors" } });
  const first = server.commit("org/m", {
    "model.safetensors.index.json": index,
    "model-1.safetensors": "one",
    "model-2.safetensors": "two",
  });
  server.afterRevision = () => {
    server.afterRevision = undefined;
    server.commit("org/m", { "model-1.safetensors": "eins", "model-2.safetensors": null });
  };
  const { files } = await findCheckpoint("org/m");
  t.same(
    files.map((file) => readFileSync(file, "utf8")),
    ["one", "two"],
  );
  t.ok(files.every((file) => file.includes(first)));
  t.equal(server.count("revision"), 1);
  // The next load sees the new commit; a tag and a name with a revision stay.
  server.repos.get("org/m")?.refs.set("v1", first);
  t.equal(await resolveFile("org/m@v1", "model-2.safetensors"), files[1]);
  t.equal(await findFile("org/m", "model-2.safetensors"), undefined);
});

t.test("offline: no request, the cache first, and an error that says what was searched", async (t) => {
  const { server, cache } = await hubFor(t);
  server.create("org/m");
  server.commit("org/m", { "config.json": "{}", "generation_config.json": "{}" });
  const file = await hf_hub_download("org/m", "config.json");
  server.seen.length = 0;
  for (const how of ["option", "variable"]) {
    const options = how === "option" ? { local_files_only: true } : {};
    if (how === "variable") process.env.HF_HUB_OFFLINE = "1";
    t.equal(await hf_hub_download("org/m", "config.json", options), file);
    t.equal(await resolveFile("org/m", "config.json", options), file);
    await t.rejects(resolveFile("org/m", "generation_config.json", options), {
      code: "ERR_OFFLINE_MODE",
      message: new RegExp(cache),
    });
    await t.rejects(snapshot_download("org/m", options), { code: "ERR_OFFLINE_MODE" });
    await t.rejects(hf_hub_download("org/n", "config.json", options), {
      code: "ERR_OFFLINE_MODE",
      message: new RegExp(cache),
    });
    await t.rejects(findCheckpoint("org/n", options), { code: "ERR_OFFLINE_MODE" });
  }
  t.equal(server.seen.length, 0);
  delete process.env.HF_HUB_OFFLINE;
  // A hub that is down or refuses: what is in the cache is used.
  server.fault = () => ({ status: 503 });
  t.equal(await hf_hub_download("org/m", "config.json"), file);
  t.equal(server.seen.length, 1, "one attempt where the cache can help");
  server.fault = () => ({ drop: -1 });
  t.equal(await hf_hub_download("org/m", "config.json"), file);
});

t.test("the token goes to the hub only, and shows nowhere", async (t) => {
  const { server, home } = await hubFor(t);
  const other = http.createServer((_, response) => response.end("stolen"));
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  t.teardown(() => other.close());
  const headers: (string | undefined)[] = [];
  other.on("request", (request: http.IncomingMessage) => headers.push(request.headers.authorization));
  const otherUrl = `http://127.0.0.1:${(other.address() as { port: number }).port}`;
  server.create("org/m", { private: true });
  server.commit("org/m", { "config.json": "{}", "model.safetensors": randomBytes(100) });
  process.env.HF_TOKEN = `${TOKEN}\n`;
  await snapshot_download("org/m");
  const [hub, storage] = [
    server.seen.filter(({ kind }) => kind !== "storage"),
    server.seen.filter(({ kind }) => kind === "storage"),
  ];
  t.ok(hub.every(({ authorization }) => authorization === `Bearer ${TOKEN}`));
  t.ok(storage.length > 0 && storage.every(({ authorization }) => authorization === undefined));
  // A redirect to another host, a hub that repeats what it was sent, a page of a proxy.
  server.commit("org/m", { "other.json": "x" });
  server.fault = ({ kind }) =>
    kind === "resolve" ? { redirect: `${otherUrl}/${TOKEN}?token=${TOKEN}` } : undefined;
  const errors = [await snapshot_download("org/m").catch((error) => error)];
  server.fault = () => ({ status: 400, headers: { "x-error-message": `no ${TOKEN}` } });
  errors.push(await hf_hub_download("org/n", "a").catch((error) => error));
  t.ok(headers.length > 0 && headers.every((header) => header === undefined));
  for (const error of errors) {
    t.equal(error.code, "ERR_HUB");
    const shown = [error.message, error.stack, JSON.stringify(error), String(error.cause), error.hint].join(
      " ",
    );
    t.notMatch(shown, TOKEN);
  }
  for (const [name, text] of Object.entries(contents(home))) t.notMatch(text, TOKEN, name);
});

t.test("faults: each ends in the right bytes or a typed error", async (t) => {
  const { server, cache } = await hubFor(t);
  process.env.HF_HUB_DOWNLOAD_TIMEOUT = "0.3";
  process.env.HF_HUB_ETAG_TIMEOUT = "2";
  server.create("org/m");
  const weights = randomBytes(6 * MB);
  server.commit("org/m", { "config.json": '{"a": 1}', "model.safetensors": weights });
  const once = (kind: string, fault: Fault) => {
    let left = 1;
    return (seen: { kind: string; path: string }) => (seen.kind === kind && left-- > 0 ? fault : undefined);
  };
  const always = (kind: string, fault: Fault) => (seen: { kind: string }) =>
    seen.kind === kind ? fault : undefined;
  const run = async (fault: HubServer["fault"]) => {
    rmSync(cache, { recursive: true, force: true });
    server.seen.length = 0;
    server.fault = fault;
    const folder = await snapshot_download("org/m");
    t.ok(readFileSync(path.join(folder, "model.safetensors")).equals(weights));
    t.equal(readFileSync(path.join(folder, "config.json"), "utf8"), '{"a": 1}');
  };
  for (const [kind, fault] of [
    ["storage", { drop: 0 }],
    ["storage", { drop: 5 * MB }],
    ["storage", { drop: -1 }],
    ["storage", { corrupt: 12345 }],
    ["storage", { length: 5 }],
    ["storage", { length: -5 }],
    ["storage", { status: 403 }],
    ["storage", { status: 500 }],
    ["storage", { noRanges: true }],
    ["storage", { drip: [512 * 1024, 5] }],
    ["resolve", { status: 429 }],
    ["resolve", { status: 429, headers: { "retry-after": "0" } }],
    ["resolve", { status: 502 }],
    ["resolve", { drop: 3 }],
    ["revision", { status: 500 }],
    ["revision", { drop: 5 }],
    ["tree", { drop: -1 }],
    ["tree", { status: 429 }],
  ] as const) {
    await t.resolves(run(once(kind, fault)), JSON.stringify([kind, fault]));
  }
  server.seen.length = 0;
  await run(once("storage", { drop: 4 * MB }));
  const ranges = server.seen.filter(({ kind }) => kind === "storage").map(({ range }) => range);
  t.match(ranges[1], /^bytes=[1-9]\d*-/, "goes on where it stopped");

  for (const [kind, fault] of [
    ["storage", { drop: 0 }],
    ["storage", { corrupt: 1 }],
    ["storage", { length: 7 }],
    ["storage", { status: 500 }],
    ["storage", { status: 404 }],
    ["resolve", { status: 429 }],
    ["tree", { status: 500 }],
    ["revision", { drop: 1 }],
    ["storage", { redirect: "/file/loop" }],
  ] as const) {
    await t.rejects(run(always(kind, fault)), { code: "ERR_HUB" }, JSON.stringify([kind, fault]));
    const blobs = path.join(cache, "models--org--m/blobs");
    const sha = createHash("sha256").update(weights).digest("hex");
    t.notOk(existsSync(path.join(blobs, sha)), "no wrong byte");
  }
  // A silent server is not waited for without an end.
  await t.rejects(run(always("storage", { drip: [10, 5000] })), { code: "ERR_HUB" });
});

t.test("resuming: our notes, an older Python's file, another process", async (t) => {
  const { server, cache } = await hubFor(t);
  server.create("org/m");
  const weights = randomBytes(20 * MB);
  server.commit("org/m", { "model.safetensors": weights });
  const sha = createHash("sha256").update(weights).digest("hex");
  const blobs = path.join(cache, "models--org--m/blobs");
  const controller = new AbortController();
  const stop = new Error("enough");
  server.fault = ({ kind }) => (kind === "storage" ? { drip: [MB, 10] } : undefined);
  await t.rejects(
    snapshot_download("org/m", {
      signal: controller.signal,
      progress_callback: ({ file, loaded }) => {
        if (file === "model.safetensors" && loaded > 8 * MB) controller.abort(stop);
      },
    }),
    stop,
  );
  t.same(
    readdirSync(blobs)
      .filter((name) => name.startsWith(sha))
      .sort(),
    [`${sha}.parts.incomplete`, `${sha}.parts.json`],
  );
  server.fault = () => undefined;
  server.seen.length = 0;
  const folder = await snapshot_download("org/m");
  const start = Number(
    /bytes=(\d+)/.exec(server.seen.find(({ kind }) => kind === "storage")?.range ?? "")?.[1],
  );
  t.ok(start >= 7 * MB, `went on at ${start}`);
  t.ok(readFileSync(path.join(folder, "model.safetensors")).equals(weights));
  t.same(
    readdirSync(blobs).filter((name) => name.includes(".")),
    [],
  );

  // What an older Python left: the beginning, without gaps. And wrong bytes in it.
  for (const beginning of [weights.subarray(0, 5 * MB), randomBytes(5 * MB)]) {
    rmSync(path.join(blobs, sha));
    writeFileSync(path.join(blobs, `${sha}.incomplete`), beginning);
    server.seen.length = 0;
    await snapshot_download("org/m");
    t.equal(server.seen.find(({ kind }) => kind === "storage")?.range, `bytes=${5 * MB}-${20 * MB - 1}`);
    t.ok(readFileSync(path.join(folder, "model.safetensors")).equals(weights));
  }
  // A blob that was cut is not taken for whole.
  truncateSync(path.join(blobs, sha), 100);
  rmSync(path.join(folder, "model.safetensors"));
  await snapshot_download("org/m");
  t.ok(readFileSync(path.join(folder, "model.safetensors")).equals(weights));
  // Two at once fetch it once.
  rmSync(cache, { recursive: true });
  server.seen.length = 0;
  await Promise.all([snapshot_download("org/m"), snapshot_download("org/m")]);
  t.equal(server.count("storage"), 1);
});

t.test("into a folder; through a proxy; by Xet; renamed", async (t) => {
  const { server, home, cache } = await hubFor(t);
  server.useXet = true;
  server.create("org/m");
  const weights = randomBytes(5 * MB + 3);
  server.commit("org/m", { "config.json": "{}", "sub/a.safetensors": weights });
  const local = path.join(home, "local");
  t.equal(await snapshot_download("org/m", { local_dir: local, allow_patterns: "sub/" }), local);
  t.ok(lstatSync(path.join(local, "sub/a.safetensors")).isFile());
  t.notOk(existsSync(path.join(cache, "models--org--m/blobs")));
  server.seen.length = 0;
  await snapshot_download("org/m", { local_dir: local });
  t.equal(server.count("resolve"), 2, "what is there is not brought again");
  writeFileSync(path.join(local, "sub/a.safetensors"), Buffer.alloc(weights.length));
  await sleep(1100);
  writeFileSync(path.join(local, "sub/a.safetensors"), Buffer.alloc(weights.length));
  const { mtimeMs } = statSync(path.join(local, "sub/a.safetensors"));
  t.ok(mtimeMs > 0);
  await snapshot_download("org/m", { local_dir: local });
  t.ok(
    readFileSync(path.join(local, "sub/a.safetensors")).equals(weights),
    "a changed file is brought again",
  );

  const proxied: string[] = [];
  const proxy = http.createServer((request, response) => {
    proxied.push(request.url as string);
    const onward = http.request(
      request.url as string,
      { method: request.method, headers: request.headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.pipe(response);
      },
    );
    request.pipe(onward);
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  t.teardown(() => proxy.close());
  process.env.HTTP_PROXY = `http://127.0.0.1:${(proxy.address() as { port: number }).port}`;
  await hf_hub_download("org/m", "config.json");
  t.ok(
    proxied.some((url) => url.startsWith(server.url)),
    "by way of the proxy",
  );
  process.env.NO_PROXY = "127.0.0.1";
  proxied.length = 0;
  await hf_hub_download("org/m", "config.json", { force_download: true });
  t.same(proxied, []);
  delete process.env.HTTP_PROXY;

  const { above } = xet;
  t.teardown(() => {
    xet.above = above;
  });
  xet.above = MB;
  server.seen.length = 0;
  let drops = 1;
  server.fault = ({ path: at }) => (at.startsWith("/xorb/") && drops-- > 0 ? { drop: 2 * MB } : undefined);
  const file = await hf_hub_download("org/m", "sub/a.safetensors");
  t.ok(readFileSync(file).equals(weights));
  t.ok(
    server.seen.filter(({ path: at }) => at.startsWith("/xorb/")).length > 1,
    "put together from chunks, resumed",
  );

  server.renamed.set("org/old", "org/m");
  t.ok(readFileSync(await hf_hub_download("org/old", "config.json"), "utf8"), "{}");
});
