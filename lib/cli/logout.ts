// torchformers logout: forgets the token.

import type { Command } from "commander";
import { logout } from "../hub/login.ts";

export function define(command: Command): void {
  command.action(async () => {
    console.log((await logout()) ? "Logged out." : "You were not logged in.");
    if (process.env["HF_TOKEN"]) console.error("HF_TOKEN is still set.");
  });
}
