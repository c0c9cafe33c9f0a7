// One cache for Python and us: what each wrote, the other reads. And caches that something has damaged.

import { randomBytes } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { delete_revisions, prune_cache, scan_cache_dir, verify_cache } from "#lib/hub/cache_manager.js";
import { findCheckpoint } from "#lib/hub/checkpoint.js";
import { findFile, resolveFile } from "#lib/hub/files.js";
import { withFileLock } from "#lib/hub/lock.js";
import { hf_hub_download, snapshot_download } from "#lib/hub/snapshot.js";
import { hubFor, runPython, withoutPython } from "../support/hub.js";

const MB = 1024 * 1024;

/** The files of a folder with their content, links followed. */
function contents(folder: string): Record<string, string> {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  const files = names.filter((name) => statSync(path.join(folder, name)).isFile());
  return Object.fromEntries(
    files.sort().map((name) => [name, readFileSync(path.join(folder, name), "latin1")]),
  );
}

t.test("one cache for Python and us", { skip: withoutPython }, async (t) => {
  const { server, cache } = await hubFor(t);
  server.create("org/ours");
  server.create("org/theirs");
  const files = {
    "config.json": '{"model_type": "x"}',
    "model.safetensors": randomBytes(2 * MB),
    "a/b.txt": "hello",
  };
  server.commit("org/ours", files);
  server.commit("org/theirs", files);
  const folder = await snapshot_download("org/ours");
  await hf_hub_download("org/ours", "none.json").catch(() => {});
  process.env.HF_HUB_OFFLINE = "1";
  const seen = server.seen.length;
  const read = await runPython(`
import json
from huggingface_hub import snapshot_download, hf_hub_download, scan_cache_dir, try_to_load_from_cache, _CACHED_NO_EXIST
folder = snapshot_download("org/ours")
info = scan_cache_dir()
print(json.dumps([folder, hf_hub_download("org/ours", "a/b.txt"), [str(w) for w in info.warnings], len(info.incomplete_files),
  try_to_load_from_cache("org/ours", "none.json") is _CACHED_NO_EXIST]))`);
  t.same(JSON.parse(read), [folder, path.join(folder, "a/b.txt"), [], 0, true]);
  t.equal(server.seen.length, seen);

  delete process.env.HF_HUB_OFFLINE;
  const theirs = await runPython(`
from huggingface_hub import snapshot_download, hf_hub_download
print(snapshot_download("org/theirs"))
try: hf_hub_download("org/theirs", "none.json")
except Exception: pass`);
  process.env.HF_HUB_OFFLINE = "1";
  t.equal(await snapshot_download("org/theirs"), theirs);
  t.same(contents(theirs), contents(folder));
  t.equal(await findFile("org/theirs", "none.json"), undefined);
  t.equal(await resolveFile("org/theirs", "a/b.txt"), path.join(theirs, "a/b.txt"));
  delete process.env.HF_HUB_OFFLINE;
  server.seen.length = 0;
  await snapshot_download("org/theirs");
  t.same(
    server.seen.map(({ kind }) => kind),
    ["revision"],
    "nothing is brought again",
  );

  // Locks: each waits for the other.
  const lock = path.join(cache, ".locks/models--org--ours/x.lock");
  mkdirSync(path.dirname(lock), { recursive: true });
  const holder = (seconds: number) => `
import time
from huggingface_hub.utils import WeakFileLock
with WeakFileLock(${JSON.stringify(lock)}):
    print(time.time(), flush=True)
    time.sleep(${seconds})
    print(time.time(), flush=True)`;
  const first = runPython(holder(1));
  while (!existsSync(lock)) await sleep(10);
  await sleep(150);
  const ours = await withFileLock(lock, undefined, async (held) => {
    t.equal(held, true);
    return Date.now() / 1000;
  });
  const [, released] = (await first).split("\n").map(Number);
  t.ok(ours >= (released as number) - 0.01, "we wait for Python");
  let until = 0;
  let second: Promise<string> | undefined;
  await withFileLock(lock, undefined, async () => {
    second = runPython(holder(0));
    await sleep(1500);
    until = Date.now() / 1000;
  });
  const [taken] = ((await second) as string).split("\n").map(Number);
  t.ok((taken as number) >= until - 0.01, "Python waits for us");
  const shared = path.join(cache, ".locks/models--org--ours/y.lock");
  const before = process.umask(0o077);
  await withFileLock(shared, undefined, async () => {}).finally(() => process.umask(before));
  t.equal(statSync(shared).mode & 0o777, 0o664, "others of the group can take it");
  await t.rejects(
    withFileLock(lock, AbortSignal.abort(new Error("no")), async () => {}),
    /no/,
  );
});

/** A Xet file in the place that Python shares between repositories, and one repository's blob as a link to it. */
function share(cache: string, repo: string, content: Buffer, etag: string, xetHash: string): string {
  const store = path.join(cache, "blobs", xetHash.slice(0, 2));
  mkdirSync(store, { recursive: true });
  writeFileSync(path.join(cache, "blobs/.huggingface-shared-blobs"), "1\n");
  writeFileSync(path.join(store, xetHash), content, { mode: 0o444 });
  const blob = path.join(cache, `models--${repo.replace("/", "--")}/blobs`, etag);
  mkdirSync(path.dirname(blob), { recursive: true });
  rmSync(blob, { force: true });
  symlinkSync(path.relative(path.dirname(blob), path.join(store, xetHash)), blob);
  writeFileSync(path.join(store, `${xetHash}.refs`), `${path.relative(cache, blob)}\n`, { flag: "a" });
  return path.join(store, xetHash);
}

t.test("blobs that repositories share, as Python leaves them", async (t) => {
  const { server, cache } = await hubFor(t);
  server.useXet = true;
  const weights = randomBytes(2 * MB);
  for (const name of ["org/a", "org/b", "org/c"]) {
    server.create(name);
    server.commit(name, { "config.json": "{}", "model.safetensors": weights });
  }
  const { sha256, xetHash } = server.store("model.safetensors", weights) as {
    sha256: string;
    xetHash: string;
  };
  const folder = await snapshot_download("org/a");
  const stored = share(cache, "org/a", weights, sha256, xetHash);
  t.same((await findCheckpoint("org/a")).files, [path.join(folder, "model.safetensors")], "links lead there");
  server.seen.length = 0;
  const other = await snapshot_download("org/b");
  t.equal(server.count("storage"), 0, "what is shared is not brought again");
  t.ok(lstatSync(path.join(cache, "models--org--b/blobs", sha256)).isSymbolicLink());
  t.ok(readFileSync(path.join(other, "model.safetensors")).equals(weights));
  t.same((await verify_cache("org/b"))[0]?.wrong, []);
  t.equal((await scan_cache_dir()).repos.length, 2);
  t.equal(await delete_revisions("org/a", [], { dry_run: true }), "{}".length + gitattributes(server));
  await delete_revisions("org/a");
  t.ok(existsSync(stored), "another repository uses it");
  t.ok((await delete_revisions("org/b")) > 2 * MB);
  t.notOk(existsSync(stored), "the last one takes it along");

  // Wrong bytes under a Xet hash are not used; a link that leads elsewhere is none of these.
  await snapshot_download("org/a");
  const wrong = share(cache, "org/a", randomBytes(2 * MB), sha256, xetHash);
  const good = await snapshot_download("org/c");
  t.ok(readFileSync(path.join(good, "model.safetensors")).equals(weights));
  t.ok(lstatSync(path.join(cache, "models--org--c/blobs", sha256)).isFile());
  t.same((await verify_cache("org/a"))[0]?.wrong, ["model.safetensors"]);
  rmSync(wrong.concat(".refs"));
  await delete_revisions("org/a");
  t.ok(existsSync(wrong), "without its list of links it stays, as in Python");
  process.env.HF_HUB_DISABLE_SHARED_BLOBS = "1";
  t.teardown(() => {
    delete process.env.HF_HUB_DISABLE_SHARED_BLOBS;
  });
  writeFileSync(path.join(cache, "outside"), weights);
  const pointer = path.join(good, "model.safetensors");
  rmSync(pointer);
  symlinkSync(path.join(cache, "outside"), pointer);
  await t.rejects(findCheckpoint("org/c"), { code: "ERR_CHECKPOINT", message: /leads out of its folder/ });
});

const gitattributes = (server: { file(name: string, file: string): Buffer | undefined }): number =>
  server.file("org/a", ".gitattributes")?.length ?? 0;

t.test("a cache without links", { skip: withoutPython }, async (t) => {
  const { server, cache } = await hubFor(t);
  server.create("org/m");
  const weights = randomBytes(2 * MB);
  server.commit("org/m", { "config.json": "{}", "model.safetensors": weights });
  process.env.HF_HUB_DISABLE_SYMLINKS = "1";
  t.teardown(() => {
    delete process.env.HF_HUB_DISABLE_SYMLINKS;
  });
  const folder = await snapshot_download("org/m");
  t.ok(lstatSync(path.join(folder, "model.safetensors")).isFile());
  t.same(
    (await findCheckpoint("org/m")).files.map((file) => readFileSync(file).equals(weights)),
    [true],
  );
  server.seen.length = 0;
  await snapshot_download("org/m");
  t.equal(server.count("resolve"), 0, "nothing is brought again");
  t.same((await verify_cache("org/m"))[0]?.wrong, []);
  writeFileSync(path.join(folder, "model.safetensors"), randomBytes(2 * MB));
  t.same((await verify_cache("org/m"))[0]?.wrong, ["model.safetensors"]);
  await delete_revisions("org/m");
  // Python, where the disk has no links: the files lie in the snapshot, and there are no blobs.
  const theirs = await runPython(`
import huggingface_hub.file_download as f
f.are_symlinks_supported = lambda cache_dir=None: False
from huggingface_hub import snapshot_download
print(snapshot_download("org/m"))`);
  t.ok(lstatSync(path.join(theirs, "model.safetensors")).isFile());
  server.seen.length = 0;
  t.equal(await snapshot_download("org/m"), theirs);
  t.equal(server.count("resolve"), 0, "nothing is brought again");
  t.ok(readFileSync((await findCheckpoint("org/m")).files[0] as string).equals(weights));
  t.ok((await scan_cache_dir()).size > 2 * MB);
  t.same((await verify_cache("org/m"))[0]?.wrong, []);
  t.ok(existsSync(cache));
});

t.test("a damaged cache is mended or refused, never believed", async (t) => {
  const { server, cache } = await hubFor(t);
  server.create("org/m");
  const weights = randomBytes(9 * MB);
  const commit = server.commit("org/m", {
    "config.json": "{}",
    "model.safetensors": weights,
    "a/b.txt": "x",
  });
  const repo = path.join(cache, "models--org--m");
  const folder = await snapshot_download("org/m");
  const sha = readdirSync(path.join(repo, "blobs")).find((name) => name.length === 64) as string;
  const whole = async (message: string) => {
    t.equal(await snapshot_download("org/m"), folder, message);
    t.ok(readFileSync(path.join(folder, "model.safetensors")).equals(weights), message);
  };
  for (const text of ["", "../../..", "x y", "\u0000", `${"0".repeat(40)}\n`]) {
    writeFileSync(path.join(repo, "refs/main"), text);
    await whole(`refs/main is ${JSON.stringify(text)}`);
  }
  t.equal(readFileSync(path.join(repo, "refs/main"), "utf8"), commit);
  const tree = path.join(repo, "trees", `${commit}.json`);
  const { files } = JSON.parse(readFileSync(tree, "utf8")) as { files: Record<string, object> };
  for (const text of [
    "",
    "{",
    "null",
    '{"format_version": 2, "files": {}}',
    '{"format_version": 1}',
    JSON.stringify({
      format_version: 1,
      files: { ...files, "config.json": { size: -3, blob_id: sha.slice(24) } },
    }),
    JSON.stringify({
      format_version: 1,
      files: { ...files, "config.json": { size: 3, blob_id: "../../../../x" } },
    }),
    JSON.stringify({ format_version: 1, files: { "config.json": null } }),
  ]) {
    writeFileSync(tree, text);
    await whole(`trees/<commit>.json is ${text.slice(0, 60)}`);
  }
  for (const done of [
    "[[0, 5], [5, 2]]",
    "[[-1, 9437184]]",
    "[[0, 9437184]]",
    "[[0.5, 7.5]]",
    "[[0, 1e12]]",
    '"all"',
    "[[1,2,3],null]",
  ]) {
    rmSync(path.join(repo, "blobs", sha));
    writeFileSync(path.join(repo, "blobs", `${sha}.parts.incomplete`), randomBytes(9 * MB));
    writeFileSync(
      path.join(repo, "blobs", `${sha}.parts.json`),
      `{"version": 1, "etag": "${sha}", "done": ${done}}`,
    );
    await whole(`notes of a download say ${done}`);
  }
  // A folder where a file should be, and a file where a folder should be, are errors that say so.
  rmSync(repo, { recursive: true });
  mkdirSync(path.join(repo, "snapshots", commit, "config.json", "x"), { recursive: true });
  await t.rejects(snapshot_download("org/m"), { code: "ERR_FILE" });
  rmSync(repo, { recursive: true });
  mkdirSync(path.join(repo, "snapshots", commit), { recursive: true });
  writeFileSync(path.join(repo, "snapshots", commit, "a"), "");
  await t.rejects(snapshot_download("org/m"), { code: "ERR_FILE" });
  await t.rejects(hf_hub_download("org/m", "a/b.txt"), { code: "ERR_FILE" });
  rmSync(repo, { recursive: true });
  writeFileSync(repo, "");
  await t.rejects(snapshot_download("org/m"), { code: "ERR_FILE" });
  const local = path.join(cache, "local");
  mkdirSync(path.join(local, "config.json/x"), { recursive: true });
  rmSync(repo);
  await t.rejects(snapshot_download("org/m", { local_dir: local }), { code: "ERR_FILE" });
  t.same((await prune_cache()).removed, []);
  t.ok(statSync(local).isDirectory());
});
