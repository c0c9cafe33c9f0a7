// safetensors: refused files, byte equality with the reference, mappings, and writes that are whole or absent.
import {
  chmodSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import t from "tap";
import {
  DisposedError,
  EntryNotFoundError,
  FileError,
  InvalidArgumentError,
  SafetensorsFormatError,
  safetensors,
  type Tensor,
  torch,
} from "torchformers";
import { fixture } from "../support/fixtures.js";
import { runProgram, startProgram } from "../support/program.js";

const { load_file, safe_open, save_file } = safetensors;
const floats = (values: number[], shape = [values.length]): Tensor =>
  torch.tensor(new Float32Array(values), { shape });

t.test("a file that breaks the format is refused with its name and the reason", async (t) => {
  const reasons: Record<string, RegExp> = {
    truncated: /cut off/,
    trailing_bytes: /belong to no tensor/,
    header_beyond_file: /limit of 100000000/,
    header_negative: /limit of 100000000/,
    header_garbage: /not valid/,
    header_not_utf8: /UTF-8/,
    header_array: /start with '\{'/,
    empty_file: /0 bytes/,
    short_file: /5 bytes/,
    overlap: /overlaps/,
    gap: /belong to no tensor/,
    unknown_dtype: /tensor '.+': unknown dtype 'F128'/,
    shape_mismatch: /tensor '.+': shape .+ needs \d+ bytes/,
    shape_overflow: /tensor '.+': .*overflows/,
    shape_negative: /negative/,
    offsets_reversed: /tensor '.+': .*before it begins/,
    duplicate_key: /tensor '.+': the name occurs twice/,
  };
  const folders = readdirSync(fixture("bad")).filter((name) => name.startsWith("safetensors-"));
  t.same(folders.map((name) => name.slice("safetensors-".length)).sort(), Object.keys(reasons).sort());
  for (const [kind, reason] of Object.entries(reasons)) {
    const path = fixture(`bad/safetensors-${kind}/model.safetensors`);
    const error: unknown = await load_file(path).then(
      () => undefined,
      (e) => e,
    );
    if (!(error instanceof SafetensorsFormatError)) return t.fail(`${kind}: ${error}`);
    t.match(error.message, reason, kind);
    t.ok(error.message.includes(path), "the message names the file");
    t.equal(error.code, "ERR_SAFETENSORS_FORMAT");
  }
});

t.test("what is not a file, and what is asked for wrongly", async (t) => {
  const dir = t.testdir({});
  await t.rejects(load_file(join(dir, "absent.safetensors")), EntryNotFoundError);
  await t.rejects(load_file(dir), FileError);
  await t.rejects(load_file("a\0b"), InvalidArgumentError);
  await t.rejects(load_file(join(dir, "x"), { devise: "cpu" } as never), /Did you mean 'device'/);
  await t.rejects(save_file({ x: floats([1]) }, join(dir, "x"), { meta: {} } as never), InvalidArgumentError);
  await t.rejects(save_file({ x: 3 as never }, join(dir, "x")), /'x' is not a Tensor/);
  await t.rejects(
    save_file({ x: floats([1]) }, join(dir, "x"), { metadata: { a: 1 as never } }),
    /'a' is of type number/,
  );
  await t.rejects(save_file({ x: floats([1]) }, join(dir, "absent/x")), EntryNotFoundError);
  await t.rejects(save_file({ x: floats([1]) }, dir), FileError);
  await t.rejects(save_file({ x: torch.zeros([2], { device: "meta" }) }, join(dir, "x")), /'x'.*meta/);
  await t.rejects(save_file({ x: torch.zeros([2], { dtype: "complex128" }) }, join(dir, "x")), {
    code: "ERR_DTYPE",
  });
  await t.rejects(save_file({ __metadata__: floats([1]) }, join(dir, "x")), SafetensorsFormatError);
  const shared = floats([1, 2, 3, 4]);
  await t.rejects(save_file({ a: shared, b: shared }, join(dir, "x")), /'a' and 'b' share memory/);
  await t.rejects(save_file({ a: shared, b: shared.narrow(0, 1, 2) }, join(dir, "x")), /share memory/);
  t.same(readdirSync(dir), [], "nothing is left behind");
});

t.test("what we read and write again equals the reference's file byte for byte", async (t) => {
  const dir = t.testdir({});
  for (const name of readdirSync(fixture("safetensors"))) {
    const path = fixture(`safetensors/${name}`);
    const file = await safe_open(path);
    const tensors = Object.fromEntries(file.keys().map((key) => [key, file.get_tensor(key)]));
    await save_file(tensors, join(dir, name), { metadata: file.metadata() });
    t.ok(readFileSync(join(dir, name)).equals(readFileSync(path)), name);
    file.close();
  }
});

t.test("names, shapes, dtypes and values arrive", async (t) => {
  const dtypes = await load_file(fixture("safetensors/dtypes.safetensors"));
  for (const [name, tensor] of Object.entries(dtypes)) {
    t.equal(tensor.dtype, name.split(".")[0]);
    t.same(tensor.shape, [2, 3]);
  }
  const names = await load_file(pathToFileURL(fixture("safetensors/names.safetensors")));
  t.same(names["日本"]?.tolist(), [6, 6, 6, 6, 6, 6, 6]);
  t.same(Object.getOwnPropertyDescriptor(names, "__proto__")?.value.tolist(), Array(14).fill(13));
  const shapes = await load_file(fixture("safetensors/shapes.safetensors"));
  t.same(
    Object.fromEntries(Object.entries(shapes).map(([name, x]) => [name, [x.dtype, x.shape, x.tolist()]])),
    {
      scalar: ["float32", [], 3.5],
      none: ["float32", [0], []],
      empty: ["int64", [2, 0, 3], [[], []]],
      ones: ["float32", [1, 1, 1], [[[1]]]],
      "one byte": ["bool", [], true],
    },
  );
  const file = await safe_open(fixture("safetensors/shapes.safetensors"));
  t.same(file.metadata(), { "note é": 'line\n"quoted" 😀' });
  t.same(file.get_info("empty"), { dtype: "int64", shape: [2, 0, 3], nbytes: 0 });
  t.equal(file.byteLength, statSync(fixture("safetensors/shapes.safetensors")).size);
  t.throws(() => file.get_tensor("scaler"), /no tensor 'scaler'. Did you mean 'scalar'/);
  file.close();
  file.close();
  t.throws(() => file.get_tensor("scalar"), DisposedError);
  t.same(Object.keys(await load_file(fixture("safetensors/nothing.safetensors"))), []);
});

t.test(
  "a tensor is the mapped file, private when written, alive after everything else is gone",
  async (t) => {
    const dir = t.testdir({});
    const path = join(dir, "model.safetensors");
    await save_file({ w: torch.ones([1024, 1024]), v: torch.zeros([4]) }, path);
    const before = torch.memory_stats();
    const { w, v } = (await load_file(path)) as { w: Tensor; v: Tensor };
    const during = torch.memory_stats();
    t.equal(during.mapped_bytes - before.mapped_bytes, 4 * 1024 * 1024 + 16);
    t.equal(during.private_bytes, before.private_bytes);
    w.add_(1);
    t.equal(w.sum().item(), 2 * 1024 * 1024);
    const again = await load_file(path);
    t.equal(again["w"]?.sum().item(), 1024 * 1024, "the file is as it was");
    await save_file({ w: torch.zeros([2]) }, path); // over the file that is mapped
    t.equal(w.sum().item(), 2 * 1024 * 1024);
    t.same(v.tolist(), [0, 0, 0, 0]);
    for (const tensor of [w, v, ...Object.values(again)]) tensor.dispose();
    t.equal(torch.memory_stats().mapped_bytes, before.mapped_bytes);
  },
);

t.test("data that is not aligned is copied", async (t) => {
  const dir = t.testdir({});
  const header =
    '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F64","shape":[2],"data_offsets":[1,17]}}';
  const data = Buffer.alloc(8 + header.length + 17);
  data.writeBigUInt64LE(BigInt(header.length));
  data.write(header, 8);
  data.writeDoubleLE(1.5, 8 + header.length + 1);
  data.writeDoubleLE(-2, 8 + header.length + 9);
  writeFileSync(join(dir, "x"), data);
  const { b } = (await load_file(join(dir, "x"))) as { b: Tensor };
  t.same(b.tolist(), [1.5, -2]);
});

t.test("packed kinds: 4-bit numbers as torch has them, 6-bit ones refused when asked for", async (t) => {
  const dir = t.testdir({});
  const header =
    '{"x":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]},"y":{"dtype":"F4","shape":[2,6],"data_offsets":[3,9]}}';
  const data = Buffer.alloc(8 + header.length + 9);
  data.writeBigUInt64LE(BigInt(header.length));
  data.write(header, 8);
  writeFileSync(join(dir, "x"), data);
  const file = await safe_open(join(dir, "x"));
  t.throws(() => file.get_tensor("x"), /'x'.*no dtype for F6_E2M3/);
  t.same([file.get_tensor("y").dtype, file.get_tensor("y").shape], ["float4_e2m1fn_x2", [2, 3]]);
});

t.test("a file that shrinks under its mapping: the operation fails, the process goes on", async (t) => {
  const dir = t.testdir({});
  const path = join(dir, "model.safetensors");
  await save_file({ w: torch.ones([512, 1024]) }, path);
  const { w } = (await load_file(path)) as { w: Tensor };
  truncateSync(path, 4096 * 4);
  t.throws(() => w.mul(2), { code: "ERR_FILE", message: path });
  t.throws(() => w.add(1), { code: "ERR_FILE" }, "and each later one");
  t.throws(() => w.narrow(0, 0, 1).item(), { code: "ERR_FILE" });
  t.equal(torch.ones([3]).sum().item(), 3);
  w.dispose();
  t.equal(torch.ones([3]).sum().item(), 3);
});

t.test("writing: views, links, modes, and metadata in its order", async (t) => {
  const dir = t.testdir({});
  const path = join(dir, "x.safetensors");
  const x = torch.arange(6, { dtype: "float32" }).reshape([2, 3]);
  const whole = torch.arange(10, { dtype: "int64" });
  const metadata = { z: "1", a: "2", "10": "3" };
  const halves = { low: whole.narrow(0, 0, 5), high: whole.narrow(0, 5, 5) };
  await save_file({ t: x.t(), ...halves }, path, { metadata });
  const back = await load_file(path);
  t.same(back["t"]?.tolist(), [
    [0, 3],
    [1, 4],
    [2, 5],
  ]);
  t.same(back["high"]?.tolist(), [5, 6, 7, 8, 9]);
  const file = await safe_open(path);
  t.same(Object.entries(file.metadata() ?? {}), Object.entries(metadata));

  chmodSync(path, 0o600);
  symlinkSync(path, join(dir, "link"));
  await save_file({ x: x.requires_grad_() }, join(dir, "link"));
  t.equal(statSync(path).mode & 0o777, 0o600);
  t.same(Object.keys(await load_file(path)), ["x"]);
  t.same(readdirSync(dir).sort(), ["link", "x.safetensors"]);

  const disposed = torch.full([64, 64], 7);
  const saving = save_file({ x: disposed }, path);
  disposed.dispose();
  await saving;
  t.equal((await load_file(path))["x"]?.sum().item(), 7 * 64 * 64, "what is being saved outlives its Tensor");
});

t.test("a full disk is an error that names the file, and nothing is left", async (t) => {
  const dir = t.testdir({});
  // A process with a limit on file sizes stands in for a full disk.
  const program = `
    import { safetensors, torch } from "torchformers";
    const error = await safetensors.save_file({ x: torch.zeros([1 << 20]) }, "large.safetensors").catch((e) => e);
    process.stdout.write(JSON.stringify([error.code, error.message]));`;
  const { stdout, status } = await runProgram(program, dir, "ulimit -f 1024; ");
  t.equal(status, 0);
  const [code, message] = JSON.parse(stdout);
  t.equal(code, "ERR_FILE");
  t.match(message, /large\.safetensors': File too large/);
  t.same(
    readdirSync(dir).filter((name) => !name.endsWith(".mjs")),
    [],
  );
});

t.test("where no private mapping of the size is granted, tensors are copied", async (t) => {
  const dir = t.testdir({});
  // A sparse file of 20 GB, and a limit of 10 GB on private memory: as strict overcommit on a small machine.
  const size = 20e9;
  const header = `{"big":{"dtype":"U8","shape":[${size}],"data_offsets":[0,${size}]},"small":{"dtype":"F32","shape":[2],"data_offsets":[${size},${size + 8}]}}`;
  const start = Buffer.alloc(8 + header.length);
  start.writeBigUInt64LE(BigInt(header.length));
  start.write(header, 8);
  writeFileSync(join(dir, "large"), start);
  truncateSync(join(dir, "large"), start.length + size + 8);
  const program = `
    import { safetensors, torch } from "torchformers";
    const file = await safetensors.safe_open("large");
    const small = file.get_tensor("small").add_(1);
    process.stdout.write(JSON.stringify([small.tolist(), torch.memory_stats().mapped_bytes]));`;
  const { stdout, status } = await runProgram(program, dir, "ulimit -d 10000000; ");
  t.equal(status, 0);
  t.same(JSON.parse(stdout), [[1, 1], 0]);
});

t.test("a kill leaves the old file or the new one", async (t) => {
  const dir = t.testdir({});
  const path = join(dir, "model.safetensors");
  await save_file({ x: torch.full([1 << 20], -1) }, path);
  const program = `
    import { safetensors, torch } from "torchformers";
    process.stdout.write("ready");
    for (let i = 0; ; i++) await safetensors.save_file({ x: torch.full([1 << 20], i) }, "model.safetensors");`;
  for (let round = 0; round < (process.env["TORCHFORMERS_SOAK"] ? 40 : 4); round++) {
    const child = startProgram(program, dir);
    await new Promise((resolve) => child.stdout?.once("data", resolve));
    await new Promise((resolve) => setTimeout(resolve, 5 + Math.random() * 60));
    child.kill("SIGKILL");
    await new Promise((resolve) => child.once("close", resolve));
    const { x } = (await load_file(path)) as { x: Tensor };
    t.equal(x.min().item(), x.max().item());
    x.dispose();
  }
});
