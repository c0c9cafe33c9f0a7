// Tokens: where they come from, how they are renewed, and that they show nowhere.

import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import http from "node:http";
import net, { type AddressInfo } from "node:net";
import path from "node:path";
import t from "tap";
import { whoami } from "#lib/hub/api.js";
import { hubRequest, retries } from "#lib/hub/http.js";
import { login, login_in_browser, logout } from "#lib/hub/login.js";
import { hf_hub_download, snapshot_download } from "#lib/hub/snapshot.js";
import { get_token } from "#lib/hub/token.js";
import { upload_files } from "#lib/hub/upload.js";
import { torchformers } from "../support/command_line.js";
import { hubFor, runPython, TOKEN, withoutPython } from "../support/hub.js";
import type { Fault } from "../support/hub_server.js";

const soon = () => Math.floor(Date.now() / 1000) + 60;
const later = () => Math.floor(Date.now() / 1000) + 9 * 24 * 3600;

function keep(
  home: string,
  token: string,
  fields: Record<string, string | number>,
  name = "oauth-tester",
): void {
  const lines = Object.entries({ hf_token: token, ...fields }).map(([key, value]) => `${key} = ${value}\n`);
  mkdirSync(home, { recursive: true });
  writeFileSync(
    path.join(home, "stored_tokens"),
    `[${name}]\n${lines.join("")}\n[other]\nhf_token = hf_other\n\n`,
  );
  writeFileSync(path.join(home, "token"), token);
}

t.test("a token that came from a browser is renewed before it expires", async (t) => {
  const { server, home } = await hubFor(t);
  const asked: Record<string, string>[] = [];
  server.oauth = (where, fields) => {
    asked.push({ where, ...fields });
    return {
      value: { access_token: `hf_new${asked.length}`, refresh_token: "r2", expires_in: 10 * 24 * 3600 },
    };
  };
  keep(home, "hf_by_hand", {});
  t.equal(await get_token(), "hf_by_hand");
  keep(home, "hf_fresh", { refresh_token: "r1", expires_at: later() });
  t.equal(await get_token(), "hf_fresh");
  keep(home, "hf_broken", { refresh_token: "r1", expires_at: "tomorrow" });
  t.equal(await get_token(), "hf_broken");
  t.equal(asked.length, 0, "nothing is asked without need");

  keep(home, "hf_old", { refresh_token: "r1", expires_at: soon() });
  process.env.HF_TOKEN = "hf_given";
  t.equal(await get_token(), "hf_given", "what the environment says is sent as it is");
  delete process.env.HF_TOKEN;
  process.env.HF_HUB_OFFLINE = "1";
  t.equal(await get_token(), "hf_old");
  delete process.env.HF_HUB_OFFLINE;
  t.same(await Promise.all([1, 2, 3].map(() => get_token())), ["hf_new1", "hf_new1", "hf_new1"]);
  t.match(asked, [
    { where: "token", grant_type: "refresh_token", refresh_token: "r1", client_id: /^[0-9a-f-]{36}$/ },
  ]);
  t.equal(await get_token(), "hf_new1");
  t.equal(asked.length, 1, "once");
  t.equal(readFileSync(path.join(home, "token"), "utf8"), "hf_new1");
  const stored = readFileSync(path.join(home, "stored_tokens"), "utf8");
  t.match(stored, /\[oauth-tester\]\nhf_token = hf_new1\nrefresh_token = r2\nexpires_at = \d{10}\n/);
  t.match(stored, /\[other\]\nhf_token = hf_other/);
  t.equal(statSync(path.join(home, "stored_tokens")).mode & 0o777, 0o600);

  // Without success the old one is sent, and it is tried again later, or never.
  server.oauth = () => {
    asked.push({});
    return { status: 503, value: { error: "busy" } };
  };
  keep(home, "hf_old2", { refresh_token: "r1", expires_at: soon() });
  t.equal(await get_token(), "hf_old2");
  t.equal(await get_token(), "hf_old2");
  t.equal(asked.length, 2);
  server.oauth = () => ({
    status: 400,
    value: { error: "invalid_grant", error_description: "revoked r1secret" },
  });
  const warnings: string[] = [];
  const onWarning = ({ message }: Error) => warnings.push(message);
  process.on("warning", onWarning);
  keep(home, "hf_old3", { refresh_token: "r1secret", expires_at: soon() });
  t.equal(await get_token(), "hf_old3");
  await new Promise(setImmediate);
  process.off("warning", onWarning);
  t.match(warnings.join(), /log in again .*invalid_grant/);
  t.notMatch(warnings.join(), /r1secret/);
  t.equal(await logout(), true);
  t.equal(await get_token(), undefined);
  t.equal(await logout(), false);
});

t.test("Python renews what we kept, and we what Python kept", { skip: withoutPython }, async (t) => {
  const { server, home } = await hubFor(t);
  let count = 0;
  server.oauth = (_, { refresh_token }) => {
    if (refresh_token !== `way${count}`) return { status: 400, value: { error: "invalid_grant" } };
    count++;
    return { value: { access_token: `hf_turn${count}`, refresh_token: `way${count}`, expires_in: 3600 } };
  };
  keep(home, "hf_turn0", { refresh_token: "way0", expires_at: soon() });
  t.equal(await get_token(), "hf_turn1");
  const code = "from huggingface_hub import get_token\nprint(get_token())";
  t.equal(await runPython(code), "hf_turn2");
  t.equal(await runPython(code), "hf_turn3", "an hour is less than the margin of a day");
  t.equal(await get_token(), "hf_turn4");
  t.match(readFileSync(path.join(home, "stored_tokens"), "utf8"), /refresh_token = way4/);
});

t.test("logging in with a browser", async (t) => {
  const { server, home } = await hubFor(t);
  server.tokens.set("hf_browser", { name: "tester" });
  const device = {
    device_code: "dev1ce",
    user_code: "AB-12",
    verification_uri: "https://x/activate",
    interval: 0.01,
  };
  let answers: { status?: number; value: unknown }[] = [];
  server.oauth = (where, fields) => {
    if (where === "device") return { value: device };
    t.equal(fields.device_code, "dev1ce");
    return answers.shift() ?? { status: 400, value: { error: "authorization_pending" } };
  };
  const pending = { status: 400, value: { error: "authorization_pending" } };
  const granted = { access_token: "hf_browser", refresh_token: "r1", expires_in: 800_000 };
  answers = [pending, { status: 502, value: "<html>" }, pending, { value: granted }];
  const codes: unknown[] = [];
  const user = await login_in_browser({ on_code: (code) => codes.push(code) });
  t.equal(user.name, "tester");
  t.match(codes, [{ url: "https://x/activate", user_code: "AB-12" }]);
  t.equal(await get_token(), "hf_browser");
  t.match(readFileSync(path.join(home, "stored_tokens"), "utf8"), /refresh_token = r1\nexpires_at = \d+/);
  answers = [{ status: 400, value: { error: "access_denied" } }];
  await t.rejects(login_in_browser({ on_code: () => {} }), { code: "ERR_HUB", reason: "access_denied" });
  const reason = new Error("enough");
  await t.rejects(login_in_browser({ on_code: () => {}, signal: AbortSignal.abort(reason) }), reason);
  const shell = torchformers(["login", "--browser"]);
  answers = [pending, { value: granted }];
  t.match(await shell, {
    code: 0,
    stdout: "Logged in as tester.\n",
    stderr: /https:\/\/x\/activate\nand enter the code: AB-12/,
  });
  server.oauth = () => ({
    value: { verification_uri: "javascript:alert(1)", device_code: "d", user_code: "u" },
  });
  await t.rejects(login_in_browser({ on_code: () => {} }), {
    code: "ERR_HUB",
    message: /no login by browser/,
  });
});

t.test("a job in CI proves who it is", async (t) => {
  const { server } = await hubFor(t);
  server.tokens.set("hf_jwt_1", { name: "tester" });
  process.env.HF_OIDC_RESOURCE = "org/m";
  process.env.HF_TOKEN = "hf_not_this";
  await t.rejects(get_token(), { code: "ERR_HUB", message: /says who this job is/ });
  process.env.GITHUB_ACTIONS = "true";
  await t.rejects(get_token(), { code: "ERR_HUB", message: /GitHub does not say/ });
  const github = http.createServer((request, response) => {
    t.equal(request.headers.authorization, "Bearer github-secret");
    t.equal(new URL(request.url ?? "", "http://x").searchParams.get("audience"), server.url);
    response.end(JSON.stringify({ value: "identity" }));
  });
  await new Promise<void>((resolve) => github.listen(0, "127.0.0.1", resolve));
  t.teardown(() => github.close());
  process.env.ACTIONS_ID_TOKEN_REQUEST_URL = `http://127.0.0.1:${(github.address() as AddressInfo).port}/token?a=b`;
  process.env.ACTIONS_ID_TOKEN_REQUEST_TOKEN = "github-secret";
  let asked = 0;
  server.oauth = (_, { subject_token, resource, grant_type }) => {
    asked++;
    t.same([subject_token, resource], ["identity", "org/m"]);
    t.match(grant_type, /token-exchange$/);
    return { value: { access_token: "hf_jwt_1", expires_in: 3600 } };
  };
  t.equal((await whoami()).name, "tester");
  t.equal(await get_token(), "hf_jwt_1");
  t.equal(asked, 1, "kept until shortly before it expires");
  server.oauth = () => ({ status: 400, value: { error: "not trusted" } });
  process.env.HF_OIDC_ID_TOKEN = "other-identity";
  await t.rejects(get_token(), { code: "ERR_HUB", status: 400, message: /not trusted/ });
});

t.test("a SOCKS proxy", async (t) => {
  const { server } = await hubFor(t);
  server.create("org/m");
  server.commit("org/m", { "config.json": "{}" });
  const reached: string[] = [];
  const proxy = net.createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => {
      socket.write(Buffer.from([5, 0]));
      socket.once("data", (request) => {
        const port = request.readUInt16BE(request.length - 2);
        reached.push(`${request.subarray(4, 8).join(".")}:${port}`);
        const onward = net.connect(port, "127.0.0.1", () => {
          socket.write(Buffer.from([5, 0, 0, 1, 127, 0, 0, 1, 0, 0]));
          socket.pipe(onward).pipe(socket);
        });
        onward.on("error", () => socket.destroy());
      });
    });
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  t.teardown(() => proxy.close());
  const port = (proxy.address() as AddressInfo).port;
  process.env.ALL_PROXY = `socks5://127.0.0.1:${port}`;
  t.equal(readFileSync(await hf_hub_download("org/m", "config.json"), "utf8"), "{}");
  t.ok(reached.length > 0 && reached.every((address) => server.url.endsWith(address)), reached.join());
  process.env.ALL_PROXY = "telnet://127.0.0.1:1";
  await t.rejects(hf_hub_download("org/m", "config.json", { force_download: true }), {
    code: "ERR_INVALID_ARGUMENT",
    message: /socks5/,
  });
});

t.test(
  "over all faults, the token shows in no error, warning or file, and goes to no other host",
  async (t) => {
    const { server, home } = await hubFor(t);
    retries.attempts = 2;
    const secret = "S3cret+tok/en-without-prefix";
    server.tokens.set(secret, { name: "tester" });
    server.create("org/m", { private: true });
    server.commit("org/m", { "config.json": "{}", "model.safetensors": Buffer.alloc(2000, 7) });
    const elsewhere: http.IncomingHttpHeaders[] = [];
    const other = http.createServer((request, response) => {
      elsewhere.push(request.headers);
      response.writeHead(403, { "x-error-message": secret }).end(secret);
    });
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    t.teardown(() => other.close());
    const otherUrl = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
    const warnings: string[] = [];
    const onWarning = (warning: Error) => warnings.push(String(warning.stack));
    process.on("warning", onWarning);
    t.teardown(() => process.off("warning", onWarning));

    const encoded = encodeURIComponent(secret);
    const text = JSON.stringify({ error: `no ${secret}`, message: `Bearer ${secret}` });
    const faults: Fault[] = [
      ...[400, 401, 403, 404, 409, 416, 429, 500, 503].flatMap((status) => [
        { status, headers: { "x-error-message": `not with ${secret}` } },
        { status, headers: { "x-error-message": `not with ${secret}`, "x-error-code": "GatedRepo" } },
        { status, headers: { "content-type": "application/json", "x-error-code": "RepoNotFound" } },
      ]),
      { redirect: `${otherUrl}/${secret}?token=${encoded}` },
      { redirect: `http://user:${encoded}@127.0.0.1:1/${encoded}` },
      { redirect: `ftp://x/${secret}` },
      {
        raw: (socket) =>
          socket.end(`HTTP/1.1 400 ${secret}\r\ncontent-length: ${text.length}\r\n\r\n${text}`),
      },
      {
        raw: (socket) =>
          socket.end(
            `HTTP/1.1 200 OK\r\nx-repo-commit: ${secret}\r\ncontent-encoding: ${secret}\r\ncontent-length: 1\r\n\r\n1`,
          ),
      },
      { raw: (socket) => socket.end(`${secret}\r\n\r\n`) },
      { raw: (socket) => socket.end(`HTTP/1.1 200 OK\r\ncontent-length: ${text.length}\r\n\r\n${text}`) },
      { drop: -1 },
      { corrupt: 3 },
      { length: 4 },
    ];
    const file = path.join(home, "up.bin");
    writeFileSync(file, Buffer.alloc(100));
    const options = { token: secret };
    const errors: Error[] = [];
    for (const fault of faults) {
      for (const kind of [
        "revision",
        "tree",
        "resolve",
        "storage",
        "preupload",
        "batch",
        "commit",
        "whoami-v2",
      ]) {
        server.fault = (seen) => (seen.kind === kind ? fault : undefined);
        const work = [
          () => snapshot_download("org/m", { ...options, force_download: true }),
          () => hf_hub_download("org/m", "none.json", options),
          () => whoami(options),
          () => login(secret),
          () => upload_files("org/m", [{ path: "up.bin", file }], options),
        ];
        const chosen = /preupload|batch|commit/.test(kind)
          ? work.slice(4)
          : kind === "whoami-v2"
            ? work.slice(2, 4)
            : work.slice(0, 2);
        for (const one of chosen) await one().catch((error) => errors.push(error));
      }
    }
    t.ok(errors.length > faults.length * 4, `${errors.length} errors`);
    const shown = (error: unknown): string => {
      if (!(error instanceof Error)) return String(error);
      return [
        error.message,
        error.stack,
        JSON.stringify(error),
        JSON.stringify(Object.entries(error)),
        error.cause && shown(error.cause),
      ].join(" ");
    };
    const isLeak = (said: string) => said.includes(secret) || said.includes(encoded);
    t.same(errors.map(shown).filter(isLeak), []);
    t.same(warnings.filter(isLeak), []);
    t.same(
      errors
        .filter((error) => !/^ERR_/.test((error as { code?: string }).code ?? ""))
        .map((error) => error.stack),
      [],
      "every error is typed",
    );
    t.ok(
      elsewhere.length > 0 && elsewhere.every(({ authorization }) => authorization === undefined),
      "no other host",
    );
    // What a request was told to send along stays at its host as well.
    server.fault = () => ({ redirect: `${otherUrl}/x` });
    const headers = { authorization: "Bearer for-the-storage" };
    await hubRequest(`${server.storageUrl}/file/x`, { headers, attempts: 1 }).catch(() => {});
    t.equal(elsewhere.at(-1)?.authorization, undefined);
    await logout();
    for (const name of readdirSync(home, { recursive: true, encoding: "utf8" })) {
      const full = path.join(home, name);
      if (statSync(full).isFile()) t.notOk(isLeak(readFileSync(full, "latin1")), name);
    }
    // The command line, with all it can say.
    server.fault = ({ kind }) =>
      kind === "resolve" ? { status: 400, headers: { "x-error-message": secret } } : undefined;
    process.env.HF_TOKEN = secret;
    process.env.TORCHFORMERS_LOG = "debug";
    t.teardown(() => {
      delete process.env.TORCHFORMERS_LOG;
    });
    for (const command of [
      ["download", "org/m"],
      ["whoami"],
      ["download", "org/none"],
      ["cache", "ls"],
      ["env"],
    ]) {
      const { stdout, stderr } = await torchformers(command);
      t.notOk(isLeak(stdout + stderr), command.join(" "));
    }
    t.notOk(isLeak(TOKEN));
  },
);
