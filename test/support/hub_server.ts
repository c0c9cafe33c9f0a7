// A hub to test with: the endpoints that huggingface_hub (Python), @huggingface/hub and this library use, over files in
// memory or on the disk, with faults on demand. A second server stands for the storage that large files are redirected to.
//
// As a program (`node hub_server.js <folder> [storage]`) it serves each folder in a folder as a repository (`timm--resnet18`
// as timm/resnet18, others under org/), and prints its address; large files are then left to the storage of that address.

import { createHash, randomBytes } from "node:crypto";
import { createReadStream, readdirSync, readFileSync, statSync } from "node:fs";
import http from "node:http";
import type { AddressInfo, Socket } from "node:net";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { brotliCompressSync, constants, deflateSync, gzipSync } from "node:zlib";

export interface StoredFile {
  readonly content: Buffer | { readonly file: string; readonly size: number };
  readonly oid: string;
  readonly sha256: string | undefined;
  readonly xetHash: string | undefined;
}

interface Repo {
  name: string;
  commits: Map<string, Map<string, StoredFile>>;
  refs: Map<string, string>;
  titles: string[];
  private: boolean;
  gated: boolean;
  disabled: boolean;
}

/** What goes wrong with one answer. */
export interface Fault {
  /** The connection is cut after so many bytes of the body; -1: before anything is answered. */
  drop?: number;
  status?: number;
  headers?: Record<string, string>;
  /** The announced length is wrong by so much. */
  length?: number;
  /** One byte of the body is another: at this place. */
  corrupt?: number;
  /** So many bytes at a time, so many milliseconds apart. */
  drip?: readonly [bytes: number, ms: number];
  redirect?: string;
  /** No answer at all. */
  hang?: boolean;
  /** Whole files even where a range was asked for. */
  noRanges?: boolean;
  /** Done, and then the connection is cut before the answer. */
  dropAfterwards?: boolean;
  /** Written to the connection as it is, in place of an answer. */
  raw?: (socket: Socket) => void;
  /** The body is packed like this, with the header that says so. */
  packed?: "gzip" | "br" | "deflate";
}

export interface Seen {
  readonly kind: string;
  readonly method: string;
  readonly path: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
  readonly bytes: number;
  /** Of the client: tells connections apart. */
  readonly port: number | undefined;
}

const LARGE = 1024 * 1024;
const sha = (kind: string, ...parts: (string | Buffer)[]) => {
  const hash = createHash(kind);
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
};
export const gitHash = (content: Buffer): string => sha("sha1", `blob ${content.length}\0`, content);
const sizeOf = ({ content }: StoredFile) => (Buffer.isBuffer(content) ? content.length : content.size);

export class HubServer {
  readonly repos = new Map<string, Repo>();
  readonly renamed = new Map<string, string>();
  readonly seen: Seen[] = [];
  readonly lfs = new Map<string, Buffer>();
  /** Called for each request; what it gives goes wrong. */
  fault: (seen: Seen) => Fault | undefined = () => undefined;
  /** What /oauth/<where> answers to the fields that came. */
  oauth: (where: string, fields: Readonly<Record<string, string>>) => { status?: number; value: unknown } =
    () => ({
      status: 404,
      value: { error: "none" },
    });
  /** Called after an answer of "revision", before anything else: for a repository that changes meanwhile. */
  afterRevision: (() => void) | undefined;
  tokens = new Map<string, { name: string; read?: string[] }>([["hf_testtoken", { name: "tester" }]]);
  chunkSize: number | undefined;
  useXet = false;
  /** What scans say of files, and of the whole. */
  readonly verdicts = new Map<string, object>();
  scans: object | undefined;
  pageSize = 1000;
  url = "";
  storageUrl = "";
  readonly #xorbs = new Map<string, Buffer>();
  readonly #xetFiles = new Map<string, Buffer>();
  readonly #parts = new Map<string, Map<number, Buffer>>();
  readonly #hub = http.createServer((request, response) => void this.#answer("hub", request, response));
  readonly #storage = http.createServer(
    (request, response) => void this.#answer("storage", request, response),
  );

  async start(): Promise<this> {
    for (const server of [this.#hub, this.#storage]) {
      server.keepAliveTimeout = 30_000;
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    }
    this.url = `http://127.0.0.1:${(this.#hub.address() as AddressInfo).port}`;
    this.storageUrl = `http://127.0.0.1:${(this.#storage.address() as AddressInfo).port}`;
    return this;
  }

  async stop(): Promise<void> {
    for (const server of [this.#hub, this.#storage]) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  /** How many requests of a kind were made. */
  count(kind: string): number {
    return this.seen.filter((one) => one.kind === kind).length;
  }

  create(name: string, options: Partial<Pick<Repo, "private" | "gated" | "disabled">> = {}): Repo {
    const repo: Repo = {
      name,
      commits: new Map(),
      refs: new Map(),
      titles: [],
      private: false,
      gated: false,
      disabled: false,
      ...options,
    };
    this.repos.set(name, repo);
    this.commit(name, { ".gitattributes": "*.safetensors filter=lfs diff=lfs merge=lfs -text\n" });
    return repo;
  }

  /** Adds files (null removes one) as a commit of a branch; gives its hash. */
  commit(
    name: string,
    files: Record<string, string | Buffer | StoredFile | null>,
    { branch = "main", title = "a commit" } = {},
  ): string {
    const repo = this.repos.get(name) as Repo;
    const before = repo.commits.get(repo.refs.get(branch) ?? repo.refs.get("main") ?? "") ?? new Map();
    const next = new Map<string, StoredFile>(before);
    for (const [file, content] of Object.entries(files)) {
      if (content === null) next.delete(file);
      else if (typeof content === "string" || Buffer.isBuffer(content))
        next.set(file, this.store(file, content));
      else next.set(file, content);
    }
    const commit = sha("sha1", randomBytes(20));
    repo.commits.set(commit, next);
    repo.refs.set(branch, commit);
    repo.titles.push(title);
    return commit;
  }

  store(name: string, given: string | Buffer): StoredFile {
    const content = Buffer.from(given as Buffer);
    const isLarge = /\.(safetensors|bin)$/.test(name) || content.length > LARGE;
    const sha256 = isLarge ? sha("sha256", content) : undefined;
    const xetHash = sha256 !== undefined && this.useXet ? sha("sha256", "xet", content) : undefined;
    if (sha256 !== undefined) this.lfs.set(sha256, content);
    if (xetHash !== undefined) this.#xetFiles.set(xetHash, content);
    const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${sha256}\nsize ${content.length}\n`;
    return { content, oid: isLarge ? gitHash(Buffer.from(pointer)) : gitHash(content), sha256, xetHash };
  }

  file(name: string, file: string, branch = "main"): Buffer | undefined {
    const repo = this.repos.get(name);
    const stored = repo?.commits.get(repo.refs.get(branch) ?? "")?.get(file)?.content;
    return Buffer.isBuffer(stored) ? stored : undefined;
  }

  // ---------------------------------------------------------------------------------------------------------------------

  async #answer(host: string, request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", host === "hub" ? this.url : this.storageUrl);
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk);
    } catch {
      return; // the client went away
    }
    const body = Buffer.concat(chunks);
    const seen: Seen = {
      kind: host === "storage" ? "storage" : kindOf(request.method ?? "", url.pathname),
      method: request.method ?? "",
      path: url.pathname + url.search,
      authorization: request.headers.authorization,
      range: request.headers.range,
      bytes: body.length,
      port: request.socket.remotePort,
    };
    this.seen.push(seen);
    const fault = this.fault(seen);
    if (fault?.hang) return;
    if (fault?.drop === -1) return void request.socket.destroy();
    if (fault?.raw !== undefined) {
      request.socket.on("error", () => {});
      return fault.raw(request.socket);
    }
    if (fault?.redirect !== undefined)
      return void response.writeHead(302, { location: fault.redirect }).end();
    if (fault?.status !== undefined) {
      return void response
        .writeHead(fault.status, { "content-type": "text/plain", ...fault.headers })
        .end("a fault");
    }
    try {
      await this.#route(host, seen, url, request, response, body, fault ?? {});
    } catch (error) {
      if (response.headersSent) return void response.destroy();
      if (error instanceof Refusal) {
        const { status, headers } = error;
        response.writeHead(status, { "content-type": "application/json", ...headers });
        response.end(JSON.stringify({ error: error.message }));
      } else response.writeHead(500, { "content-type": "text/plain" }).end(String(error));
    }
  }

  #user(authorization: string | undefined): { name: string } | undefined {
    if (authorization === undefined) return undefined;
    const user = this.tokens.get(authorization.replace(/^Bearer /, ""));
    if (user === undefined) throw new Refusal(401, "Invalid credentials in Authorization header");
    return user;
  }

  #repo(name: string, seen: Seen, isFile = false): Repo {
    const user = this.#user(seen.authorization);
    const repo = this.repos.get(name);
    if (repo === undefined || (repo.private && user === undefined)) {
      throw new Refusal(user === undefined ? 401 : 404, "Repository not found", {
        "x-error-code": "RepoNotFound",
      });
    }
    if (repo.disabled) {
      throw new Refusal(403, "Access to this resource is disabled.", {
        "x-error-message": "Access to this resource is disabled.",
      });
    }
    if (repo.gated && isFile && user === undefined) {
      throw new Refusal(401, "Access to this model is restricted.", { "x-error-code": "GatedRepo" });
    }
    return repo;
  }

  #tree(repo: Repo, revision: string): { commit: string; files: Map<string, StoredFile> } {
    const commit = repo.refs.get(revision) ?? revision;
    const files = repo.commits.get(commit);
    if (files === undefined) {
      throw new Refusal(404, "Invalid rev id", { "x-error-code": "RevisionNotFound" });
    }
    return { commit, files };
  }

  async #route(
    host: string,
    seen: Seen,
    url: URL,
    request: http.IncomingMessage,
    response: http.ServerResponse,
    body: Buffer,
    fault: Fault,
  ): Promise<unknown> {
    const parts = url.pathname.split("/").slice(1).map(decodeURIComponent);
    const json = (value: unknown, headers: http.OutgoingHttpHeaders = {}) => {
      if (fault.dropAfterwards) return void request.socket.destroy();
      response.writeHead(200, { "content-type": "application/json", ...headers });
      const text = JSON.stringify(value);
      if (fault.drop !== undefined) {
        response.write(text.slice(0, fault.drop), () => request.socket.destroy());
      } else response.end(text);
    };
    if (host === "storage") return this.#storageRoute(seen, url, response, body, fault, json);
    for (const [old, now] of this.renamed) {
      const to = url.pathname.replace(`/${old}/`, `/${now}/`);
      if (to !== url.pathname) {
        return void response.writeHead(307, { location: to + url.search }).end();
      }
    }
    if (url.pathname === "/api/whoami-v2") {
      const user = this.#user(seen.authorization);
      if (user === undefined) throw new Refusal(401, "Invalid username or password.");
      return json({
        type: "user",
        id: "1",
        ...user,
        fullname: "A Tester",
        orgs: [{ name: "org" }],
        auth: { type: "access_token", accessToken: { displayName: "test", role: "write" } },
      });
    }
    if (parts[0] === "oauth") {
      const text = body.toString();
      const fields = text.startsWith("{") ? JSON.parse(text) : Object.fromEntries(new URLSearchParams(text));
      const { status = 200, value } = this.oauth(parts[1] as string, fields);
      return void response
        .writeHead(status, { "content-type": "application/json" })
        .end(JSON.stringify(value));
    }
    if (url.pathname === "/api/repos/create") {
      if (this.#user(seen.authorization) === undefined)
        throw new Refusal(401, "Invalid username or password.");
      const { name, organization, private: isPrivate, visibility } = JSON.parse(body.toString());
      const full = `${organization ?? "tester"}/${name}`;
      if (this.repos.has(full)) throw new Refusal(409, "You already created this model repo");
      this.create(full, { private: isPrivate === true || visibility === "private" });
      return json({ url: `${this.url}/${full}`, id: full, name: full });
    }
    if (parts[0] === "api" && parts[1] === "models") {
      const name = `${parts[2]}/${parts[3]}`;
      const [what, revision = "main"] = parts.slice(4);
      const repo = this.#repo(name, seen);
      if (what === undefined || what === "revision") {
        const { commit, files } = this.#tree(repo, revision);
        json({
          _id: "1",
          id: name,
          modelId: name,
          sha: commit,
          private: repo.private,
          gated: repo.gated ? "auto" : false,
          disabled: repo.disabled,
          tags: [],
          downloads: 0,
          likes: 0,
          siblings: [...files.keys()].map((rfilename) => ({ rfilename })),
          ...(url.searchParams.has("securityStatus") && this.scans ? { securityRepoStatus: this.scans } : {}),
        });
        return this.afterRevision?.();
      }
      if (what === "tree") return this.#list(repo, revision, url, json);
      if (what === "paths-info") {
        const { files } = this.#tree(repo, revision);
        const text = body.toString();
        const paths = text.startsWith("{")
          ? (JSON.parse(text).paths as string[])
          : new URLSearchParams(text).getAll("paths");
        return json(
          paths.flatMap((one) => {
            const file = files.get(one);
            const securityFileStatus = this.verdicts.get(one);
            return file
              ? [{ ...entry(one, file), ...(securityFileStatus ? { securityFileStatus } : {}) }]
              : [];
          }),
        );
      }
      if (what === "preupload") {
        this.#assertWriter(seen);
        const { files } = JSON.parse(body.toString()) as { files: { path: string; size: number }[] };
        return json({
          files: files.map(({ path: file, size }) => ({
            path: file,
            uploadMode: /\.(safetensors|bin)$/.test(file) || size > LARGE ? "lfs" : "regular",
            shouldIgnore: false,
            oid: null,
          })),
        });
      }
      if (what === "commit") return this.#commitRoute(repo, revision, url, seen, body, json);
      if (what === "xet-read-token" || what === "xet-write-token") {
        const exp = Math.floor(Date.now() / 1000) + 3600;
        return json(
          { accessToken: "storagetoken", casUrl: this.storageUrl, exp },
          {
            "x-xet-access-token": "storagetoken",
            "x-xet-cas-url": this.storageUrl,
            "x-xet-token-expiration": String(exp),
          },
        );
      }
    }
    if (url.pathname.endsWith(".git/info/lfs/objects/batch")) {
      this.#assertWriter(seen);
      return this.#batch(JSON.parse(body.toString()), `${parts[0]}/${parts[1]?.replace(/\.git$/, "")}`, json);
    }
    if (parts[2] === "resolve") {
      const repo = this.#repo(`${parts[0]}/${parts[1]}`, seen, true);
      const { commit, files } = this.#tree(repo, parts[3] as string);
      const name = parts.slice(4).join("/");
      const file = files.get(name);
      response.setHeader("x-repo-commit", commit);
      if (file === undefined) {
        throw new Refusal(404, "Entry not found", { "x-error-code": "EntryNotFound" });
      }
      if (file.sha256 === undefined)
        return this.#send(file, request, response, fault, { etag: `"${file.oid}"` });
      response.setHeader("x-linked-etag", `"${file.sha256}"`);
      response.setHeader("x-linked-size", sizeOf(file));
      if (file.xetHash !== undefined) {
        response.setHeader("x-xet-hash", file.xetHash);
        const refresh = `${this.url}/api/models/${repo.name}/xet-read-token/${commit}`;
        const links = `<${refresh}>; rel="xet-auth", <${this.storageUrl}/v1/reconstructions/${file.xetHash}>; rel="xet-reconstruction-info"`;
        response.setHeader("link", links);
        if (request.headers.accept?.includes("vnd.xet-fileinfo")) {
          response.writeHead(200, {
            "content-type": "application/vnd.xet-fileinfo+json",
            etag: `"${file.sha256}"`,
          });
          return void response.end("{}");
        }
      }
      const location = `${this.storageUrl}/file/${encodeURIComponent(repo.name)}/${commit}/${name}?signature=abc`;
      return void response.writeHead(302, { location }).end();
    }
    throw new Refusal(404, "No such page");
  }

  #assertWriter(seen: Seen): void {
    if (this.#user(seen.authorization) === undefined) throw new Refusal(401, "Invalid username or password.");
  }

  #list(
    repo: Repo,
    revision: string,
    url: URL,
    json: (value: unknown, headers?: http.OutgoingHttpHeaders) => void,
  ): void {
    const { files } = this.#tree(repo, revision);
    const names = [...files.keys()].sort();
    const start = Number(url.searchParams.get("cursor") ?? 0);
    const end = start + this.pageSize;
    url.searchParams.set("cursor", String(end));
    json(
      names.slice(start, end).map((name) => entry(name, files.get(name) as StoredFile)),
      end < names.length ? { link: `<${url.href}>; rel="next"` } : {},
    );
  }

  #batch(
    { objects, transfers }: { objects: { oid: string; size: number }[]; transfers?: string[] },
    repo: string,
    json: (value: unknown) => void,
  ): void {
    const isXet = this.useXet && transfers?.includes("xet");
    const action = ({ oid, size }: { oid: string; size: number }) => {
      if (isXet) {
        return { href: `${this.url}/api/models/${repo}/xet-write-token/main`, header: {} };
      }
      if (this.chunkSize === undefined || size <= this.chunkSize)
        return { href: `${this.storageUrl}/upload/${oid}` };
      const count = Math.ceil(size / this.chunkSize);
      const numbered = Array.from({ length: count }, (_, i) => [
        String(i + 1).padStart(5, "0"),
        `${this.storageUrl}/part/${oid}/${i + 1}`,
      ]);
      return {
        href: `${this.storageUrl}/complete/${oid}`,
        header: { chunk_size: String(this.chunkSize), ...Object.fromEntries(numbered) },
      };
    };
    json({
      transfer: isXet ? "xet" : this.chunkSize === undefined ? "basic" : "multipart",
      objects: objects.map((object) => ({
        ...object,
        ...(this.lfs.has(object.oid) ? {} : { actions: { upload: action(object) } }),
      })),
    });
  }

  #commitRoute(
    repo: Repo,
    branch: string,
    url: URL,
    seen: Seen,
    body: Buffer,
    json: (value: unknown) => void,
  ): void {
    this.#assertWriter(seen);
    const lines = body
      .toString()
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line));
    const files: Record<string, Buffer | StoredFile | null> = {};
    let title = "";
    for (const { key, value } of lines) {
      if (key === "header") title = value.summary;
      if (key === "file") files[value.path] = Buffer.from(value.content, value.encoding);
      if (key === "deletedFile") files[value.path] = null;
      if (key === "lfsFile") {
        const content = this.lfs.get(value.oid);
        if (content === undefined) throw new Refusal(400, `LFS object ${value.oid} was never uploaded`);
        files[value.path] = this.store(`${value.path}.bin`, content);
      }
    }
    const isPull = url.searchParams.get("create_pr") === "1";
    const onto = isPull ? `refs/pr/${repo.refs.size}` : branch;
    const oid = this.commit(repo.name, files, { branch: onto, title });
    const pull = isPull ? { pullRequestUrl: `${this.url}/${repo.name}/discussions/1` } : {};
    json({
      success: true,
      commitOid: oid,
      commitUrl: `${this.url}/${repo.name}/commit/${oid}`,
      hookOutput: "",
      ...pull,
    });
  }

  #storageRoute(
    seen: Seen,
    url: URL,
    response: http.ServerResponse,
    body: Buffer,
    fault: Fault,
    json: (value: unknown) => void,
  ): unknown {
    const [what, id = "", ...rest] = url.pathname.split("/").slice(1).map(decodeURIComponent);
    if (what === "file") {
      const [commit = "", ...name] = rest;
      const file = this.repos.get(id)?.commits.get(commit)?.get(name.join("/"));
      if (file === undefined) throw new Refusal(404, "no such object");
      const range = seen.range === undefined ? {} : { range: seen.range };
      return this.#send(
        file,
        { headers: range, method: seen.method, socket: response.socket },
        response,
        fault,
        { etag: '"storage"' },
      );
    }
    if (what === "upload") {
      if (sha("sha256", body) !== id) throw new Refusal(400, "wrong checksum");
      this.lfs.set(id, body);
      return json({});
    }
    if (what === "part") {
      const numbered = this.#parts.get(id) ?? new Map<number, Buffer>();
      this.#parts.set(id, numbered.set(Number(rest[0]), body));
      response.setHeader("etag", `"${sha("sha1", body)}"`);
      return json({});
    }
    if (what === "complete") {
      const numbered = [...(this.#parts.get(id) ?? [])].sort(([a], [b]) => a - b).map(([, part]) => part);
      const whole = Buffer.concat(numbered);
      if (sha("sha256", whole) !== id) throw new Refusal(400, "wrong checksum");
      this.lfs.set(id, whole);
      return json({});
    }
    if (seen.authorization !== "Bearer storagetoken" && what !== "xorb")
      throw new Refusal(401, "no storage token");
    if (url.pathname.includes("/reconstructions/")) {
      const hash = url.pathname.split("/").at(-1) as string;
      const file = this.#xetFiles.get(hash);
      if (file === undefined) throw new Refusal(404, "no such file");
      const packed = packXorb(file);
      const start = Number(/bytes=(\d+)-/.exec(seen.range ?? "")?.[1] ?? 0);
      const first = Math.floor(start / XET_CHUNK);
      return json({
        offset_into_first_range: start - first * XET_CHUNK,
        terms: [
          {
            hash,
            unpacked_length: file.length - first * XET_CHUNK,
            range: { start: first, end: packed.offsets.length - 1 },
          },
        ],
        xorbs: {
          [hash]: [
            {
              url: `${this.storageUrl}/xorb/${hash}`,
              ranges: [
                {
                  chunks: { start: first, end: packed.offsets.length - 1 },
                  bytes: { start: packed.offsets[first], end: packed.bytes.length - 1 },
                },
              ],
            },
          ],
        },
      });
    }
    if (what === "xorb") {
      const packed = packXorb(this.#xetFiles.get(id) as Buffer).bytes;
      const stored = { content: packed, oid: "", sha256: "", xetHash: undefined };
      const range = seen.range === undefined ? {} : { range: seen.range };
      return this.#send(
        stored,
        { headers: range, method: "GET", socket: response.socket },
        response,
        fault,
        {},
      );
    }
    if (url.pathname.includes("/xorbs/")) {
      this.#xorbs.set(url.pathname.split("/").at(-1) as string, body);
      return json({ was_inserted: true });
    }
    if (url.pathname.endsWith("/shards")) {
      for (const file of filesOfShard(body, this.#xorbs)) this.lfs.set(sha("sha256", file), file);
      return json({ result: 1 });
    }
    if (url.pathname.includes("/chunks/")) throw new Refusal(404, "not known");
    throw new Refusal(404, `no ${url.pathname}`);
  }

  #send(
    file: StoredFile,
    request: Pick<http.IncomingMessage, "method"> & {
      headers: http.IncomingHttpHeaders;
      socket: import("node:net").Socket | null;
    },
    response: http.ServerResponse,
    fault: Fault,
    headers: http.OutgoingHttpHeaders,
  ): unknown {
    const size = sizeOf(file);
    const range = fault.noRanges ? null : /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const start = range ? Number(range[1]) : 0;
    const end = range?.[2] ? Math.min(size, Number(range[2]) + 1) : size;
    if (start >= size && size > 0)
      throw new Refusal(416, "no such range", { "content-range": `bytes */${size}` });
    if (fault.packed !== undefined && Buffer.isBuffer(file.content)) {
      const plain = file.content.subarray(start, end);
      const quick = { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } };
      const bytes =
        fault.packed === "br"
          ? brotliCompressSync(plain, quick)
          : { gzip: gzipSync, deflate: deflateSync }[fault.packed](plain, { level: 1 });
      response.writeHead(range ? 206 : 200, {
        "content-encoding": fault.packed,
        "content-length": bytes.length,
        ...(range ? { "content-range": `bytes ${start}-${end - 1}/${size}` } : {}),
      });
      return void response.end(bytes);
    }
    const length = Math.max(0, end - start + (fault.length ?? 0));
    response.writeHead(range ? 206 : 200, {
      "accept-ranges": "bytes",
      "content-type": "application/octet-stream",
      "content-length": length,
      ...(range ? { "content-range": `bytes ${start}-${end - 1}/${size + (fault.length ?? 0)}` } : {}),
      ...headers,
    });
    if (request.method === "HEAD") return void response.end();
    if (!Buffer.isBuffer(file.content)) {
      if (start === end) return void response.end();
      const stream = createReadStream(file.content.file, { start, end: end - 1, highWaterMark: 512 * 1024 });
      return void stream.pipe(response);
    }
    const body = Buffer.from(file.content.subarray(start, end));
    if (fault.corrupt !== undefined && body.length > 0) {
      const at = fault.corrupt % body.length;
      body[at] = (body[at] as number) ^ 1;
    }
    if (fault.drop !== undefined) {
      const cut = body.subarray(0, Math.min(fault.drop, Math.max(0, body.length - 1)));
      return void response.write(cut, () => setImmediate(() => request.socket?.destroy()));
    }
    if (fault.drip !== undefined) return drip(response, body, ...fault.drip);
    response.end(fault.length !== undefined && fault.length < 0 ? body.subarray(0, length) : body);
    // Announced more than there is: the client waits, until the connection goes.
    if ((fault.length ?? 0) > 0) setTimeout(() => request.socket?.destroy(), 50);
  }
}

function drip(response: http.ServerResponse, body: Buffer, bytes: number, ms: number): void {
  const next = (at: number) => {
    if (response.destroyed) return;
    if (at >= body.length) return void response.end();
    response.write(body.subarray(at, at + bytes));
    setTimeout(next, ms, at + bytes);
  };
  next(0);
}

class Refusal extends Error {
  readonly status: number;
  readonly headers: http.OutgoingHttpHeaders;

  constructor(status: number, message: string, headers: http.OutgoingHttpHeaders = {}) {
    super(message);
    this.status = status;
    this.headers = { "x-error-message": message, ...headers };
  }
}

function kindOf(method: string, pathname: string): string {
  if (pathname.startsWith("/api/models/")) return pathname.split("/")[5] ?? "revision";
  if (pathname.startsWith("/api/")) return pathname.split("/")[2] ?? "";
  if (pathname.endsWith("/batch")) return "batch";
  return method === "HEAD" ? "head" : "resolve";
}

const entry = (name: string, file: StoredFile) => ({
  type: "file",
  path: name,
  oid: file.oid,
  size: sizeOf(file),
  ...(file.sha256 === undefined ? {} : { lfs: { oid: file.sha256, size: sizeOf(file), pointerSize: 130 } }),
  ...(file.xetHash === undefined ? {} : { xetHash: file.xetHash }),
});

// Xet: chunks of one size, uncompressed -----------------------------------------------------------------------------------

const XET_CHUNK = 64 * 1024;

function packXorb(content: Buffer): { bytes: Buffer; offsets: number[] } {
  const parts: Buffer[] = [];
  const offsets = [0];
  for (let at = 0; at < content.length; at += XET_CHUNK) {
    const chunk = content.subarray(at, at + XET_CHUNK);
    const header = Buffer.alloc(8);
    header.writeUIntLE(chunk.length, 1, 3);
    header.writeUIntLE(chunk.length, 5, 3);
    parts.push(header, chunk);
    offsets.push((offsets.at(-1) as number) + 8 + chunk.length);
  }
  return { bytes: Buffer.concat(parts), offsets };
}

/** The hashes of a shard are four little-endian words. */
const hashAt = (bytes: Buffer, at: number): string =>
  [0, 8, 16, 24]
    .map((i) =>
      bytes
        .readBigUInt64LE(at + i)
        .toString(16)
        .padStart(16, "0"),
    )
    .join("");

function chunksOf(xorb: Buffer): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0; at + 8 <= xorb.length; ) {
    const [packed, scheme] = [xorb.readUIntLE(at + 1, 3), xorb[at + 4]];
    if (xorb[at] !== 0) break; // the footer
    if (scheme !== 0) throw new Refusal(400, "this server takes chunks without compression only");
    chunks.push(xorb.subarray(at + 8, at + 8 + packed));
    at += 8 + packed;
  }
  return chunks;
}

function* filesOfShard(shard: Buffer, xorbs: ReadonlyMap<string, Buffer>): Generator<Buffer> {
  for (let at = 48; shard[at] !== 0xff || shard[at + 31] !== 0xff; ) {
    const flags = shard.readUInt32LE(at + 32);
    const count = shard.readUInt32LE(at + 36);
    at += 48;
    const parts: Buffer[] = [];
    for (let i = 0; i < count; i++, at += 48) {
      const xorb = xorbs.get(hashAt(shard, at));
      if (xorb === undefined) throw new Refusal(400, "a xorb is missing");
      parts.push(...chunksOf(xorb).slice(shard.readUInt32LE(at + 40), shard.readUInt32LE(at + 44)));
    }
    if (flags & 0x80000000) at += 48 * count;
    if (flags & 0x40000000) at += 48;
    yield Buffer.concat(parts);
  }
}

// As a program -------------------------------------------------------------------------------------------------------------

async function serve(folder: string, storage: string | undefined): Promise<void> {
  const server = await new HubServer().start();
  if (storage !== undefined) server.storageUrl = storage;
  for (const name of readdirSync(folder)) {
    const repo = name.includes("--") ? name.replace("--", "/") : `org/${name}`;
    server.create(repo);
    const files: Record<string, Buffer | StoredFile> = {};
    for (const file of readdirSync(path.join(folder, name))) {
      const full = path.join(folder, name, file);
      const { size } = statSync(full);
      if (size <= LARGE && !file.endsWith(".safetensors")) files[file] = readFileSync(full);
      else {
        const hash = createHash("sha256");
        for await (const chunk of createReadStream(full)) hash.update(chunk as Buffer);
        const sha256 = hash.digest("hex");
        files[file] = { content: { file: full, size }, oid: sha("sha1", sha256), sha256, xetHash: undefined };
      }
    }
    server.commit(repo, files);
  }
  console.log(server.url);
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  await serve(process.argv[2] as string, process.argv[3]);
}
