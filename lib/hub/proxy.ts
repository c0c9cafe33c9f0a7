// Connections to the hub: kept open between requests, by way of the proxy that the environment names.

import http from "node:http";
import https from "node:https";
import { InvalidArgumentError } from "../errors/index.ts";

const OPTIONS = { keepAlive: true, maxSockets: 64, scheduling: "lifo" } as const;
const direct = { "http:": new http.Agent(OPTIONS), "https:": new https.Agent(OPTIONS) };
const byProxy = new Map<string, http.Agent>();

const VARIABLES = ["http_proxy", "https_proxy", "all_proxy"];
const hasProxy = () =>
  VARIABLES.some((name) => Boolean(process.env[name] || process.env[name.toUpperCase()]));

/** The agent for an address: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` hold, in either case; HTTP and SOCKS. */
export async function agentFor(url: URL): Promise<http.Agent> {
  const agent = direct[url.protocol as "http:" | "https:"];
  if (!hasProxy()) return agent;
  const { getProxyForUrl } = await import("proxy-from-env");
  const proxy = getProxyForUrl(url.href);
  if (proxy === "") return agent;
  if (!URL.canParse(proxy) || !/^(https?|socks(4a?|5h?)?):$/.test(new URL(proxy).protocol)) {
    throw new InvalidArgumentError(
      "The proxy of the environment is not an address that begins with http://, https:// or socks5://.",
      { hint: "Look at HTTP_PROXY, HTTPS_PROXY and ALL_PROXY." },
    );
  }
  const key = `${url.protocol} ${proxy}`;
  let found = byProxy.get(key);
  if (found === undefined) {
    if (proxy.startsWith("socks")) {
      found = new (await import("socks-proxy-agent")).SocksProxyAgent(proxy, OPTIONS);
    } else if (url.protocol === "https:") {
      found = new (await import("https-proxy-agent")).HttpsProxyAgent(proxy, OPTIONS);
    } else found = new (await import("http-proxy-agent")).HttpProxyAgent(proxy, OPTIONS);
    byProxy.set(key, found);
  }
  return found;
}
