// torchformers whoami: whose token is used.

import type { Command } from "commander";
import { whoami } from "../hub/api.ts";
import { endpoint } from "../hub/environment.ts";
import { printable } from "../hub/redact.ts";
import { printJson } from "./support.ts";

export function define(command: Command): void {
  command
    .option("--json", "print the result as JSON")
    .action(async ({ json = false }: { json?: boolean }) => {
      const { name, fullname, orgs, auth } = await whoami();
      const role = auth?.accessToken?.role;
      if (json)
        return printJson({ name, fullname, orgs: orgs.map((org) => org.name), role, endpoint: endpoint() });
      console.log(printable(name));
      if (orgs.length > 0) {
        console.log(`organizations: ${printable(orgs.map((org) => org.name).join(", "))}`);
      }
      if (role !== undefined) console.log(`the token may: ${printable(String(role))}`);
    });
}
