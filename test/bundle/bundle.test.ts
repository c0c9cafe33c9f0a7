// The archive for a server without a network: unpacked into an empty folder, it works without Node or npm on PATH.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { torch } from "torchformers";
import { loadReport } from "#lib/addon/loader.js";
import { fixture, root } from "../support/fixtures.js";

torch.ones([1]);
const libtorch = loadReport().libtorch?.root as string;
const folder = t.testdir();
const { NODE_OPTIONS: _, NODE_V8_COVERAGE: __, ...env } = process.env;

t.test("the archive holds Node, the package and one addon of each kind", async (t) => {
  // The compression takes a minute and changes nothing of what is inside.
  const args = ["scripts/bundle.mjs", "--no-prepare", "--compression", "none", "--output", folder];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8", env });
  t.equal(status, 0, stderr);
  for (const part of ["Node", "package", "addons", "dependencies"])
    t.match(stdout, new RegExp(`\\d+\\.\\d MiB  ${part}\n`));
  const archive = readdirSync(folder).find((name) => name.endsWith(".tar")) as string;
  t.equal(spawnSync("tar", ["-xf", join(folder, archive), "-C", folder, "--strip-components=1"]).status, 0);
  const addons = readdirSync(join(folder, "node_modules"), { recursive: true }).map(String);
  const foreign = addons.filter(
    (name) => /darwin|win32|android|musl|linux-arm/.test(name) && name.endsWith(".node"),
  );
  t.same(foreign, []);
  t.notOk(existsSync(join(folder, "node_modules/typescript")));
});

t.test("it runs with no node on PATH", async (t) => {
  const bin = join(folder, "path");
  mkdirSync(bin);
  for (const tool of ["dirname", "readlink"]) {
    const place = ["/usr/bin", "/bin"].map((path) => join(path, tool)).find(existsSync) as string;
    symlinkSync(place, join(bin, tool));
  }
  const run = (...args: string[]) =>
    spawnSync(join(folder, "bin/torchformers"), args, {
      encoding: "utf8",
      cwd: "/",
      env: { PATH: bin, HOME: folder, TORCHFORMERS_LIBTORCH: libtorch },
    });
  const doctor = run("doctor");
  t.equal(doctor.status, 0, doctor.stderr);
  t.match(doctor.stdout, /✓ Operators: run/);
  const generate = run("generate", fixture("demo-llama"), "This class is used to", "-n", "8");
  t.equal(generate.status, 0, generate.stderr);
  t.ok(generate.stdout.trim().length > 0);
});
