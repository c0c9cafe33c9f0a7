import { readdirSync, rmSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import t from "tap";
import { whoami } from "#lib/hub/api.js";
import { retries } from "#lib/hub/http.js";
import { nextPage } from "#lib/hub/listing.js";
import { snapshot_download } from "#lib/hub/snapshot.js";
import { answer, assertNothingElsewhere, hubFor, on, TOKEN } from "../support/hub.js";

const MB = 1024 * 1024;

const json = (value: unknown, headers: Record<string, string | number> = {}) => {
  const text = Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
  return answer(
    "200 OK",
    { "content-type": "application/json", "content-length": text.length, ...headers },
    text,
  );
};

const OID = "a".repeat(40);
const entry = (name: unknown, more: Record<string, unknown> = {}) => ({
  type: "file",
  path: name,
  oid: OID,
  size: 2,
  ...more,
});

t.test("commits that are none", async (t) => {
  const { server, home } = await hubFor(t);
  retries.attempts = 2;
  server.create("org/m");
  for (const sha of ["../../../x", 123, null, "abc", "A".repeat(40), `${OID}/..`, `${OID}\n`]) {
    server.fault = on("revision", { raw: json({ sha }) });
    await t.rejects(snapshot_download("org/m"), { code: "ERR_HUB", message: /names no commit/ }, String(sha));
  }
  for (const body of ["", "null", "[]", "<html>Log in to the network</html>", '{"sha": "']) {
    server.fault = on("revision", { raw: json(body) });
    await t.rejects(snapshot_download("org/m"), { code: "ERR_HUB" }, JSON.stringify(body));
  }
  assertNothingElsewhere(t, home);
});

t.test("listings that make no sense", async (t) => {
  const { server, home } = await hubFor(t);
  retries.attempts = 2;
  server.create("org/m");
  const hash = "b".repeat(64);
  const cases: [string, unknown, RegExp][] = [
    ["a page of a proxy", "<html></html>", /did not answer with JSON/],
    ["an object", { files: [] }, /is no list/],
    ["null", null, /is no list/],
    ["an entry that is null", [null], /without a name/],
    ["a number as a name", [entry(7)], /without a name/],
    ["a negative size", [entry("a", { size: -1 })], /size that is none/],
    ["a size as text", [entry("a", { size: "2" })], /size that is none/],
    ["a size beyond all", [entry("a", { size: 1e300 })], /size that is none/],
    ["half a byte", [entry("a", { lfs: { oid: hash, size: 1.5 } })], /size that is none/],
    ["no checksum", [entry("a", { oid: undefined })], /checksum that is none/],
    ["a checksum that climbs", [entry("a", { oid: `../../${"a".repeat(34)}` })], /checksum that is none/],
    [
      "the same of a large file",
      [entry("a", { lfs: { oid: `../${"b".repeat(61)}`, size: 2 } })],
      /checksum that/,
    ],
    ["a name twice", [entry("a"), entry("a")], /names "a" twice/],
  ];
  for (const [name, value, message] of cases) {
    server.fault = on("tree", { raw: json(value) });
    await t.rejects(snapshot_download("org/m"), { code: "ERR_HUB", message }, name);
  }
  const names = [
    "..",
    ".",
    "",
    "a//b",
    "./a",
    "a/./b",
    "a/",
    "/etc/x",
    "a/../../b",
    "C:\\x",
    "\\\\host\\x",
    "a\\..\\..\\b",
    "a\0b",
    "\ud800",
  ];
  for (const name of names) {
    server.fault = on("tree", { raw: json([entry("fine.txt"), entry(name)]) });
    await t.rejects(
      snapshot_download("org/m"),
      { code: "ERR_ENTRY_NOT_FOUND", message: /nothing was written/ },
      JSON.stringify(name),
    );
  }
  // Longer than anything a hub says: cut off, not gathered.
  server.fault = on("tree", {
    raw: (socket) => {
      answer("200 OK", { "content-type": "application/json" }, "[")(socket);
      const more = () => {
        while (!socket.destroyed && socket.write(Buffer.alloc(MB, " ")));
        if (!socket.destroyed) socket.once("drain", more);
      };
      more();
    },
  });
  await t.rejects(snapshot_download("org/m"), { code: "ERR_HUB", message: /more than \d+/ });
  assertNothingElsewhere(t, home);
});

t.test("pages of a listing", async (t) => {
  for (const [link, next] of [
    [undefined, undefined],
    ["", undefined],
    ['<https://x/1>; rel="prev"', undefined],
    ['<https://x/1>; rel="prev", <https://x/2>; rel="next"', "https://x/2"],
    ['<https://x/2>;rel="next"', "https://x/2"],
    ["</a?b=1>; rel=next", "/a?b=1"],
    ['<?c=1>; title="x"; rel="last next"', "?c=1"],
    ['<https://x/3>; rel="nextish"', undefined],
  ] as const)
    t.equal(nextPage(link), next, String(link));

  const { server, cache } = await hubFor(t);
  retries.attempts = 2;
  server.create("org/m");
  const files = Object.fromEntries(Array.from({ length: 7 }, (_, i) => [`f${i}.txt`, `file ${i}`]));
  const commit = server.commit("org/m", files);
  const tree = `/api/models/org/m/tree/${commit}`;
  const other = http.createServer((request, response) => {
    authorizations.push(request.headers.authorization);
    response.end("[]");
  });
  const authorizations: (string | undefined)[] = [];
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  t.teardown(() => other.close());
  const elsewhere = `http://127.0.0.1:${(other.address() as AddressInfo).port}/more`;
  const listing = async (link: (page: number) => string | undefined, value: (page: number) => unknown) => {
    rmSync(cache, { recursive: true, force: true });
    server.fault = ({ kind, path: at }) => {
      if (kind !== "tree") return undefined;
      const page = Number(/page=(\d+)/.exec(at)?.[1] ?? 0);
      const next = link(page);
      return { raw: json(value(page), next === undefined ? {} : { link: next }) };
    };
    return readdirSync(await snapshot_download("org/m", { token: TOKEN, allow_patterns: "f*.txt" })).length;
  };
  const stored = server.repos.get("org/m")?.commits.get(commit);
  const one = (page: number) => {
    const [name, file] = [...(stored ?? [])].filter(([name]) => name.startsWith("f"))[page] ?? [];
    return file === undefined ? [] : [entry(name, { oid: file.oid, size: (file.content as Buffer).length })];
  };
  const upTo = (last: number, write: (page: number) => string) => (page: number) =>
    page < last ? write(page + 1) : undefined;
  t.equal(
    await listing(
      upTo(6, (page) => `<${tree}?page=${page}>; rel="next"`),
      one,
    ),
    7,
    "relative",
  );
  t.equal(
    await listing(
      upTo(6, (page) => `<?page=${page}>;rel=next`),
      one,
    ),
    7,
    "relative, without quotes",
  );
  t.equal(
    await listing(
      upTo(1, () => `<${elsewhere}>; rel="next"`),
      one,
    ),
    1,
    "another host",
  );
  t.same(authorizations, [undefined], "gets no token");
  const senseless = (message: RegExp) => ({ code: "ERR_HUB", message });
  await t.rejects(
    listing(
      () => `<${server.url}${tree}?page=1>; rel="next"`,
      () => [],
    ),
    senseless(/a page before/),
  );
  await t.rejects(
    listing(
      (page) => `<?page=${page + 1}>; rel="next"`,
      () => [],
    ),
    senseless(/has no end/),
  );
  await t.rejects(
    listing(
      (page) => `<?page=${page + 1}>; rel="next"`,
      () => one(0),
    ),
    senseless(/twice/),
  );
  await t.rejects(
    listing(() => '<http://[>; rel="next"', one),
    senseless(/address that is none/),
  );
  await t.rejects(
    listing(() => '<file:///etc/passwd>; rel="next"', one),
    senseless(/address that is none/),
  );
});

t.test("what a server says is shown without what steers a terminal", async (t) => {
  const { server } = await hubFor(t);
  for (const orgs of [7, "x", null, [null, {}, { name: "org" }, { name: 3 }]]) {
    server.fault = on("whoami-v2", { raw: json({ name: "me", type: 9, orgs }) });
    const user = await whoami({ token: TOKEN });
    t.same([user.type, user.orgs.map(({ name }) => name)], ["user", Array.isArray(orgs) ? ["org"] : []]);
  }
  for (const name of [undefined, 7, null]) {
    server.fault = on("whoami-v2", { raw: json({ name }) });
    await t.rejects(whoami({ token: TOKEN }), { code: "ERR_HUB", message: /does not say who/ });
  }
  server.create("org/m");
  const said = "\u001b[2J\u001b]0;owned\u0007 come\u202e here";
  server.fault = on("revision", {
    raw: answer(
      "400 Bad Request",
      {
        "content-type": "application/json",
        "content-length": Buffer.byteLength(JSON.stringify({ error: said })),
      },
      JSON.stringify({ error: said }),
    ),
  });
  const error = (await snapshot_download("org/m").catch((error) => error)) as Error;
  t.match(error, { code: "ERR_HUB", message: /owned +come +here/ });
  t.notMatch(error.message.split("\n")[0], /[\p{Cc}\p{Cf}]/u);
});
