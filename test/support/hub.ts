// What the tests of the hub share: a server, an environment of their own, Python's huggingface_hub.

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, realpathSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { retries } from "#lib/hub/http.js";
import { type Fault, HubServer } from "./hub_server.js";

export const TOKEN = "hf_testtoken";

const NAMES = [
  "HF_ENDPOINT",
  "HF_HOME",
  "HF_HUB_CACHE",
  "HUGGINGFACE_HUB_CACHE",
  "HF_TOKEN",
  "HUGGING_FACE_HUB_TOKEN",
  "HF_TOKEN_PATH",
  "HF_HUB_OFFLINE",
  "HF_OIDC_RESOURCE",
  "HF_OIDC_ID_TOKEN",
  "GITHUB_ACTIONS",
  "ACTIONS_ID_TOKEN_REQUEST_URL",
  "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
  "TRANSFORMERS_OFFLINE",
  "HF_HUB_DISABLE_XET",
  "HF_HUB_DOWNLOAD_TIMEOUT",
  "HF_HUB_ETAG_TIMEOUT",
  "HTTP_PROXY",
  "http_proxy",
  "NO_PROXY",
  "no_proxy",
  "ALL_PROXY",
  "all_proxy",
];

interface Test {
  teardown(work: () => unknown): void;
}

/** A server, and variables that point to it; both end with the test. Waiting before another attempt is short. */
export async function hubFor(t: Test): Promise<{ server: HubServer; home: string; cache: string }> {
  const server = await new HubServer().start();
  const before = Object.fromEntries(NAMES.map((name) => [name, process.env[name]]));
  const home = realpathSync(mkdtempSync(path.join(tmpdir(), "hub-test-")));
  for (const name of NAMES) delete process.env[name];
  process.env.HF_ENDPOINT = server.url;
  process.env.HF_HOME = home;
  retries.delay = 5;
  t.teardown(async () => {
    for (const [name, value] of Object.entries(before)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
    spawnSync("rm", ["-rf", home]);
    await server.stop();
  });
  return { server, home, cache: path.join(home, "hub") };
}

/** An interpreter that has huggingface_hub, or why there is none. */
function findPython(): string | undefined {
  const code = "import huggingface_hub, filelock; assert int(huggingface_hub.__version__.split('.')[0]) >= 1";
  const candidates = [process.env.TORCHFORMERS_TEST_PYTHON, process.env.TORCHFORMERS_BENCH_PYTHON, "python3"];
  return candidates.find(
    (name) => name !== undefined && spawnSync(name, ["-c", code], { stdio: "ignore" }).status === 0,
  );
}

export const python = findPython();
export const withoutPython: string | false =
  python === undefined && "no Python with huggingface_hub (TORCHFORMERS_TEST_PYTHON names one)";

/** Runs Python beside our event loop, which serves it; resolves to what it printed. */
export async function runPython(code: string, env: NodeJS.ProcessEnv = {}): Promise<string> {
  const child = spawn(python as string, ["-c", code], {
    env: { ...process.env, HF_HUB_DISABLE_PROGRESS_BARS: "1", HF_HUB_DISABLE_TELEMETRY: "1", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (data) => {
    stdout += data;
  });
  child.stderr.on("data", (data) => {
    stderr += data;
  });
  const code_ = await new Promise((resolve) => child.once("close", resolve));
  if (code_ !== 0) throw new Error(`Python ended with ${code_}: ${stderr}`);
  return stdout.trim();
}

/** An answer, as a server would write it: a whole one if it says how long it is, or has no body. */
export const answer =
  (status: string, headers: Record<string, string | number>, body: string | Buffer = "") =>
  (socket: Socket): void => {
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    // The test's server knows nothing of this answer, so its connection cannot be used again.
    socket.write(`HTTP/1.1 ${status}\r\nconnection: close\r\n${lines.join("")}\r\n`);
    if (body.length > 0) socket.write(body);
    if ("content-length" in headers || /^[23]04/.test(status)) socket.end();
  };

/** A fault of every request of a kind. */
export const on = (kind: string, fault: Fault) => (seen: { kind: string }) =>
  seen.kind === kind ? fault : undefined;

/** No file but the cache's own, and none with a name that is a stranger there. */
export function assertNothingElsewhere(
  t: { same(a: unknown, b: unknown, message: string): void },
  home: string,
): void {
  const names = readdirSync(home, { recursive: true, encoding: "utf8" });
  t.same(
    names.filter((name) => !/^hub(\/|$)/.test(name)),
    [],
    "nothing is written beside the cache",
  );
}
