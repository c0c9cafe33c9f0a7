// torchformers login: keeps a token where Python's `hf auth login` keeps it. The token is never printed.

import type { Command } from "commander";
import type { User } from "../hub/api.ts";
import { endpoint } from "../hub/environment.ts";
import { login, login_in_browser } from "../hub/login.ts";
import { printable } from "../hub/redact.ts";
import { bold, interruptible, UsageError } from "./support.ts";

const DETAILS = `
The token is asked for without showing it, or read from stdin; --browser gets one by way of a browser, on this machine or
another one, and it is renewed before it expires. It is kept in the file that HF_TOKEN_PATH names, else in the file token
below HF_HOME, readable by you only; Python uses the same.

Examples:
  $ npx torchformers login
  $ npx torchformers login --browser
  $ echo "$TOKEN" | npx torchformers login`;

export function define(command: Command): void {
  command
    .option("--browser", "log in with a browser instead of a token")
    .addHelpText("after", DETAILS)
    .action(run);
}

async function run({ browser = false }: { browser?: boolean }): Promise<void> {
  const { name } = browser ? await byBrowser() : await byToken();
  console.log(`Logged in as ${bold(printable(name), process.stdout)}.`);
  if (process.env["HF_TOKEN"]) console.error("HF_TOKEN is set; it is used instead of what was kept now.");
}

async function byToken(): Promise<User> {
  const token = process.stdin.isTTY ? await typed() : await piped();
  if (token !== "") return login(token);
  throw new UsageError("No token was given.", `Tokens are made at ${endpoint()}/settings/tokens.`);
}

const byBrowser = (): Promise<User> =>
  interruptible((signal) =>
    login_in_browser({
      signal,
      on_code: ({ url, user_code }) => {
        console.error(`Open this address in a browser: ${url}\nand enter the code: ${user_code}`);
      },
    }),
  );

async function piped(): Promise<string> {
  let text = "";
  for await (const chunk of process.stdin.setEncoding("utf8")) text += chunk;
  return text.trim();
}

/** Reads a line from the terminal without an echo. */
function typed(): Promise<string> {
  process.stderr.write(`Token (from ${endpoint()}/settings/tokens): `);
  const { stdin } = process;
  stdin.setRawMode(true);
  stdin.setEncoding("utf8");
  return new Promise((resolve, reject) => {
    let text = "";
    const end = (finish: () => void) => {
      stdin.setRawMode(false);
      stdin.off("data", onData);
      stdin.pause();
      process.stderr.write("\n");
      finish();
    };
    const onData = (keys: string) => {
      for (const key of keys) {
        if (key === "\r" || key === "\n") return end(() => resolve(text.trim()));
        if (key === "\u0003" || key === "\u0004")
          return end(() => reject(new UsageError("No token was given.")));
        text = key === "\u007f" || key === "\b" ? text.slice(0, -1) : text + key;
      }
    };
    stdin.on("data", onData);
  });
}
