import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { ZipReader } from "#lib/setup/zip.js";
import { type Member, makeZip, type ZipOptions } from "../support/zips.js";

const small = Buffer.from("hello");
const large = Buffer.from(Array.from({ length: 3 << 20 }, (_, i) => (i * i) >> 7));

function archive(folder: string, members: readonly Member[], options?: ZipOptions): string {
  const path = join(folder, "a.whl");
  writeFileSync(path, makeZip(members, options));
  return path;
}

t.test("what is not a zip archive, or a damaged one, is refused", async (t) => {
  const folder = t.testdir();
  const path = join(folder, "a.whl");
  const good = makeZip([{ name: "a", data: small }]);
  const refuses = async (what: string, data: Buffer, pattern: RegExp) => {
    writeFileSync(path, data);
    await t.rejects(ZipReader.open(path), { code: "ERR_SETUP", message: pattern }, what);
  };
  await refuses("empty", Buffer.alloc(0), /no end record/);
  await refuses("no archive", Buffer.alloc(1000, 7), /no end record/);
  await refuses("cut off", good.subarray(0, -1), /no end record/);
  await refuses("beginning cut off", good.subarray(10), /./);
  const damaged = Buffer.from(good);
  damaged.writeUInt32LE(0, good.length - 22 - 47); // the directory's only record
  await refuses("damaged directory", damaged, /directory is damaged/);
  const far = Buffer.from(good);
  far.writeUInt32LE(0xfffffff0, good.length - 6);
  await refuses("directory beyond the end", far, /does not fit/);
  const many = Buffer.from(good);
  many.writeUInt16LE(2, good.length - 12);
  await refuses("more members than records", many, /directory is damaged/);
});

t.test("members that are not allowed", async (t) => {
  const folder = t.testdir();
  const refuses = (what: string, members: readonly Member[], message: RegExp) =>
    t.rejects(ZipReader.open(archive(folder, members)), { code: "ERR_SETUP", message }, what);
  for (const name of ["../a", "a/../../b", "/etc/passwd", "a\\b", "c:a", "a//b", "./a", "a\0b", ""]) {
    await refuses(JSON.stringify(name), [{ name, data: small }], /not allowed/);
  }
  await refuses(
    "twice",
    [
      { name: "a", data: small },
      { name: "a", data: small },
    ],
    /in it twice/,
  );
  await refuses("encrypted", [{ name: "a", data: small, claim: { flags: 1 } }], /encrypted/);
  await refuses("unknown method", [{ name: "a", data: small, claim: { method: 12 } }], /unknown way/);
  const beyond: Member = { name: "a", data: small, claim: { size: 5000 } };
  await refuses("reaches into the next one", [beyond, { name: "b", data: small }], /beyond its place/);
});

t.test("members that are not what they say", async (t) => {
  const folder = t.testdir({ out: {} });
  const out = join(folder, "out");
  const refuses = async (what: string, member: Member, message: RegExp) => {
    await using zip = await ZipReader.open(archive(folder, [member]));
    await t.rejects(zip.extract(zip.entries[0]!, out), { code: "ERR_SETUP", message }, what);
    t.notOk(existsSync(join(out, "a")), `${what}: nothing is left under its name`);
  };
  for (const [size, data] of [
    ["small", small],
    ["large", large],
  ] as const) {
    await refuses(`${size}, wrong checksum`, { name: "a", data, claim: { crc32: 1 } }, /wrong checksum/);
    await refuses(
      `${size}, longer`,
      { name: "a", data, deflate: true, claim: { size: data.length - 1 } },
      /larger|bytes|unpack/,
    );
    await refuses(
      `${size}, shorter`,
      { name: "a", data, deflate: true, claim: { size: data.length + 1 } },
      /bytes instead of/,
    );
    await refuses(
      `${size}, no deflate data`,
      { name: "a", data: Buffer.alloc(data.length, 0xff), claim: { method: 8 } },
      /does not unpack/,
    );
  }
  await refuses("other local name", { name: "a", data: small, claim: { localName: "b" } }, /another name/);
  await refuses("link", { name: "a", data: Buffer.from("/etc/passwd"), mode: 0o120777 }, /is a link/);
});

t.test("unpacks stored, deflated and 64-bit members", async (t) => {
  const folder = t.testdir({ out: {} });
  const members: Member[] = [
    { name: "d/", data: Buffer.alloc(0), mode: 0o40755 },
    { name: "d/stored", data: small },
    { name: "d/deflated", data: small, deflate: true, mode: 0o100755 },
    { name: "d/e/large", data: large, deflate: true },
    { name: "large stored", data: large },
    { name: "empty", data: Buffer.alloc(0), deflate: true },
    { name: "ümlaut", data: small, zip64: true },
  ];
  for (const options of [{}, { comment: "a comment" }, { zip64: true }]) {
    await using zip = await ZipReader.open(archive(folder, members, options));
    t.same(
      zip.entries.map(({ name }) => name),
      members.map(({ name }) => name),
    );
    let bytes = 0;
    for (const entry of zip.entries) {
      const onBytes = (count: number) => {
        bytes += count;
      };
      await zip.extract(entry, join(folder, "out"), { onBytes });
    }
    for (const { name, data } of members.filter(({ name }) => !name.endsWith("/"))) {
      t.ok(readFileSync(join(folder, "out", name)).equals(data), name);
    }
    t.equal(
      bytes,
      members.reduce((sum, { data }) => sum + data.length, 0),
      "bytes are counted",
    );
    t.equal(statSync(join(folder, "out/d/deflated")).mode & 0o111, 0o111, "programs stay executable");
    t.equal(statSync(join(folder, "out/d/stored")).mode & 0o111, 0);
  }
});

t.test("an abort stops it and leaves no file under its name", async (t) => {
  const folder = t.testdir({ out: {} });
  await using zip = await ZipReader.open(archive(folder, [{ name: "large", data: large, deflate: true }]));
  const controller = new AbortController();
  const onBytes = () => controller.abort(new Error("enough"));
  await t.rejects(zip.extract(zip.entries[0]!, join(folder, "out"), { signal: controller.signal, onBytes }));
  t.notOk(existsSync(join(folder, "out/large")));
});
