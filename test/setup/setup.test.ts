import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import t, { type Test } from "tap";
import { cachedLibtorch } from "#lib/addon/libtorch.js";
import { withLock } from "#lib/setup/lock.js";
import { setup } from "#lib/setup/setup.js";
import { isWanted, WHEELS, wheelsOf } from "#lib/setup/wheels.js";

/** A cache folder of its own, and PATH with only these programs on it (name: shell script). */
function sandbox(t: Test, programs: Record<string, string> = {}): string {
  const folder = t.testdir({ bin: {}, cache: {}, wheels: {} });
  for (const [name, script] of Object.entries(programs)) {
    writeFileSync(join(folder, "bin", name), `#!/bin/sh\n${script}\n`);
    chmodSync(join(folder, "bin", name), 0o755);
  }
  const before = { ...process.env };
  process.env["TORCHFORMERS_CACHE"] = join(folder, "cache");
  process.env["PATH"] = [join(folder, "bin"), "/usr/bin", "/bin"]
    .slice(0, Object.keys(programs).length > 0 ? 3 : 1)
    .join(delimiter);
  for (const name of ["TORCHFORMERS_LIBTORCH", "VIRTUAL_ENV"]) delete process.env[name];
  t.teardown(() => Object.assign(process.env, before));
  return folder;
}

t.test("names what is missing to download", async (t) => {
  sandbox(t);
  await t.rejects(setup(), {
    code: "ERR_SETUP",
    message: /python3 is missing[\s\S]*apt install python3 python3-pip/,
  });
});

t.test("names pip when Python has none", async (t) => {
  sandbox(t, { python3: 'case "$*" in "-m pip"*) exit 1;; esac; exit 0', python: "exit 1", uv: "exit 1" });
  await t.rejects(setup(), { code: "ERR_SETUP", message: /no pip[\s\S]*apt install python3-pip/ });
});

t.test("tells what pip told when it fails", async (t) => {
  const script =
    'case "$*" in *download*) echo "ERROR: Could not connect to the index" >&2; exit 1;; esac; exit 0';
  const folder = sandbox(t, { python3: script });
  await t.rejects(setup(), { code: "ERR_SETUP", message: /Could not connect to the index[\s\S]*--from/ });
  t.same(readdirSync(join(folder, "cache/libtorch")), ["downloads"], "no lock and no half folder is left");
  t.same(readdirSync(join(folder, "cache/libtorch/downloads")), []);
});

t.test("refuses a file that is not a published wheel, and keeps none of it", async (t) => {
  const script = `
case "$*" in *download*) ;; *) exit 0;; esac
while [ "$1" != "--dest" ]; do shift; done
echo nothing > "$2/torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl"`;
  const folder = sandbox(t, { python3: script });
  await t.rejects(setup(), { code: "ERR_SETUP", message: /not one of the published wheels/ });
  t.same(readdirSync(join(folder, "cache/libtorch/downloads")), []);
});

t.test("--from names the wheels that are missing and how to get them", async (t) => {
  const folder = sandbox(t);
  const from = join(folder, "wheels");
  writeFileSync(join(from, "torch-2.10.0-cp312-cp312-manylinux_2_28_x86_64.whl"), "");
  const message =
    /torch 2\.11\.0[\s\S]*nvidia-cuda-cupti[\s\S]*nvidia-cuda-runtime[\s\S]*pip download --no-deps/;
  await t.rejects(setup({ from }), { code: "ERR_SETUP", message });
  await t.rejects(setup({ from, dryRun: true }), { code: "ERR_SETUP", message });
  await t.rejects(setup({ from: join(folder, "nowhere") }), { code: "ERR_SETUP", message });
});

t.test("a dry run tells and does nothing", async (t) => {
  const folder = sandbox(t);
  const cpu = await setup({ dryRun: true });
  t.match(cpu, { status: "planned", flavour: "cpu", folder: cachedLibtorch("cpu") });
  t.equal(cpu.downloads.length, 3);
  const cuda = await setup({ dryRun: true, flavour: "cu130" });
  t.equal(cuda.downloads.length, WHEELS.length);
  t.same(readdirSync(join(folder, "cache")), []);
});

t.test("a copy that fits is left alone, whatever its place", async (t) => {
  const folder = sandbox(t);
  const lib = join(folder, "own/torch/lib");
  mkdirSync(lib, { recursive: true });
  for (const name of ["libc10.so", "libtorch_cpu.so"]) writeFileSync(join(lib, name), "library");
  writeFileSync(join(folder, "own/torch/version.py"), "__version__ = '2.11.0+cpu'\n");
  process.env["TORCHFORMERS_LIBTORCH"] = join(folder, "own");
  t.match(await setup(), {
    status: "present",
    folder: join(folder, "own"),
    version: "2.11.0+cpu",
    bytes: 14,
  });
  t.match(
    await setup({ dryRun: true, headers: true }),
    { status: "planned" },
    "without headers it does not fit a build",
  );
  t.match(await setup({ dryRun: true, flavour: "cu130" }), { status: "planned" }, "nor CUDA");
});

t.test("a copy of ours that lost a file does not count", async (t) => {
  const folder = sandbox(t);
  const own = cachedLibtorch("cpu");
  mkdirSync(join(own, "torch/lib"), { recursive: true });
  for (const name of ["libc10.so", "libtorch_cpu.so"]) writeFileSync(join(own, "torch/lib", name), "library");
  writeFileSync(join(own, "torch/version.py"), "__version__ = '2.11.0+cu130'\n");
  t.match(await setup({ dryRun: true }), { status: "planned" }, "no mark that it was finished");
  const installed = { files: { "torch/lib/libc10.so": 7, "nvidia/cu13/lib/libcudart.so.13": 5 }, bytes: 12 };
  writeFileSync(join(own, "installed.json"), JSON.stringify(installed));
  t.match(await setup({ dryRun: true }), { status: "planned" }, "a library is gone");
  mkdirSync(join(own, "nvidia/cu13/lib"), { recursive: true });
  writeFileSync(join(own, "nvidia/cu13/lib/libcudart.so.13"), "12345");
  t.match(await setup({ dryRun: true }), { status: "present", bytes: 12 });
  t.ok(existsSync(folder));
});

t.test("the list of wheels", async (t) => {
  const files = WHEELS.flatMap(({ files }) => files);
  t.ok(
    files.every(
      ({ sha256, size, name }) => /^[0-9a-f]{64}$/.test(sha256) && size > 0 && name.endsWith("_x86_64.whl"),
    ),
  );
  t.equal(new Set(files.map(({ name }) => name)).size, files.length);
  t.same(
    wheelsOf("cpu").map(({ project }) => project),
    ["torch", "nvidia-cuda-cupti", "nvidia-cuda-runtime"],
  );

  const cpu = (name: string, headers = false) => isWanted(name, "cpu", headers);
  t.ok(
    cpu("torch/lib/libtorch_cpu.so") &&
      cpu("torch/lib/libgomp.so.1") &&
      cpu("nvidia/cu13/lib/libcudart.so.13"),
  );
  t.ok(cpu("torch/version.py") && cpu("torch-2.11.0.dist-info/licenses/LICENSE"));
  t.notOk(cpu("torch/lib/libtorch_cuda.so") || cpu("torch/__init__.py") || cpu("torch/include/ATen/ATen.h"));
  t.ok(
    cpu("torch/include/ATen/ATen.h", true) &&
      cpu("torchgen/packaged/ATen/native/native_functions.yaml", true),
  );
  t.ok(
    isWanted("torch/lib/libtorch_cuda.so", "cu130", false) &&
      isWanted("nvidia/nccl/lib/libnccl.so.2", "cu130", false),
  );
  t.notOk(isWanted("torch/lib/libtorch_python.so", "cu130", false) || isWanted("torch/lib/", "cu130", true));
});

t.test("a lock lets one in at a time, and is taken over from the dead", async (t) => {
  const path = join(t.testdir(), "a.lock");
  let inside = 0;
  let most = 0;
  const work = async () => {
    most = Math.max(most, ++inside);
    await sleep(20);
    inside--;
  };
  await Promise.all([1, 2, 3].map(() => withLock(path, {}, work)));
  t.equal(most, 1);
  t.notOk(existsSync(path));

  writeFileSync(path, `${hostname()} 4194304 0`); // above the highest process number
  await withLock(path, {}, work);
  t.notOk(existsSync(path), "taken over and removed");

  writeFileSync(path, `${hostname()} ${process.pid} other`);
  let waited = 0;
  const signal = AbortSignal.timeout(300);
  await t.rejects(
    withLock(path, { signal, onWait: () => void waited++ }, work),
    "a living holder is waited for",
  );
  t.equal(waited, 1, "and told once");
  await t.rejects(withLock(join(t.testdir(), "none/a.lock"), {}, work), { code: "ENOENT" });
});
