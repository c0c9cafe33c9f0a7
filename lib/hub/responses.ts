// What an answer of the hub means: which error, in which words, and the page to visit.

import type { IncomingHttpHeaders } from "node:http";
import {
  DisabledRepoError,
  EntryNotFoundError,
  GatedRepoError,
  HubError,
  RepositoryNotFoundError,
  RevisionNotFoundError,
} from "../errors/index.ts";
import { endpoint } from "./environment.ts";
import { quoted, redact } from "./redact.ts";

/** Worth another attempt: the server is busy, or something between it and us failed. */
export const isTransient = (status: number): boolean =>
  status === 408 || status === 425 || status === 429 || (status >= 500 && status !== 501 && status !== 507);

interface Refusal {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly url: string;
  readonly text: string;
  readonly repo?: string | undefined;
}

/** The server's own words, short and in one line. */
function words(headers: IncomingHttpHeaders, text: string): string {
  const header = headers["x-error-message"];
  if (typeof header === "string" && header !== "") return quoted(header, 500);
  try {
    const { error, message } = (JSON.parse(text) ?? {}) as { error?: unknown; message?: unknown };
    const said = error ?? message;
    if (typeof said === "string") return quoted(said, 500);
  } catch {
    // Not JSON: a page of a proxy, say.
  }
  return /^\s*</.test(text) ? "" : quoted(text.trim().split("\n")[0] ?? "", 200);
}

/** The typed error for an answer of 400 and above. */
export function hubErrorOf({ status, headers, url, text, repo }: Refusal): Error {
  const code = headers["x-error-code"];
  const said = words(headers, text);
  const where = redact(url);
  const page = repo === undefined ? endpoint() : `${endpoint()}/${repo}`;
  const name = repo === undefined ? where : `'${repo}'`;
  const tokens = `${endpoint()}/settings/tokens`;
  const facts = { status, page };
  const quote = said === "" ? "." : `: ${said.replace(/\.?$/, ".")}`;

  if (code === "RevisionNotFound") {
    return new RevisionNotFoundError(`${name} has no such revision (${where}).`, {
      ...facts,
      hint: `Its branches and tags: ${page}/tree/main`,
    });
  }
  if (code === "EntryNotFound") {
    return new EntryNotFoundError(`${name} has no such file (${where}).`, {
      hint: `Its files: ${page}/tree/main`,
    });
  }
  if (code === "GatedRepo") {
    return new GatedRepoError(`${name} may be read only by those who have accepted its conditions${quote}`, {
      ...facts,
      hint: `Visit ${page} to ask for access, then give a token of that account: \`npx torchformers login\`, HF_TOKEN or the option token (${tokens}).`,
    });
  }
  if (said.startsWith("Access to this resource is disabled")) {
    return new DisabledRepoError(`${name} is disabled: the hub has closed it.`, {
      ...facts,
      hint: `What is known about it: ${page}`,
    });
  }
  const isRefusedToken =
    status === 401 && /invalid (credentials|username or password)|invalid.*token/i.test(said);
  if (isRefusedToken) {
    return new HubError(`The hub does not accept the token (status 401${said === "" ? "" : `, ${said}`}).`, {
      status,
      page: tokens,
      hint: `It may have expired or been revoked. Make one at ${tokens}, then \`npx torchformers login\`; token: false reads what is public without one.`,
    });
  }
  if (code === "RepoNotFound" || (repo !== undefined && (status === 401 || status === 404))) {
    return new RepositoryNotFoundError(
      `There is no repository ${name} on ${new URL(endpoint()).host}, or it is private and the token does not open it.`,
      {
        ...facts,
        hint: `Look for the name at ${page}; for a private one log in (\`npx torchformers login\`).`,
      },
    );
  }
  if (status === 401 || status === 403) {
    return new HubError(`${where}: not allowed (status ${status})${quote}`, {
      ...facts,
      hint: `The token lacks a permission that this needs; its permissions: ${tokens}`,
    });
  }
  if (status === 429) {
    return new HubError(`The hub asks for fewer requests (status 429)${quote}`, {
      ...facts,
      hint: "Try again in some minutes. With a token the limits are higher.",
    });
  }
  return new HubError(`${where}: the hub answered with status ${status}${quote}`, {
    ...facts,
    hint: status >= 500 ? "The hub has a problem of its own: https://status.huggingface.co" : `See ${page}`,
  });
}
