import { spawn, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { root } from "../support/fixtures.js";

const main = join(root, "dist/cli/main.js");

function torchformers(args: readonly string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], {
    encoding: "utf8",
    env: { ...process.env, ...env },
  });
  return { code: status, stdout, stderr };
}

/** Nowhere is libtorch found. */
const nowhere = { TORCHFORMERS_LIBTORCH: "/nowhere", TORCHFORMERS_CACHE: "/nowhere" };

t.test("usage errors end with 2 and tell what was meant", async (t) => {
  t.match(torchformers([]), { code: 2, stdout: "", stderr: /Usage: torchformers/ });
  t.match(torchformers(["stup"]), { code: 2, stderr: /unknown command 'stup'[\s\S]*Did you mean setup/ });
  t.match(torchformers(["setup", "--flavor", "cpu"]), { code: 2, stderr: /Did you mean --flavour/ });
  t.match(torchformers(["setup", "--flavour", "rocm"]), { code: 2, stderr: /cpu, cu130/ });
  t.match(torchformers(["setup", "--from"]), { code: 2, stderr: /argument missing/ });
  t.match(torchformers(["env", "extra"]), { code: 2, stderr: /too many arguments/ });
});

t.test("eject and init: names, and what would be overwritten", async (t) => {
  t.match(torchformers(["eject", "--list"], nowhere), { code: 0, stdout: /^llama$/m });
  t.match(torchformers(["eject"]), { code: 2, stderr: /Models: llama/ });
  t.match(torchformers(["eject", "lama"]), { code: 2, stderr: /Did you mean 'llama'/ });
  t.match(torchformers(["eject", "llama", "--name", "llama"]), { code: 2, stderr: /the library's own/ });
  t.match(torchformers(["eject", "llama", "--name", "../x"]), { code: 2, stderr: /model_type/ });
  const folder = join(t.testdir({ full: { "index.ts": "" } }), "full");
  t.match(torchformers(["eject", "llama", folder], nowhere), { code: 2, stderr: /index\.ts already/ });
  t.match(torchformers(["init", "My Model"]), { code: 2, stderr: /small letters/ });
  t.match(torchformers(["init", "llama"]), { code: 2, stderr: /eject llama/ });
  t.match(torchformers(["init", "mine", "--folder", folder]), { code: 2, stderr: /not empty/ });
  t.equal(readFileSync(join(folder, "index.ts"), "utf8"), "");
});

t.test("help and version", async (t) => {
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  t.match(torchformers(["--version"]), { code: 0, stdout: `${version}\n` });
  const { code, stdout } = torchformers(["--help"], nowhere);
  t.equal(code, 0);
  for (const name of ["setup", "generate", "chat", "repl", "env", "doctor"]) {
    t.match(stdout, new RegExp(`^  ${name} `, "m"));
    for (const args of [
      [name, "--help"],
      ["help", name],
    ]) {
      t.match(
        torchformers(args, nowhere),
        { code: 0, stdout: /Examples:\n {2}\$ npx torchformers/ },
        args.join(" "),
      );
    }
  }
  t.match(stdout, /Examples:/);
});

t.test("an error is told without a stack, unless asked for", async (t) => {
  const { code, stdout, stderr } = torchformers(["setup", "--from", "/nowhere"], nowhere);
  t.match({ code, stdout }, { code: 1, stdout: "" });
  t.match(stderr, /^error: \/nowhere lacks wheels/);
  t.notMatch(stderr, /\n {4}at /);
  const debug = torchformers(["setup", "--from", "/nowhere"], { ...nowhere, TORCHFORMERS_LOG: "debug" });
  t.match(debug, { code: 1, stderr: /SetupError[\s\S]*\n {4}at / });
});

t.test("setup tells what it would do", async (t) => {
  const folder = t.testdir();
  const env = { TORCHFORMERS_CACHE: folder, TORCHFORMERS_LIBTORCH: "", VIRTUAL_ENV: "", PATH: "" };
  const { code, stdout } = torchformers(["setup", "--dry-run", "--json"], env);
  t.equal(code, 0);
  t.match(JSON.parse(stdout), {
    status: "planned",
    flavour: "cpu",
    version: "2.11.0",
    folder: join(folder, "libtorch/2.11.0-cpu"),
  });
  t.match(
    torchformers(["setup", "--dry-run"], env).stdout,
    /would be set up in [\s\S]*Downloads, 544 MB in all/,
  );
});

t.test("Ctrl-C ends with 130 and leaves no lock", async (t) => {
  const folder = t.testdir({ bin: { python3: "" } });
  const script = '#!/bin/sh\ncase "$*" in *download*) echo started >&2; exec sleep 60;; esac; exit 0\n';
  const { chmodSync, existsSync, writeFileSync } = await import("node:fs");
  writeFileSync(join(folder, "bin/python3"), script);
  chmodSync(join(folder, "bin/python3"), 0o755);
  const env = {
    TORCHFORMERS_CACHE: join(folder, "cache"),
    TORCHFORMERS_LIBTORCH: "",
    VIRTUAL_ENV: "",
    TORCHFORMERS_LOG: "debug",
  };
  const child = spawn(process.execPath, [main, "setup"], {
    env: { ...process.env, ...env, PATH: `${join(folder, "bin")}:/usr/bin:/bin` },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let told = "";
  for await (const chunk of child.stderr) {
    told += chunk;
    if (/started/.test(told) && !child.killed) child.kill("SIGINT");
  }
  t.equal(child.exitCode ?? (await new Promise((done) => child.once("exit", done))), 130);
  t.match(told, /Interrupted\./);
  t.notOk(existsSync(join(folder, "cache/libtorch/2.11.0-cpu.lock")));
});

t.test("env and doctor work without libtorch", async (t) => {
  const env = torchformers(["env", "--json"], { ...nowhere, HF_TOKEN: "hf_secret" });
  t.equal(env.code, 0);
  t.notMatch(env.stdout, /hf_secret/);
  const facts = JSON.parse(env.stdout);
  t.match(facts, {
    node: process.versions.node,
    error: { code: "ERR_LIBTORCH_NOT_FOUND" },
    variables: { HF_TOKEN: "(set)" },
  });
  t.match(torchformers(["env"], nowhere), { code: 0, stdout: /libtorch +not found/ });

  t.match(torchformers(["doctor"], nowhere), {
    code: 1,
    stdout: /✗ libtorch: not found\n +tried environment: \/nowhere, does not exist\n +→ /,
  });
  const { findings } = JSON.parse(torchformers(["doctor", "--json"], nowhere).stdout);
  t.match(
    findings.find(({ name }: { name: string }) => name === "libtorch"),
    { state: "failed", remedy: "npx torchformers setup" },
  );
});

t.test("doctor runs an operator where libtorch is there", async (t) => {
  const { code, stdout } = torchformers(["doctor", "--json"]);
  const { findings, environment, opened } = JSON.parse(stdout);
  t.equal(code, 0, stdout);
  t.match(
    findings.find(({ name }: { name: string }) => name === "Operators"),
    { state: "ok" },
  );
  t.match(environment, { libtorch: { version: /^2\.11\.0/ }, devices: [{ type: "cpu" }] });
  t.match(opened.slice(0, 2), [
    { library: /libc10\.so$/, error: null },
    { library: /libtorch_cpu\.so$/, error: null },
  ]);
});
