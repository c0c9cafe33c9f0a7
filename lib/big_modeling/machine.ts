// What a machine can do, as far as a prediction needs it: memory, bandwidths and products per second. GPUs by name from their
// makers' data sheets, so that a plan can be made for machines one does not have.
import { InvalidArgumentError } from "../errors/index.ts";
import { nearest } from "../errors/suggest.ts";
import * as torch from "../torch/index.ts";
import { convert_file_size_to_int } from "./byte_sizes.ts";

/** One place that computes. */
export interface Processor {
  readonly name: string;
  /** Bytes. */
  readonly memory: number;
  /** Bytes per second from its memory. */
  readonly bandwidth: number;
  /** Operations per second in 16 bits. */
  readonly flops: number;
  /** Bytes per second from the host's memory; 0 for the host itself. */
  readonly link: number;
}

const GB = 1e9;
const GIB = 2 ** 30;
const gpu = (memory: number, bandwidth: number, tflops: number, link: number): Omit<Processor, "name"> => ({
  // What the driver and a context take is not there for a model.
  memory: memory * GIB - 1.5 * GIB,
  bandwidth: bandwidth * GB,
  flops: tflops * 1e12,
  link: link * GB,
});

/** GiB, GB/s of memory, dense TFLOP/s in 16 bits, GB/s from the host. */
const GPUS: Readonly<Record<string, Omit<Processor, "name">>> = {
  b200: gpu(180, 8000, 2250, 55),
  h200: gpu(141, 4800, 989, 55),
  h100: gpu(80, 3350, 989, 55),
  "h100-pcie": gpu(80, 2000, 756, 55),
  a100: gpu(80, 2039, 312, 25),
  "a100-40": gpu(40, 1555, 312, 25),
  l40s: gpu(48, 864, 362, 25),
  l4: gpu(24, 300, 121, 25),
  a10: gpu(24, 600, 125, 25),
  v100: gpu(32, 900, 125, 12),
  t4: gpu(16, 320, 65, 12),
  "rtx-6000-ada": gpu(48, 960, 364, 25),
  "rtx-5090": gpu(32, 1792, 210, 55),
  "rtx-4090": gpu(24, 1008, 165, 25),
  "rtx-3090": gpu(24, 936, 71, 25),
};

/** Names that `gpusNamed` knows. */
export const GPU_NAMES: readonly string[] = Object.keys(GPUS);

/**
 * GPUs from texts such as "h200:2" or "h100": name and how many.
 *
 * @throws InvalidArgumentError for a name that is not known.
 */
export function gpusNamed(texts: readonly string[]): Processor[] {
  return texts.flatMap((text) => {
    const found = /^([a-z0-9-]+?)(?::([1-9]\d*))?$/.exec(text.toLowerCase().replaceAll(/[ _]/g, "-"));
    const facts = found?.[1] === undefined ? undefined : GPUS[found[1]];
    if (facts === undefined)
      throw new InvalidArgumentError(`No GPU is known as '${text}'.`, {
        suggestion: nearest(text.split(":")[0] ?? "", GPU_NAMES, 1)[0],
        hint: `Known are ${GPU_NAMES.join(", ")}; "h200:2" means two.`,
      });
    return Array.from({ length: Number(found?.[2] ?? 1) }, () => ({ name: found?.[1] as string, ...facts }));
  });
}

/** The CUDA devices that are there. */
export function gpusHere(): Processor[] {
  return Array.from({ length: torch.cuda.device_count() }, (_, i) => {
    const title = torch.cuda.get_device_name(i);
    const [free] = torch.cuda.mem_get_info(i);
    const words = title.toLowerCase().replaceAll(/[ _]/g, "-");
    const known = GPU_NAMES.find((name) => words.includes(name)) ?? "l4";
    return { ...(GPUS[known] as Omit<Processor, "name">), name: title, memory: free };
  });
}

/** The CPU that this runs on: its memory's bandwidth and a product are timed, which takes some tens of milliseconds. */
export function cpuHere(memory = process.availableMemory()): Processor {
  const [bandwidth, flops] = torch.no_grad(() =>
    torch.tidy(() => {
      const block = torch.ones([16 * 2 ** 20], { dtype: "float32" });
      const square = torch.ones([512, 512], { dtype: "bfloat16" });
      const read = fastest(() => block.sum().item());
      const product = fastest(() => square.matmul(square).select(0, 0).select(0, 0).item());
      return [block.nbytes / read, (2 * 512 ** 3) / product];
    }),
  ) as [number, number];
  return { name: "cpu", memory, bandwidth, flops, link: 0 };
}

function fastest(work: () => void): number {
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 4; i++) {
    const start = performance.now();
    work();
    best = Math.min(best, (performance.now() - start) / 1000);
  }
  return best;
}

/** Limits as the command line takes them: "0=10GiB,cpu=30GiB". */
export function parseLimits(text: string): Record<string, number> {
  return Object.fromEntries(
    text.split(",").map((item) => {
      const [place, size, ...more] = item.split("=").map((part) => part.trim());
      if (!place || !size || more.length > 0)
        throw new InvalidArgumentError(`'${item}' is not a limit: write "0=10GiB,cpu=30GiB".`);
      return [place, convert_file_size_to_int(/^\d+$/.test(size) ? Number(size) : size)];
    }),
  );
}
