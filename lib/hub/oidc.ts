// A token for a job in CI that has none of its own: the job proves to the hub which repository it runs for ("trusted
// publishers"). Asked for by `HF_OIDC_RESOURCE`, and then a failure is an error, as in Python.

import { HubError } from "../errors/index.ts";
import { endpoint } from "./environment.ts";
import { hubJson } from "./http.ts";
import { hide } from "./redact.ts";

/** Seconds before its end at which a token is asked for anew. */
const MARGIN = 300;
const DOCS = "https://huggingface.co/docs/hub/trusted-publishers";

let known: { readonly key: string; readonly token: string; readonly until: number } | undefined;

/** The token for a repository or user, from this job's identity. */
export async function oidcToken(resource: string): Promise<string> {
  const { HF_OIDC_ID_TOKEN, GITHUB_ACTIONS } = process.env;
  const given = HF_OIDC_ID_TOKEN || undefined;
  const key = `${endpoint()} ${resource} ${given ?? ""}`;
  if (known?.key === key && performance.now() < known.until) return known.token;
  if (given === undefined && GITHUB_ACTIONS !== "true") {
    throw new HubError("HF_OIDC_RESOURCE is set, and nothing here says who this job is.", {
      hint: `Set HF_OIDC_ID_TOKEN to the token that the CI made for this job, or unset HF_OIDC_RESOURCE: ${DOCS}`,
    });
  }
  const subject = hide(given ?? (await githubToken()));
  const { value } = await hubJson(`${endpoint()}/oauth/token`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
      subject_token_type: "urn:ietf:params:oauth:token-type:id_token",
      subject_token: subject,
      resource,
    }),
  });
  const { access_token: token, expires_in } = (value ?? {}) as {
    access_token?: unknown;
    expires_in?: unknown;
  };
  if (typeof token !== "string" || token === "") {
    throw new HubError("The hub gave no token for this job.", { hint: `How it is set up: ${DOCS}` });
  }
  // A token of the CI that was handed over cannot be made anew, so there is nothing to gain by being early.
  const lasts = Math.max(0, (Number(expires_in) || 3600) - (given === undefined ? MARGIN : 0));
  known = { key, token: hide(token), until: performance.now() + lasts * 1000 };
  return token;
}

async function githubToken(): Promise<string> {
  const { ACTIONS_ID_TOKEN_REQUEST_URL: url, ACTIONS_ID_TOKEN_REQUEST_TOKEN: token } = process.env;
  if (!url || !token || !URL.canParse(url)) {
    throw new HubError("GitHub does not say who this job is.", {
      hint: `The job needs \`permissions: id-token: write\`: ${DOCS}`,
    });
  }
  const address = new URL(url);
  address.searchParams.set("audience", endpoint());
  const { value } = await hubJson(address.href, { headers: { authorization: `Bearer ${hide(token)}` } });
  const said = (value as { value?: unknown } | null)?.value;
  if (typeof said !== "string" || said === "") throw new HubError("GitHub's answer holds no token.");
  return said;
}
