// Runs the `torchformers` command of dist/: with pipes, or on a pseudo-terminal.

import { spawn, spawnSync } from "node:child_process";
import { join } from "node:path";
import { root } from "./fixtures.js";

const main = join(root, "dist/cli/main.js");
/** One thread: a team of two waits long for each other on a machine that is busy with tests. */
const quiet = {
  OMP_NUM_THREADS: "1",
  NODE_OPTIONS: undefined,
  NODE_V8_COVERAGE: undefined,
  TORCHFORMERS_LOG: undefined,
};

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export async function torchformers(
  args: readonly string[],
  { input = "", env = {}, stopAfter }: { input?: string; env?: NodeJS.ProcessEnv; stopAfter?: RegExp } = {},
): Promise<Outcome> {
  const child = spawn(process.execPath, [main, ...args], { env: { ...process.env, ...quiet, ...env } });
  const [stdout, stderr]: string[][] = [[], []];
  child.stdout.setEncoding("utf8").on("data", (text) => {
    stdout?.push(text);
    if (!child.killed && stopAfter?.test(stdout?.join("") ?? "")) child.kill("SIGINT");
  });
  child.stderr.setEncoding("utf8").on("data", (text) => stderr?.push(text));
  child.stdin.on("error", () => {}); // a command that fails does not read
  child.stdin.end(input);
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, stdout: stdout?.join("") ?? "", stderr: stderr?.join("") ?? "" };
}

/** Python's pty module brings the terminal: waits for each text, then types what stands beside it. */
const DRIVER = `
import json, os, pty, select, sys, time
steps, argv = json.loads(sys.argv[1]), sys.argv[2:]
pid, fd = pty.fork()
if pid == 0:
    os.execvp(argv[0], argv)
seen, at, end = b"", 0, time.monotonic() + 25
def read():
    global seen
    if not select.select([fd], [], [], 0.1)[0]:
        return True
    try:
        data = os.read(fd, 65536)
    except OSError:
        return False
    seen += data
    return len(data) > 0
for expected, keys in steps:
    while expected.encode() not in seen[at:]:
        if not read() or time.monotonic() > end:
            sys.stderr.write("waited in vain for " + repr(expected) + " after " + repr(seen[at:][-300:]))
            os.kill(pid, 9)
            sys.exit(1)
    at = seen.index(expected.encode(), at) + len(expected.encode())
    time.sleep(0.3)  # nobody is faster
    os.write(fd, keys.encode())
while read() and time.monotonic() < end:
    pass
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(json.dumps({"code": code, "screen": seen.decode(errors="replace")}))
`;

/** Is there a Python with pty, and a system that gives terminals? */
export const canUseTerminal = spawnSync("python3", ["-c", "import pty; pty.openpty()"]).status === 0;

/** Types on a terminal: each step is a text to wait for and the keys to press then. */
export async function onTerminal(
  args: readonly string[],
  steps: readonly (readonly [expected: string, keys: string])[],
  env: NodeJS.ProcessEnv = {},
): Promise<{ readonly code: number; readonly screen: string }> {
  const command = ["-c", DRIVER, JSON.stringify(steps), process.execPath, main, ...args];
  const child = spawn("python3", command, {
    env: { ...process.env, ...quiet, TERM: "xterm", NO_COLOR: "1", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (data) => {
    stdout += data;
  });
  child.stderr.on("data", (data) => {
    stderr += data;
  });
  await new Promise((resolve) => child.once("close", resolve));
  if (stdout === "") throw new Error(stderr);
  return JSON.parse(stdout);
}
