// torch, with what stands on it and is part of its name space.
export * from "../torch/index.ts";
export type { Bucket, PaddedDim } from "./buckets.ts";
export {
  type CompileCounters,
  type Compiled,
  type CompileOptions,
  compile,
  type PassName,
  type RunOptions,
} from "./compile.ts";
export { type ProfileEntry, Program } from "./program.ts";
