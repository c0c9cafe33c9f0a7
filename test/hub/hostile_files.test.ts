// Servers that send other bytes than they should, or never stop: each run ends in the right bytes or in a typed error.

import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import type { Socket } from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import t from "tap";
import { retries } from "#lib/hub/http.js";
import { PartialFile } from "#lib/hub/partial_file.js";
import { hf_hub_download, snapshot_download } from "#lib/hub/snapshot.js";
import { requests } from "#lib/hub/transfer.js";
import { answer, assertNothingElsewhere, hubFor, on } from "../support/hub.js";
import type { Fault, HubServer } from "../support/hub_server.js";

const MB = 1024 * 1024;

t.test("files: the right bytes, or an error", async (t) => {
  const { server, home, cache } = await hubFor(t);
  process.env.HF_HUB_DOWNLOAD_TIMEOUT = "5";
  process.env.HF_HUB_ETAG_TIMEOUT = "2";
  retries.attempts = 3;
  server.create("org/m");
  const { longest } = requests;
  t.teardown(() => {
    requests.longest = longest;
  });
  requests.longest = 2 * MB;
  const weights = randomBytes(3 * MB + 5); // two ranges
  const config = '{"a": 1, "b": "gzip me gzip me gzip me"}';
  const _commit = server.commit("org/m", { "config.json": config, "model.safetensors": weights });
  const size = weights.length;
  const sockets: Socket[] = [];
  const run = async (fault: HubServer["fault"]) => {
    rmSync(cache, { recursive: true, force: true });
    server.fault = fault;
    const folder = await snapshot_download("org/m", { allow_patterns: ["config.json", "*.safetensors"] });
    if (!readFileSync(path.join(folder, "model.safetensors")).equals(weights)) t.fail("wrong bytes");
    if (readFileSync(path.join(folder, "config.json"), "utf8") !== config) t.fail("wrong text");
  };
  /** Only a request for a whole file, or from its beginning: the others are served. */
  const first = (fault: Fault) => {
    let left = 1;
    return (seen: { kind: string }) => (seen.kind === "storage" && left-- > 0 ? fault : undefined);
  };
  const all = { "content-type": "application/octet-stream" };
  const chunked = (socket: Socket, bytes: Buffer) => {
    for (let at = 0; at < bytes.length; at += MB) {
      const part = bytes.subarray(at, at + MB);
      socket.write(`${part.length.toString(16)}\r\n`);
      socket.write(part);
      socket.write("\r\n");
    }
  };
  const good: [string, HubServer["fault"]][] = [
    ["gzip, though not asked for", on("resolve", { packed: "gzip" })],
    ["brotli of everything", (seen) => (/resolve|storage/.test(seen.kind) ? { packed: "br" } : undefined)],
    ["deflate", on("resolve", { packed: "deflate" })],
    [
      "said to be identity",
      on("resolve", {
        raw: answer("200 OK", { "content-encoding": "identity", "content-length": config.length }, config),
      }),
    ],
    [
      "chunks without a length",
      first({
        raw: (socket) => {
          answer("200 OK", { ...all, "transfer-encoding": "chunked" })(socket);
          chunked(socket, weights);
          socket.write("0\r\n\r\n");
        },
      }),
    ],
    [
      "the end of the connection is the end",
      first({
        raw: (socket) => {
          socket.write("HTTP/1.0 200 OK\r\n\r\n");
          socket.end(weights);
        },
      }),
    ],
    [
      "HTTP/1.0 that breaks off",
      first({
        raw: (socket) => {
          socket.write("HTTP/1.0 200 OK\r\n\r\n");
          socket.end(weights.subarray(0, 2 * MB + 9));
        },
      }),
    ],
    [
      "no end at all",
      first({
        raw: (socket) => {
          sockets.push(socket);
          answer("200 OK", { ...all, "transfer-encoding": "chunked" })(socket);
          chunked(socket, weights);
          const more = () => {
            if (!socket.destroyed) socket.write(`400\r\n${"x".repeat(1024)}\r\n`, () => setImmediate(more));
          };
          more();
        },
      }),
    ],
    [
      "everything, and then silence",
      first({
        raw: (socket) => {
          sockets.push(socket);
          answer("200 OK", { ...all, "transfer-encoding": "chunked" })(socket);
          chunked(socket, weights);
        },
      }),
    ],
    ["the whole file for a range", (seen) => (seen.kind === "storage" ? { noRanges: true } : undefined)],
    [
      "one range of another place",
      first({
        raw: answer(
          "206 Partial Content",
          { "content-range": `bytes 5-9/${size}`, "content-length": 5 },
          "01234",
        ),
      }),
    ],
    [
      "one range of a file of another size",
      first({
        raw: answer(
          "206 Partial Content",
          { "content-range": `bytes 0-4/${size + 1}`, "content-length": 5 },
          "01234",
        ),
      }),
    ],
    [
      "one range that does not say which",
      first({ raw: answer("206 Partial Content", { "content-length": 5 }, "01234") }),
    ],
    [
      "one answer with several ranges",
      first({
        raw: answer(
          "206 Partial Content",
          { "content-type": "multipart/byteranges; boundary=x", "content-length": 4 },
          "--x\n",
        ),
      }),
    ],
    [
      "one 416",
      first({
        raw: answer("416 Range Not Satisfiable", { "content-range": `bytes */${size}`, "content-length": 0 }),
      }),
    ],
    ["one answer that is not HTTP", first({ raw: (socket) => socket.end("SSH-2.0-OpenSSH_9.2\r\n") })],
    [
      "one header without an end",
      first({
        raw: (socket) => {
          socket.write("HTTP/1.1 200 OK\r\nx: ");
        },
      }),
    ],
    [
      "one header that is too long",
      first({
        raw: (socket) => {
          socket.write(`HTTP/1.1 200 OK\r\nx: ${"y".repeat(100_000)}\r\n\r\n`);
        },
      }),
    ],
    ["one length that is no number", first({ raw: answer("200 OK", { "content-length": "abc" }, "x") })],
    [
      "one length and chunks",
      first({
        raw: answer("200 OK", { "content-length": 5, "transfer-encoding": "chunked" }, "1\r\nx\r\n0\r\n\r\n"),
      }),
    ],
    ["one 204", first({ raw: answer("204 No Content", {}) })],
    ["one 304", first({ raw: answer("304 Not Modified", { etag: '"x"' }) })],
    [
      "one packed answer that breaks off",
      first({
        raw: (socket) => {
          const packed = gzipSync(weights.subarray(0, MB));
          answer(
            "200 OK",
            { "content-encoding": "gzip", "content-length": packed.length },
            packed.subarray(0, packed.length - 9),
          )(socket);
          socket.end();
        },
      }),
    ],
    [
      "one packed answer of other bytes",
      first({ raw: answer("200 OK", { "content-encoding": "gzip", "content-length": 5 }, "plain") }),
    ],
    [
      "tags that are weak, and no commit",
      on("resolve", { raw: answer("200 OK", { etag: 'W/"x"', "content-length": config.length }, config) }),
    ],
    [
      "a redirect to a relative address",
      ({ kind, path: at }) =>
        kind === "resolve" && !at.includes("again")
          ? { raw: answer("302 Found", { location: `${at}?again=1`, "content-length": 0 }) }
          : undefined,
    ],
    [
      "a redirect with an endless body",
      ({ kind, path: at }) =>
        kind === "resolve" && !at.includes("again")
          ? {
              raw: (socket) => {
                sockets.push(socket);
                answer("307 Temporary Redirect", {
                  location: `${at}?again=1`,
                  "transfer-encoding": "chunked",
                })(socket);
                const more = () => {
                  if (!socket.destroyed)
                    socket.write(`400\r\n${"x".repeat(1024)}\r\n`, () => setImmediate(more));
                };
                more();
              },
            }
          : undefined,
    ],
  ];
  // The hub sends the small file itself: a fault of "resolve" that answers with its text is one of that file only.
  const small =
    (fault: HubServer["fault"]): HubServer["fault"] =>
    (seen) =>
      seen.kind === "resolve" && !seen.path.includes("config.json") ? undefined : fault(seen);
  for (const [name, fault] of good) {
    await t.resolves(run(small(fault)), name);
  }
  await sleep(2_200);
  t.ok(
    sockets.every((socket) => socket.destroyed),
    "no connection is held open by what nobody needs",
  );

  const bad: [string, Fault | HubServer["fault"], RegExp?][] = [
    [
      "packed in a way nobody knows",
      { raw: answer("200 OK", { "content-encoding": "zstd", "content-length": 3 }, "abc") },
      /packed as 'zstd'/,
    ],
    [
      "ranges of another place",
      {
        raw: answer(
          "206 Partial Content",
          { "content-range": `bytes 5-9/${size}`, "content-length": 5 },
          "01234",
        ),
      },
      /bytes from 5 came/,
    ],
    [
      "no range said",
      { raw: answer("206 Partial Content", { "content-length": 5 }, "01234") },
      /bytes from -1 came/,
    ],
    ["416", { raw: answer("416 Range Not Satisfiable", { "content-length": 0 }) }],
    [
      "another size",
      { raw: answer("200 OK", { "content-length": 5 }, "01234") },
      /5 bytes there and \d+ in the listing/,
    ],
    [
      "more than was listed",
      {
        raw: (socket) => {
          answer("200 OK", { "transfer-encoding": "chunked" })(socket);
          chunked(socket, randomBytes(size));
          socket.write("0\r\n\r\n");
        },
      },
      /wrong checksum/,
    ],
    ["no HTTP", { raw: (socket) => socket.end("nonsense") }],
    [
      "headers without an end",
      {
        raw: (socket) => {
          socket.write("HTTP/1.1 200 OK\r\n");
        },
      },
      /no answer within/,
    ],
    ["204", { raw: answer("204 No Content", {}) }],
    [
      "300 without an address",
      { raw: answer("300 Multiple Choices", { "content-length": 0 }) },
      /status 300/,
    ],
    ["status 999", { raw: answer("999 Hm", { "content-length": 0 }) }],
    [
      "packed nonsense",
      { raw: answer("200 OK", { "content-encoding": "gzip", "content-length": 5 }, "plain") },
    ],
  ];
  const sha = [...readdirSync(path.join(cache, "models--org--m/blobs"))].find(
    (name) => name.length === 64,
  ) as string;
  for (const [name, fault, message] of bad) {
    await t.rejects(
      run(on("storage", fault as Fault)),
      { code: "ERR_HUB", ...(message ? { message } : {}) },
      name,
    );
    t.notOk(existsSync(path.join(cache, "models--org--m/blobs", sha)), `${name}: no wrong byte`);
  }
  for (const [name, location, message] of [
    ["a circle", "?again=1", /without an end/],
    ["a file of this machine", "file:///etc/passwd", /not as safe/],
    ["another kind of address", "ftp://127.0.0.1/x", /not as safe/],
    ["no address", "http://[", /without an end/],
  ] as const) {
    await t.rejects(
      run(small(on("resolve", { raw: answer("302 Found", { location, "content-length": 0 }) }))),
      { code: "ERR_HUB", message },
      name,
    );
  }
  server.fault = on("resolve", {
    raw: answer("200 OK", { "x-repo-commit": "c".repeat(40), "content-length": config.length }, config),
  });
  await t.rejects(hf_hub_download("org/m", "config.json", { force_download: true }), {
    code: "ERR_HUB",
    message: /asked for by commit/,
  });
  assertNothingElsewhere(t, home);
});

t.test("a connection is kept after a whole file; a slow disk is not a silent server", async (t) => {
  const { server, cache } = await hubFor(t);
  server.create("org/m");
  const names = ["a.txt", "b.txt", "c.txt", "d.safetensors", "e.safetensors", "f.safetensors"];
  server.commit("org/m", Object.fromEntries(names.map((name) => [name, randomBytes(700_000)])));
  await snapshot_download("org/m", { max_workers: 1 });
  for (const kind of ["resolve", "storage"]) {
    const ports = server.seen.filter((seen) => seen.kind === kind).map(({ port }) => port);
    t.ok(ports.length >= 3 && new Set(ports).size === 1, `${kind}: ${ports.join(" ")}`);
  }
  rmSync(cache, { recursive: true });
  process.env.HF_HUB_DOWNLOAD_TIMEOUT = "0.2";
  const { write } = PartialFile.prototype;
  t.teardown(() => {
    PartialFile.prototype.write = write;
  });
  PartialFile.prototype.write = async function (position, bytes) {
    await sleep(500);
    return write.call(this, position, bytes);
  };
  server.seen.length = 0;
  await snapshot_download("org/m", { allow_patterns: "d.safetensors" });
  t.equal(server.count("storage"), 1, "asked for once");
});
