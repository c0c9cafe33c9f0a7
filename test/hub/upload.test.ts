import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import {
  AutoConfig,
  AutoModelForCausalLM,
  AutoTokenizer,
  GenerationConfig,
  hub,
  LlamaConfig,
  LlamaForCausalLM,
  torch,
} from "torchformers";
import { retries } from "#lib/hub/http.js";
import { modelCard } from "#lib/hub/model_card.js";
import type { ProgressEvent } from "#lib/hub/options.js";
import { torchformers } from "../support/command_line.js";
import { fixture } from "../support/fixtures.js";
import { hubFor, runPython, TOKEN, withoutPython } from "../support/hub.js";

const MB = 1024 * 1024;

const tiny = () => {
  torch.manual_seed(0);
  return new LlamaForCausalLM(
    new LlamaConfig({
      vocab_size: 50,
      hidden_size: 16,
      intermediate_size: 32,
      num_hidden_layers: 1,
      num_attention_heads: 2,
    }),
  );
};

t.test("what is refused", async (t) => {
  const { server, home } = await hubFor(t);
  const model = tiny();
  await t.rejects(model.push_to_hub("tester/m"), { code: "ERR_INVALID_ARGUMENT", message: /there is none/ });
  process.env.HF_TOKEN = "hf_wrong";
  await t.rejects(model.push_to_hub("tester/m"), { code: "ERR_HUB", status: 401 });
  process.env.HF_TOKEN = TOKEN;
  await t.rejects(model.push_to_hub("tester/m", { commit_mesage: "x" } as object), {
    code: "ERR_INVALID_ARGUMENT",
    message: /save_pretrained has no option/,
  });
  await t.rejects(model.config.push_to_hub("tester/m", { privat: true } as object), {
    code: "ERR_INVALID_ARGUMENT",
    suggestion: "private",
  });
  await t.rejects(model.push_to_hub("a/b/c"), { code: "ERR_INVALID_ARGUMENT" });
  await t.rejects(hub.upload_folder("tester/none", home), {
    code: "ERR_INVALID_ARGUMENT",
    message: /no file/,
  });
  writeFileSync(path.join(home, "a.txt"), "a");
  await t.rejects(hub.upload_folder("tester/none", home), { code: "ERR_REPOSITORY_NOT_FOUND" });
  await t.rejects(hub.upload_folder("tester/none", path.join(home, "nowhere")), {
    code: "ERR_INVALID_ARGUMENT",
  });
  await hub.create_repo("m");
  await t.rejects(hub.create_repo("m"), { code: "ERR_HUB", status: 409 });
  t.match(await hub.create_repo("m", { exist_ok: true }), {
    repo: "tester/m",
    url: `${server.url}/tester/m`,
  });
  process.env.HF_HUB_OFFLINE = "1";
  await t.rejects(model.push_to_hub("tester/m"), { code: "ERR_HUB", message: /switched off/ });
});

t.test("a model card's front matter", async (t) => {
  const card = modelCard("user/my-model", {
    summary: "A thing.",
    typescript: ['load("REPO")'],
    python: ['load("REPO")'],
    pipeline_tag: "text-generation",
    base_model: "org/base",
    tags: ["no", "a: b"],
  });
  const { parse } = await import("yaml");
  t.same(parse(card.split("---")[1] as string), {
    library_name: "transformers",
    pipeline_tag: "text-generation",
    base_model: "org/base",
    tags: ["torchformers", "no", "a: b"],
  });
  t.match(card, 'load("user/my-model")');
  t.notMatch(
    modelCard("a/b", { summary: "", typescript: [], python: [], base_model: "./folder" }),
    "base_model",
  );
});

t.test("a model, its tokenizer and its settings, there and back", async (t) => {
  const { server, home } = await hubFor(t);
  process.env.HF_TOKEN = TOKEN;
  const model = tiny();
  const events: ProgressEvent[] = [];
  const made = await model.push_to_hub("m", {
    private: true,
    commit_message: "First",
    progress_callback: (event) => events.push(event),
  });
  t.match(made, { repo: "tester/m", pr_url: undefined });
  t.equal(server.repos.get("tester/m")?.private, true);
  t.equal(server.repos.get("tester/m")?.titles.at(-1), "First");
  t.ok(events.every((event) => event.stage === "upload" && event.total_bytes === events[0]?.total_bytes));
  t.equal(events.at(-1)?.total_loaded, events[0]?.total_bytes);
  const card = server.file("tester/m", "README.md")?.toString() ?? "";
  t.match(card, /pipeline_tag: text-generation/);
  t.match(card, 'AutoModelForCausalLM.from_pretrained("tester/m")');

  const back = await AutoModelForCausalLM.from_pretrained("tester/m");
  t.ok(
    torch.equal(
      back.state_dict()["model.norm.weight"] as never,
      model.state_dict()["model.norm.weight"] as never,
    ),
  );
  t.equal(back.config.name_or_path, "tester/m");
  t.equal((await AutoConfig.from_pretrained(`tester/m@${made.oid}`)).model_type, "llama");

  const tokenizer = await AutoTokenizer.from_pretrained(fixture("demo-llama"));
  await tokenizer.push_to_hub("tester/m");
  await model.generation_config.push_to_hub("tester/m");
  t.equal((await AutoTokenizer.from_pretrained("tester/m")).length, tokenizer.length);
  t.ok(await GenerationConfig.from_pretrained("tester/m"));
  t.equal(server.file("tester/m", "README.md")?.toString(), card, "a card that is there is left alone");

  const folder = path.join(home, "saved-model");
  mkdirSync(folder);
  writeFileSync(path.join(folder, "notes.txt"), "mine");
  await model.save_pretrained(folder, { push_to_hub: true, commit_message: "By saving" });
  t.ok(server.file("tester/saved-model", "model.safetensors"));
  t.equal(server.file("tester/saved-model", "notes.txt"), undefined, "only what was written is sent");
  await model.config.save_pretrained(folder, { push_to_hub: true, repo_id: "tester/config" });
  await tokenizer.save_pretrained(folder, { push_to_hub: true, repo_id: "tester/tok" });
  t.ok(server.file("tester/config", "config.json") && server.file("tester/tok", "tokenizer.json"));
  const pull = await model.config.push_to_hub("tester/m", { create_pr: true });
  t.match(pull.pr_url, /discussions\/1$/);
  await model.save_pretrained(path.join(home, "plain"), { push_to_hub: false });
});

t.test("what arrived is not sent again", async (t) => {
  const { server, home } = await hubFor(t);
  process.env.HF_TOKEN = TOKEN;
  const folder = mkdtempSync(path.join(home, "up-"));
  const files = {
    "a.safetensors": randomBytes(3 * MB),
    "b.safetensors": randomBytes(2 * MB),
    "c.txt": Buffer.from("c"),
  };
  for (const [name, content] of Object.entries(files)) writeFileSync(path.join(folder, name), content);
  mkdirSync(path.join(folder, ".git"));
  writeFileSync(path.join(folder, ".git/config"), "secret");
  for (const parts of [undefined, MB]) {
    server.chunkSize = parts;
    const name = `tester/up${parts ?? ""}`;
    await hub.create_repo(name);
    server.lfs.clear();
    server.seen.length = 0;
    // One of the requests fails once, in each way.
    const failing = new Set(["batch", "preupload", "storage"]);
    server.fault = ({ kind }) =>
      failing.delete(kind) ? (kind === "storage" ? { drop: -1 } : { status: 500 }) : undefined;
    await hub.upload_folder(name, folder, { path_in_repo: "sub" });
    for (const [file, content] of Object.entries(files))
      t.ok(server.file(name, `sub/${file}`)?.equals(content), file);
    t.equal(server.file(name, "sub/.git/config"), undefined);
    const sent = server.seen
      .filter(({ kind, method }) => kind === "storage" && method === "PUT")
      .map(({ bytes }) => bytes);
    const twice = Math.max(...sent);
    t.ok(
      sent.reduce((sum, bytes) => sum + bytes, 0) <= 5 * MB + twice,
      "at most the failed request is repeated",
    );
    server.fault = () => undefined;
    server.seen.length = 0;
    await hub.upload_folder(name, folder, { path_in_repo: "again" });
    t.same(
      server.seen.filter(({ kind }) => kind === "storage").map(({ path: at }) => at),
      [],
      "the storage has it",
    );
  }
  // The commit is made and its answer lost: it is not made twice. Then one that was not made: it is repeated.
  server.chunkSize = undefined;
  for (const fault of [{ dropAfterwards: true }, { drop: -1 }, { status: 503 }]) {
    await hub.create_repo("tester/lost", { exist_ok: true });
    writeFileSync(path.join(folder, "c.txt"), randomBytes(8).toString("hex"));
    const before = server.repos.get("tester/lost")?.commits.size as number;
    let left = 1;
    server.fault = ({ kind }) => (kind === "commit" && left-- > 0 ? fault : undefined);
    const { oid } = await hub.upload_folder("tester/lost", folder);
    t.equal(server.repos.get("tester/lost")?.refs.get("main"), oid);
    t.equal(server.repos.get("tester/lost")?.commits.size, before + 1, JSON.stringify(fault));
  }
  server.fault = ({ kind }) => (kind === "storage" ? { status: 500 } : undefined);
  server.lfs.clear();
  const { attempts } = retries;
  retries.attempts = 2;
  const failure = await hub.upload_folder("tester/lost", folder).catch((error) => error);
  retries.attempts = attempts;
  t.equal(failure.code, "ERR_HUB");
  t.notMatch(`${failure.stack}${failure.message}`, TOKEN);
  server.fault = ({ kind }) => (kind === "storage" ? { hang: true } : undefined);
  const stop = new AbortController();
  setTimeout(() => stop.abort(new Error("enough")), 100);
  await t.rejects(hub.upload_folder("tester/lost", folder, { signal: stop.signal }), /enough/);
});

t.test("by Xet", async (t) => {
  const { server, home } = await hubFor(t);
  process.env.HF_TOKEN = TOKEN;
  server.useXet = true;
  const folder = mkdtempSync(path.join(home, "up-"));
  const content = randomBytes(2 * MB);
  writeFileSync(path.join(folder, "a.safetensors"), content);
  await hub.create_repo("tester/x");
  await hub.upload_folder("tester/x", folder);
  t.ok(server.file("tester/x", "a.safetensors")?.equals(content));
  t.ok(server.seen.some(({ path: at }) => at.includes("/xorbs/")));
  t.ok(
    server.seen
      .filter(({ kind }) => kind === "storage")
      .every(({ authorization }) => !authorization?.includes(TOKEN)),
  );
});

t.test("Python reads what we sent", { skip: withoutPython }, async (t) => {
  const { server } = await hubFor(t);
  process.env.HF_TOKEN = TOKEN;
  await tiny().push_to_hub("tester/m");
  const out = await runPython(`
from huggingface_hub import snapshot_download, ModelCard
folder = snapshot_download("tester/m", cache_dir=${JSON.stringify(mkdtempSync(path.join(process.env.HF_HOME as string, "py-")))})
card = ModelCard.load(folder + "/README.md")
print(folder, card.data.library_name, card.data.pipeline_tag)`);
  const [folder, library, tag] = out.split(" ");
  t.same([library, tag], ["transformers", "text-generation"]);
  t.ok(
    readFileSync(path.join(folder as string, "model.safetensors")).equals(
      server.file("tester/m", "model.safetensors") as Buffer,
    ),
  );
});

t.test("the command line", async (t) => {
  const { server, home } = await hubFor(t);
  const folder = mkdtempSync(path.join(home, "up-"));
  writeFileSync(path.join(folder, "config.json"), "{}");
  writeFileSync(path.join(folder, "model.safetensors"), randomBytes(MB));
  const run = (...args: string[]) => torchformers(args);
  t.match(await run("whoami"), { code: 1, stderr: /there is none/ });
  t.match(await torchformers(["login"], { input: "hf_wrong\n" }), { code: 1, stderr: /does not accept/ });
  const login = await torchformers(["login"], { input: `${TOKEN}\n` });
  t.match(login, { code: 0, stdout: "Logged in as tester.\n" });
  t.equal(readFileSync(path.join(home, "token"), "utf8"), TOKEN);
  t.match(await run("whoami"), { code: 0, stdout: /^tester\norganizations: org\n/ });
  const sent = await run("upload", folder, "tester/cli", "--private", "--json");
  t.match(JSON.parse(sent.stdout), { repo: "tester/cli", pr_url: undefined });
  t.equal(server.repos.get("tester/cli")?.private, true);
  const brought = await run("download", "tester/cli", "*.json", "--json");
  t.match(brought.stderr, /^Downloading: done/);
  t.equal(readFileSync(path.join(JSON.parse(brought.stdout).folder, "config.json"), "utf8"), "{}");
  t.equal((await run("download", "tester/cli")).code, 0);
  t.match(await run("download", "tester/none"), { code: 1, stderr: /no repository 'tester\/none'/ });
  t.match(await run("download"), { code: 2 });
  server.commit("tester/cli", { "config.json": "[]" });
  await run("download", "tester/cli");
  const listed = await run("cache", "ls");
  t.match(listed.stdout, /REPOSITORY +SIZE +LAST USE +REVISIONS\ntester\/cli +1\.0 MB .* 2 \(main\)/);
  t.equal(JSON.parse((await run("cache", "ls", "--json")).stdout).repos[0].revisions.length, 2);
  t.match(await run("cache", "verify"), { code: 0, stdout: /whole/ });
  writeFileSync(path.join(home, "hub/models--tester--cli/blobs/left.12345678.incomplete"), "x");
  const blob = (await run("cache", "ls", "--json")).stdout.match(
    /"blob": "([^"]*\/[0-9a-f]{64})"/,
  )?.[1] as string;
  t.match(await run("cache", "prune"), {
    code: 0,
    stdout: /tester\/cli [0-9a-f]{12}\ntester\/cli left\.12345678\.incomplete\n.*became free/,
  });
  t.equal(JSON.parse((await run("cache", "ls", "--json")).stdout).repos[0].revisions.length, 1);
  writeFileSync(blob, randomBytes(MB));
  t.match(await run("cache", "verify", "tester/cli"), { code: 1, stdout: /wrong bytes: model\.safetensors/ });
  t.match(await run("cache", "rm", "tester/none"), { code: 1, stderr: /not in the cache/ });
  t.match(await run("cache", "rm", "tester/cli@nowhere"), { code: 1, stderr: /no revision 'nowhere'/ });
  t.match(await run("cache", "rm", "tester/cli"), { code: 0, stdout: /became free/ });
  t.match(await run("cache", "ls"), { code: 0, stdout: /is empty/ });
  t.match(await run("logout"), { code: 0, stdout: "Logged out.\n" });
  t.match(await run("whoami"), { code: 1 });
  for (const { stdout, stderr } of [login, sent, brought]) t.notMatch(stdout + stderr, TOKEN);
});
