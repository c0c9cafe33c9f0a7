// Brings libtorch: downloads its wheels, verifies them, and unpacks what is wanted into the cache folder.
//
// The folder appears by one rename when everything is in it. A run that was killed is picked up by the next one: wheels
// and unpacked files that are whole are kept, anything else is done again. Two runs at once wait for each other.

import { createHash } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, stat, statfs, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import {
  cachedLibtorch,
  type Flavour,
  findLibtorch,
  LIBTORCH_VERSION,
  type Libtorch,
} from "../addon/libtorch.ts";
import { SetupError } from "../errors/index.ts";
import { withLock } from "./lock.ts";
import { downloadWheel, findTransport, removeLeftovers } from "./pip.ts";
import { isWanted, UNPACKED, type Wheel, type WheelFile, wheelsOf } from "./wheels.ts";
import { type ZipEntry, ZipReader } from "./zip.ts";

export interface SetupOptions {
  /** `cpu` (default) takes 460 MB on the disk, `cu130` 3.8 GB. */
  readonly flavour?: Flavour;
  /** Also unpack the headers, to build the addon. Default: false. */
  readonly headers?: boolean;
  /** A folder with the wheels; nothing is downloaded then. */
  readonly from?: string | undefined;
  /** Do it even when a fitting copy is there. Default: false. */
  readonly force?: boolean;
  /** Only find out what would be done. Default: false. */
  readonly dryRun?: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: SetupProgress) => void) | undefined;
}

export interface SetupProgress {
  readonly stage: "wait" | "download" | "verify" | "unpack";
  /** The wheel's project; empty while waiting. */
  readonly name: string;
  readonly loaded: number; // bytes
  readonly total: number; // bytes
}

export interface SetupResult {
  /** `present`: a fitting copy was there. `planned`: a dry run. */
  readonly status: "installed" | "present" | "planned";
  readonly folder: string;
  readonly version: string;
  readonly flavour: Flavour;
  /** Wheels that had, or have, to be downloaded. */
  readonly downloads: readonly { readonly name: string; readonly size: number }[];
  /** Bytes that the folder takes on the disk; for a dry run, about what it will take. */
  readonly bytes: number;
}

/** What is written into a finished folder: its libraries with their sizes, so that damage shows. */
interface Installed {
  readonly version: string;
  readonly flavour: Flavour;
  readonly headers: boolean;
  readonly wheels: readonly string[];
  readonly bytes: number;
  readonly files: Readonly<Record<string, number>>;
}

const INSTALLED = "installed.json";

/**
 * Makes sure that libtorch is on this machine.
 *
 * @throws SetupError when a tool, a wheel or room on the disk is missing, or a file is not the known one.
 * @example
 * await setup({ flavour: "cpu", onProgress: ({ stage, name }) => console.log(stage, name) });
 */
export async function setup(options: SetupOptions = {}): Promise<SetupResult> {
  const { flavour = "cpu", headers = false, force = false, dryRun = false, signal, onProgress } = options;
  const folder = cachedLibtorch(flavour);
  if (!force) {
    const present = await findPresent(flavour, headers);
    if (present) return present;
  }
  if (options.from !== undefined) await requireWheels(flavour, resolve(options.from));
  if (dryRun) return plan(flavour, folder, options.from);

  await makeFolder(dirname(folder));
  const onWait = () => onProgress?.({ stage: "wait", name: "", loaded: 0, total: 0 });
  return withLock(`${folder}.lock`, { signal, onWait }, async () => {
    // Whoever held the lock may have done it.
    const present = force ? undefined : await findPresent(flavour, headers);
    return present ?? install(folder, { ...options, flavour, headers });
  });
}

/** A copy that fits, anywhere in the search order. One of ours counts only if its libraries are whole. */
async function findPresent(flavour: Flavour, headers: boolean): Promise<SetupResult | undefined> {
  // A folder named by the variable hides the others even when it does not fit; ours may be there all the same.
  const libtorch =
    findLibtorch({ headers }).libtorch ??
    findLibtorch({ headers, env: { ...process.env, TORCHFORMERS_LIBTORCH: "" } }).libtorch;
  if (!libtorch || (flavour === "cu130" && !libtorch.cuda)) return undefined;
  const installed = await readInstalled(libtorch);
  if (libtorch.source === "cache" && installed === undefined) return undefined;
  const { root, version } = libtorch;
  return {
    status: "present",
    folder: root,
    version,
    flavour,
    downloads: [],
    bytes: installed?.bytes ?? (await libraryBytes(libtorch)),
  };
}

async function readInstalled({ root }: Pick<Libtorch, "root">): Promise<Installed | undefined> {
  try {
    const installed = JSON.parse(await readFile(join(root, INSTALLED), "utf8")) as Installed;
    const sizes = Object.entries(installed.files).map(
      async ([name, size]) => (await stat(join(root, name))).size === size,
    );
    return (await Promise.all(sizes)).every(Boolean) ? installed : undefined;
  } catch {
    return undefined;
  }
}

async function libraryBytes({ lib }: Libtorch): Promise<number> {
  const sizes = (await readdir(lib, { withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map(async (entry) => (await stat(join(lib, entry.name))).size);
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}

// --- getting the wheels ---------------------------------------------------------------------------------------------------

/** Each wheel with the file of it that is used. */
type Wheels = Map<Wheel, WheelFile>;

/** Wheels outlive a run that failed, until the folder is finished. */
const downloadsOf = (folder: string): string => join(dirname(folder), "downloads");

async function plan(flavour: Flavour, folder: string, from: string | undefined): Promise<SetupResult> {
  const downloads = from === undefined ? await missingWheels(flavour, downloadsOf(folder)) : [];
  const files = downloads
    .map((wheel) => wheel.files[0] as WheelFile)
    .map(({ name, size }) => ({ name, size }));
  return {
    status: "planned",
    folder,
    version: LIBTORCH_VERSION,
    flavour,
    downloads: files,
    bytes: UNPACKED[flavour],
  };
}

/** A known file of the wheel that is in the folder with the right size. */
async function fileIn(folder: string, wheel: Wheel): Promise<WheelFile | undefined> {
  for (const file of wheel.files) {
    const facts = await stat(join(folder, file.name)).catch(() => undefined);
    if (facts?.size === file.size) return file;
  }
  return undefined;
}

async function missingWheels(flavour: Flavour, folder: string): Promise<Wheel[]> {
  const missing = [];
  for (const wheel of wheelsOf(flavour)) if (!(await fileIn(folder, wheel))) missing.push(wheel);
  return missing;
}

async function install(
  folder: string,
  options: SetupOptions & { readonly flavour: Flavour; readonly headers: boolean },
): Promise<SetupResult> {
  const { flavour, headers, from, signal, onProgress } = options;
  const wheelFolder = from === undefined ? downloadsOf(folder) : resolve(from);
  const missing = await missingWheels(flavour, wheelFolder);
  await checkRoom(folder, missing, flavour);
  if (from === undefined) await download(missing, wheelFolder, options);

  const wheels: Wheels = new Map();
  for (const wheel of wheelsOf(flavour)) {
    const file = (await fileIn(wheelFolder, wheel)) as WheelFile;
    await verify(join(wheelFolder, file.name), wheel, file, {
      removeBad: from === undefined,
      signal,
      onProgress,
    });
    wheels.set(wheel, file);
  }

  const installed = await unpack(folder, wheelFolder, wheels, { flavour, headers, signal, onProgress });
  if (from === undefined) await rm(wheelFolder, { recursive: true, force: true });
  const downloads = missing.map((wheel) => wheels.get(wheel) as WheelFile);
  return {
    status: "installed",
    folder,
    version: LIBTORCH_VERSION,
    flavour,
    downloads: downloads.map(({ name, size }) => ({ name, size })),
    bytes: installed.bytes,
  };
}

async function download(
  missing: readonly Wheel[],
  folder: string,
  { signal, onProgress }: SetupOptions,
): Promise<void> {
  if (missing.length === 0) return;
  const transport = findTransport();
  await mkdir(folder, { recursive: true });
  await removeLeftovers(folder);
  for (const wheel of missing) {
    const { project: name, files } = wheel;
    const total = (files[0] as WheelFile).size;
    const report = (loaded: number) =>
      onProgress?.({ stage: "download", name, loaded: Math.min(loaded, total), total });
    report(0);
    const brought = await downloadWheel(transport, wheel, folder, { signal, onProgress: report });
    if (!(await fileIn(folder, wheel))) {
      await rm(join(folder, brought), { force: true });
      throw notKnown(brought, wheel);
    }
    report(total);
  }
}

type VerifyOptions = Pick<SetupOptions, "signal" | "onProgress"> & { readonly removeBad: boolean };

async function verify(
  path: string,
  { project: name }: Wheel,
  { size: total, sha256 }: WheelFile,
  options: VerifyOptions,
): Promise<void> {
  const { removeBad, signal, onProgress } = options;
  const hash = createHash("sha256");
  let loaded = 0;
  const digest = async (source: AsyncIterable<Buffer>) => {
    for await (const chunk of source) {
      hash.update(chunk);
      loaded += chunk.length;
      onProgress?.({ stage: "verify", name, loaded, total });
    }
  };
  await pipeline(
    createReadStream(path, { highWaterMark: 1 << 20 }),
    digest,
    signal === undefined ? {} : { signal },
  );
  const found = hash.digest("hex");
  if (found === sha256) return;
  if (removeBad) await rm(path, { force: true });
  throw new SetupError(
    `${path} has the checksum ${found} instead of ${sha256}: it is damaged, or not the published file.`,
    {
      hint: removeBad
        ? "It was removed; run the command again. If that does not help, ask pip for a fresh one: pip cache purge"
        : "Download it again.",
    },
  );
}

// --- unpacking ------------------------------------------------------------------------------------------------------------

type UnpackOptions = Pick<SetupOptions, "signal" | "onProgress"> & {
  readonly flavour: Flavour;
  readonly headers: boolean;
};

async function unpack(
  folder: string,
  from: string,
  wheels: Wheels,
  options: UnpackOptions,
): Promise<Installed> {
  const { flavour, headers } = options;
  const staging = `${folder}.partial`;
  await prepareStaging(staging, [...wheels.values()]);
  const files: Record<string, number> = {};
  let bytes = 0;
  for (const [wheel, file] of wheels) {
    await using zip = await ZipReader.open(join(from, file.name));
    const wanted = zip.entries.filter(({ name }) => isWanted(name, flavour, headers));
    await extractAll(zip, wanted, staging, wheel.project, options);
    for (const { name, size } of wanted) {
      bytes += size;
      if (/\.so(\.|$)/.test(name)) files[name] = size;
    }
  }
  const names = [...wheels.values()].map(({ name }) => name);
  const installed: Installed = { version: LIBTORCH_VERSION, flavour, headers, wheels: names, bytes, files };
  await rm(join(staging, STAGED), { force: true });
  await writeFile(join(staging, INSTALLED), JSON.stringify(installed, null, 2), { flush: true });
  await replace(staging, folder);
  return installed;
}

const STAGED = ".wheels.json";

/** Files left by a run that was stopped are of use only if they come from the same wheels. */
async function prepareStaging(staging: string, wheels: readonly WheelFile[]): Promise<void> {
  const wanted = JSON.stringify(wheels.map(({ sha256 }) => sha256));
  const mark = join(staging, STAGED);
  if ((await readFile(mark, "utf8").catch(() => undefined)) === wanted) return;
  await rm(staging, { recursive: true, force: true });
  await mkdir(staging, { recursive: true });
  await writeFile(mark, wanted);
}

async function extractAll(
  zip: ZipReader,
  wanted: readonly ZipEntry[],
  target: string,
  name: string,
  options: UnpackOptions,
): Promise<void> {
  const { signal, onProgress } = options;
  const total = wanted.reduce((sum, { size }) => sum + size, 0);
  let loaded = 0;
  const onBytes = (count: number) => {
    loaded += count;
    onProgress?.({ stage: "unpack", name, loaded, total });
  };
  for (const entry of wanted) {
    const there = await stat(join(target, entry.name)).catch(() => undefined);
    if (there?.isFile() && there.size === entry.size) onBytes(entry.size);
    else await zip.extract(entry, target, { signal, onBytes });
  }
}

/** Puts a finished folder in its place. A process that runs keeps its mapping of the old files. */
async function replace(staging: string, folder: string): Promise<void> {
  const old = `${folder}.old`;
  await rm(old, { recursive: true, force: true });
  if (existsSync(folder)) await rename(folder, old);
  await rename(staging, folder);
  await rm(old, { recursive: true, force: true });
}

// --- refusals -------------------------------------------------------------------------------------------------------------

const megabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6).toLocaleString("en")} MB`;

/** pip holds a wheel twice for a moment: in its temporary folder and in ours. */
async function checkRoom(folder: string, missing: readonly Wheel[], flavour: Flavour): Promise<void> {
  const downloads = missing.map(({ files }) => (files[0] as WheelFile).size);
  const largest = Math.max(0, ...downloads);
  const needed = downloads.reduce((sum, size) => sum + size, largest) + UNPACKED[flavour];
  const { bavail, bsize } = await statfs(dirname(folder));
  const free = bavail * bsize;
  if (free >= needed) return;
  throw new SetupError(
    `${dirname(folder)} has ${megabytes(free)} free; ${megabytes(needed)} are needed while libtorch is set up.`,
    {
      hint: "Free some room, or name a folder on another disk: TORCHFORMERS_CACHE=<folder>",
    },
  );
}

async function requireWheels(flavour: Flavour, folder: string): Promise<void> {
  const missing = await missingWheels(flavour, folder);
  if (missing.length === 0) return;
  const wheels = missing.map(
    ({ project, version, files }) => `  - ${project} ${version}, for example ${files[0]?.name}`,
  );
  const requests = missing.map(({ project, version }) => `${project}==${version}`).join(" ");
  throw new SetupError(
    `${folder} lacks wheels, or holds versions of them that are not known:\n${wheels.join("\n")}`,
    { hint: `On a machine with a network: python3 -m pip download --no-deps --dest wheels ${requests}` },
  );
}

async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
  } catch (cause) {
    throw new SetupError(`The folder ${folder} cannot be made: ${(cause as Error).message}`, {
      cause,
      hint: "Name another one: TORCHFORMERS_CACHE=<folder>",
    });
  }
}

function notKnown(brought: string, { project, version, files }: Wheel): SetupError {
  return new SetupError(
    `The file that came for ${project} ${version}, ${brought}, is not one of the published wheels that this version knows by name and size.`,
    { hint: `Known are: ${files.map(({ name }) => name).join(", ")}. Does a mirror rebuild packages?` },
  );
}
