// The examples, compiled and run on the demo model; and the programs in README.md and the guides, compiled and run too.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import t from "tap";
import { safetensors, timm } from "torchformers";
import ts from "typescript";
import { fixture, root } from "../support/fixtures.js";

// One thread: a team of two waits long for each other on a machine that is busy with tests.
process.env["OMP_NUM_THREADS"] = "1";

/** A hub in a process of its own, which has the demo model and weights by chance of a small ResNet; a home and a token for it. */
async function startHub(folder: string): Promise<NodeJS.ProcessEnv> {
  const resnet = join(folder, "repos/timm--resnet10t.c3_in1k");
  mkdirSync(resnet, { recursive: true });
  await safetensors.save_file(
    (await timm.create_model("resnet10t")).state_dict(),
    join(resnet, "model.safetensors"),
  );
  symlinkSync(fixture("demo-llama"), join(folder, "repos/demo-llama"));
  const server = spawn(
    process.execPath,
    [join(root, "build/test/support/hub_server.js"), join(folder, "repos")],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  t.teardown(() => server.kill());
  const [url] = await once(server.stdout, "data");
  return { HF_ENDPOINT: String(url).trim(), HF_HOME: join(folder, "home"), HF_TOKEN: "hf_testtoken" };
}

Object.assign(process.env, await startHub(t.testdir()));

/** The files of several fixtures in one folder. */
function copyCheckpoint(folder: string, ...fixtures: string[]): void {
  mkdirSync(folder, { recursive: true });
  for (const name of fixtures) {
    for (const entry of readdirSync(fixture(name), { withFileTypes: true }))
      if (entry.isFile() && !entry.name.startsWith("golden."))
        copyFileSync(join(fixture(name), entry.name), join(folder, entry.name));
  }
}

const node = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8" });
  return { status, stdout, stderr };
};
const example = (name: string, ...args: string[]) => node(`build/examples/${name}/index.js`, ...args);

t.test("examples", async (t) => {
  const built = node("node_modules/typescript/bin/tsc", "-p", "examples/tsconfig.json");
  t.match(built, { status: 0, stdout: "" }, "they compile");
  const expected: Record<string, RegExp> = {
    "custom-model":
      /8 new weights[\s\S]*same logits before training: true[\s\S]*again as AdapterLlamaForCausalLM/,
    "custom-resnet": new RegExp(
      ["resnet", "my-resnet"]
        .map((type) =>
          [
            `${type}: timm's outputs: true, loss [\\d.]+`,
            `${type}: loaded as \\w+ForImageClassification, same outputs: true`,
            `${type}: \\w+Model gives features \\[1, 512, 2, 2\\]`,
            `${type}: sent to http\\S+, brought back with the same outputs: true`,
          ].join("\n"),
        )
        .join("\n"),
    ),
    "fine-tuning": /[▁-█]{20}\nloss (\d+\.\d+) -> 0\.\d+ in 20 steps\nThe tensor said hello to the gradient/,
    hub: /^Once upon a time.+\norg\/demo-llama: 1 revision in the cache\nsent: http.*\/tester\/sent\/commit\//,
    "sam-split-attention":
      /^built: .* true\nreplaced: .* true\nforgotten: .* false, 16[\s\S]*8 matrices, all of the adapter: true\n.*training: true\n *loss (0\.\d+) -> 0\.\d+\nloaded: .*trained: true, as before: false\nmerged: .*true\ndeleted: .*true\n$/,
    "text-generation": /^The file must be used\.\n$/,
    training: /[▁-█]{60}\nloss 0\.\d+ -> 0\.000\d+ in 300 steps/,
    workers: /tensor\(\[\[ 0\., +2\., +4\.\][\s\S]*tensor\(\[ 4\.4721, 14\.1421\]\)/,
  };
  expected["image-classification"] =
    /wide\.jpg LABEL_0 0\.511, LABEL_4 0\.424\n.*square\.png LABEL_0 0\.542, LABEL_2 0\.249/;
  const folders = readdirSync(join(root, "examples"), { withFileTypes: true }).filter((entry) =>
    entry.isDirectory(),
  );
  t.same(folders.map(({ name }) => name).sort(), Object.keys(expected).sort(), "each is run here");
  const output = t.testdir({ vit: {} });
  copyCheckpoint(join(output, "vit"), "models/vit", "preprocessing/image-vit");
  const pictures = ["wide.jpg", "square.png"].map((name) => fixture(`preprocessing/assets/${name}`));
  for (const [name, stdout] of Object.entries(expected)) {
    const args =
      name === "hub"
        ? ["org/demo-llama", "tester/sent"]
        : name === "custom-resnet"
          ? ["resnet10t", join(output, name), "tester/mine"]
          : name === "custom-model" || name === "fine-tuning"
            ? [fixture("demo-llama"), join(output, name)]
            : name === "image-classification"
              ? [join(output, "vit"), ...pictures]
              : name === "sam-split-attention"
                ? [fixture("models/sam"), join(output, name)]
                : [];
    const ran = example(name, ...args);
    t.match(ran, { status: 0, stdout }, name);
    const [, before, after] =
      / loss (\d\.\d+) -> (\d\.\d+)\n/.exec(name === "sam-split-attention" ? ran.stdout : "") ?? [];
    if (before !== undefined) t.ok(Number(after) < Number(before), "the loss falls");
  }
  t.match(
    readFileSync(join(output, "fine-tuning/loss.svg"), "utf8"),
    /<polyline points="0\.0,0\.0 [\s\S]*<\/svg>/,
  );
});

t.test("the configuration of examples/custom-resnet refuses what makes no ResNet", async (t) => {
  const { ResnetConfig } = await import(join(root, "build/examples/custom-resnet/configuration_resnet.js"));
  for (const [field, value] of Object.entries({
    block_type: "wide",
    stem_type: "deep-tiered",
    layers: [1, 2],
    num_classes: 0,
    input_channels: "3",
    avg_down: 1,
  }))
    t.throws(() => new ResnetConfig({ [field]: value }), { code: "ERR_CONFIG", message: new RegExp(field) });
  t.throws(() => new ResnetConfig({ block_type: "basic", cardinality: 2 }), { code: "ERR_CONFIG" });
});

/**
 * Writes all ```ts blocks of a page as one program; its imports may stand anywhere in it. A ```typescript block that
 * begins with the name of a file is a module beside it.
 */
function extract(page: string): string {
  const text = readFileSync(join(root, page), "utf8");
  const blocks = [...text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code]) => code);
  const file = join(root, "build/guides", `${basename(page, ".md")}.ts`);
  mkdirSync(join(root, "build/guides"), { recursive: true });
  for (const [, name, code] of text.matchAll(/^```typescript\n\/\/ (\w+\.ts)\n([\s\S]*?)^```$/gm))
    writeFileSync(join(root, "build/guides", name as string), code as string);
  writeFileSync(file, blocks.join("\n"));
  return file;
}

/** What the compiler says to the programs; writes their JavaScript beside them. */
function compile(files: readonly string[]): string[] {
  const { config } = ts.readConfigFile(join(root, "tsconfig.json"), ts.sys.readFile);
  const compilerOptions = { ...config.compilerOptions, noEmit: false, allowImportingTsExtensions: false };
  const { options } = ts.convertCompilerOptionsFromJson(compilerOptions, root);
  const program = ts.createProgram(files, options);
  const { diagnostics } = program.emit();
  return [...ts.getPreEmitDiagnostics(program), ...diagnostics].map(
    ({ file, messageText }) =>
      `${basename(file?.fileName ?? "")}: ${ts.flattenDiagnosticMessageText(messageText, "\n")}`,
  );
}

t.test("README.md and the guides", async (t) => {
  const guides = readdirSync(join(root, "docs/guides")).map((name) => `docs/guides/${name}`);
  const files = ["README.md", ...guides].map(extract);
  t.same(compile(files), [], "they compile");
  const folder = t.testdir({ test: { fixtures: {} } });
  for (const link of ["model", "test/fixtures/demo-llama"])
    symlinkSync(fixture("demo-llama"), join(folder, link));
  copyCheckpoint(join(folder, "vit"), "models/vit", "preprocessing/image-vit");
  copyCheckpoint(join(folder, "sam"), "models/sam");
  copyFileSync(
    fixture("preprocessing/processor-sam/processor_config.json"),
    join(folder, "sam/processor_config.json"),
  );
  symlinkSync(fixture("preprocessing/assets/wide.jpg"), join(folder, "photo.jpg"));
  for (const file of files) {
    const program = file.replace(/\.ts$/, ".js");
    const { status, stdout, stderr } = spawnSync(process.execPath, [program], {
      cwd: folder,
      encoding: "utf8",
    });
    t.equal(status, 0, `${basename(program)} ${status === 0 ? "" : stderr}`);
    t.not(stdout, "");
  }
});
