import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { OpError, ShapeError, TorchformersError } from "torchformers";
import { makeError } from "#lib/addon/error_factory.js";
import { cachedLibtorch, cacheFolder, findLibtorch } from "#lib/addon/libtorch.js";
import { compareVersions, libc } from "#lib/addon/platform.js";

/** What the search looks at: names and a version, no real library. */
function fakeLibtorch(root: string, { version = "2.11.0+cpu", cuda = false, headers = false } = {}): string {
  mkdirSync(join(root, "torch/lib"), { recursive: true });
  for (const name of ["libc10.so", "libtorch_cpu.so", ...(cuda ? ["libtorch_cuda.so"] : [])])
    writeFileSync(join(root, "torch/lib", name), "");
  writeFileSync(join(root, "torch/version.py"), `from typing import Optional\n__version__ = '${version}'\n`);
  if (headers) {
    mkdirSync(join(root, "torch/include/ATen"), { recursive: true });
    writeFileSync(join(root, "torch/include/ATen/ATen.h"), "");
  }
  return root;
}

t.test("the folder of the cache", async (t) => {
  t.equal(cacheFolder({ TORCHFORMERS_CACHE: "/a", XDG_CACHE_HOME: "/b" }), "/a");
  t.equal(cacheFolder({ XDG_CACHE_HOME: "/b" }), "/b/torchformers");
  t.match(cacheFolder({}), /\/\.cache\/torchformers$/);
  t.equal(cachedLibtorch("cpu", { TORCHFORMERS_CACHE: "/a" }), "/a/libtorch/2.11.0-cpu");
});

t.test("says what is wrong with a named folder, and looks nowhere else", async (t) => {
  const folder = t.testdir();
  const cache = join(folder, "cache");
  fakeLibtorch(join(cache, "libtorch/2.11.0-cpu"));
  const reason = (named: string, headers = false) => {
    const { libtorch, tried } = findLibtorch({
      headers,
      env: { TORCHFORMERS_LIBTORCH: named, TORCHFORMERS_CACHE: cache },
    });
    t.equal(libtorch, undefined);
    t.equal(tried.length, 1);
    return tried[0]?.reason;
  };
  t.equal(reason(join(folder, "nowhere")), "does not exist");
  t.equal(reason(folder), "has no torch/lib/libc10.so");
  t.equal(
    reason(fakeLibtorch(join(folder, "old"), { version: "2.10.0+cu130" })),
    "is torch 2.10.0+cu130; 2.11.0 is needed",
  );
  t.equal(
    reason(fakeLibtorch(join(folder, "new"), { version: "2.11.0a0+git1" })),
    "is torch 2.11.0a0+git1; 2.11.0 is needed",
  );
  t.equal(reason(fakeLibtorch(join(folder, "good")), true), "has no headers in torch/include");
});

t.test("takes the folder above, torch itself, or its lib", async (t) => {
  const root = fakeLibtorch(join(t.testdir(), "site-packages"), { cuda: true, headers: true });
  for (const named of [root, join(root, "torch"), join(root, "torch/lib")]) {
    t.match(findLibtorch({ headers: true, env: { TORCHFORMERS_LIBTORCH: named } }).libtorch, {
      root,
      lib: join(root, "torch/lib"),
      version: "2.11.0+cpu",
      source: "environment",
      cuda: true,
      headers: true,
    });
  }
});

t.test("searches package, cache with CUDA first, virtual environment, python3", async (t) => {
  const folder = t.testdir({ bin: {} });
  const env = {
    TORCHFORMERS_CACHE: join(folder, "cache"),
    VIRTUAL_ENV: join(folder, "venv"),
    PATH: join(folder, "bin"),
  };
  const source = () => findLibtorch({ env }).libtorch?.root;
  t.equal(source(), undefined);
  t.same(
    findLibtorch({ env }).tried.map(({ source }) => source),
    ["package", "package", "cache", "cache", "python"],
  );

  const other = fakeLibtorch(join(folder, "other"));
  writeFileSync(join(folder, "bin/python3"), `#!/bin/sh\necho ${other}/torch/__init__.py\n`);
  chmodSync(join(folder, "bin/python3"), 0o755);
  t.equal(source(), other);

  const venv = fakeLibtorch(join(folder, "venv/lib/python3.12/site-packages"));
  t.equal(source(), venv);
  const cpu = fakeLibtorch(cachedLibtorch("cpu", env));
  t.equal(source(), cpu);
  const cuda = fakeLibtorch(cachedLibtorch("cu130", env), { cuda: true });
  t.equal(source(), cuda);
  t.match(findLibtorch({ env }).tried.at(-1), { source: "cache", place: cuda, reason: null });
});

t.test("native errors become classes by their code", async (t) => {
  t.type(makeError("ERR_SHAPE", "[aten::mm] …", null), ShapeError);
  t.type(makeError("ERR_OP", "m", "h"), OpError);
  t.match(makeError("ERR_OP", "m", "h"), { code: "ERR_OP", hint: "h", message: "m\nh", name: "OpError" });
  const unknown = makeError("toString", "m", null);
  t.type(unknown, TorchformersError);
  t.match(unknown, { code: "toString", message: "m", hint: undefined });
});

t.test("the platform", async (t) => {
  t.ok(
    compareVersions("2.9", "2.34") < 0 &&
      compareVersions("2.36", "2.34") > 0 &&
      compareVersions("2.34.1", "2.34") > 0,
  );
  t.equal(compareVersions("3.4.29", "3.4.29"), 0);
  t.match(libc(), { name: "glibc", version: /^2\.\d+$/ });
});
