// A plan from the headers of a checkpoint: for a model that is not here, on devices that may not be here either.
import { PretrainedConfig } from "../configuration/index.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { type WeightHeader, weightHeaders } from "../hub/weight_headers.ts";
import { asDtype, dtypeBytes, isFloatingDtype } from "../torch/dtype.ts";
import type { Dtype } from "../torch/index.ts";
import { isAccelerator } from "./devices.ts";
import { cpuHere, gpusHere, gpusNamed, parseLimits } from "./machine.ts";
import { parseBudget } from "./max_memory.ts";
import { type PlaceFacts, planWorkload, type WorkloadPlan } from "./plan_workload.ts";
import { activationBytes, shapeOf, unitsOfWeights } from "./units.ts";

export interface EstimateOptions {
  readonly batch?: number | undefined;
  readonly length?: number | undefined;
  readonly dtype?: string | undefined;
  /** "0=10GiB,cpu=30GiB". */
  readonly max_memory?: string | undefined;
  /** "h200:2", …; default: the devices that are here. */
  readonly gpus?: readonly string[] | undefined;
  readonly kind?: "balanced" | "sequential" | undefined;
  /** Bytes per second from the disk. Default 2e9. */
  readonly disk?: number | undefined;
  readonly revision?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Estimate {
  readonly parameters: number;
  readonly bytes: number;
  readonly dtypes: readonly string[];
  readonly plan: WorkloadPlan;
}

/** Names of safetensors' dtypes as torch's; packed kinds have none, and count their bytes. */
const DTYPES: Readonly<Record<string, Dtype>> = {
  F64: "float64",
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
  F8_E4M3: "float8_e4m3fn",
  F8_E5M2: "float8_e5m2",
};

/**
 * Plans a model from its config and the headers of its weights.
 *
 * @throws EntryNotFoundError without config or weights; InvalidArgumentError for a GPU or a limit that is none.
 */
export async function estimate(dirOrRepo: string, options: EstimateOptions = {}): Promise<Estimate> {
  const { batch = 1, length = 2048, kind, disk = 2e9, signal, revision } = options;
  const given = options.dtype === undefined || options.dtype === "auto" ? undefined : asDtype(options.dtype);
  if (given !== undefined && !isFloatingDtype(given))
    throw new InvalidArgumentError(`dtype must be a floating point dtype, got '${given}'.`);
  const hub = { ...(revision ? { revision } : {}), ...(signal ? { signal } : {}) };
  const places = facts(options);
  const { dict } = await PretrainedConfig.get_config_dict(dirOrRepo, hub);
  const shape = shapeOf(dict);
  const headers = await weightHeaders(dirOrRepo, hub);
  const weights = headers.map(({ name, dtype, shape, bytes }) => {
    const parameters = shape.reduce((product, size) => product * size, 1);
    const isCast = given !== undefined && DTYPES[dtype] !== undefined;
    return { name, parameters, bytes: isCast ? parameters * dtypeBytes(given) : bytes };
  });
  const dtype = given ?? commonest(headers);
  const units = unitsOfWeights(weights, shape, { batch, length }, dtype);
  const activations = activationBytes(shape, { batch, length }, dtypeBytes(dtype));
  return {
    parameters: weights.reduce((sum, { parameters }) => sum + parameters, 0),
    bytes: weights.reduce((sum, { bytes }) => sum + bytes, 0),
    dtypes: given === undefined ? [...new Set(headers.map(({ dtype }) => DTYPES[dtype] ?? dtype))] : [given],
    plan: planWorkload({ units, places, disk, activations, batch, length, kind }),
  };
}

/** The floating point dtype of most bytes. */
function commonest(headers: readonly WeightHeader[]): Dtype {
  const totals = new Map<Dtype, number>();
  for (const { dtype, bytes } of headers) {
    const name = DTYPES[dtype];
    if (name !== undefined) totals.set(name, (totals.get(name) ?? 0) + bytes);
  }
  return [...totals].sort(([, a], [, b]) => b - a)[0]?.[0] ?? "bfloat16";
}

/** The places of this machine, or of the one that was named, within limits. */
function facts({ gpus, max_memory }: EstimateOptions): PlaceFacts[] {
  const limits = max_memory === undefined ? undefined : parseBudget(parseLimits(max_memory));
  const named = gpus === undefined ? gpusHere() : gpusNamed(gpus);
  const found: PlaceFacts[] = named.map((each, i) => ({ ...each, place: `cuda:${i}` }));
  const cpu = cpuHere();
  for (const [place, memory] of Object.entries(limits ?? {})) {
    if (!isAccelerator(place) || found.some((each) => each.place === place)) continue;
    throw new InvalidArgumentError(`--max-memory names ${place} (${memory} bytes), which is not here.`, {
      hint: 'Say what it is: --gpu "h200:2".',
    });
  }
  const limited = found.flatMap((each) => {
    const limit = limits?.[each.place];
    if (limits === undefined) return [each];
    return limit === undefined
      ? []
      : [{ ...each, memory: gpus === undefined ? limit : Math.min(limit, each.memory) }];
  });
  const ram = limits === undefined ? cpu.memory * 0.9 : (limits.cpu ?? 0);
  return [...limited, { ...cpu, place: "cpu", memory: ram }];
}
