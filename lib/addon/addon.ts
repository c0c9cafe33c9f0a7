// The native contract: everything the C++ addon exports, typed. Nothing else crosses the border.
//
// A tensor crosses as a number, its handle (slot and generation in the environment's table; 0 is "none").
// An `owner` is the JS object that stands for a new tensor: the addon keeps a weak reference to it, and the
// tensor lives until the owner is garbage, disposed, or left behind by a scope.

/** Slot and generation of a tensor in this environment's table. Checked on each use. */
export type Handle = number;
/** Slot of a random generator in this environment's table. */
export type GeneratorHandle = number;
/** Slot of a mapped safetensors file in this environment's table. */
export type FileHandle = number;
/** Slot of a CUDA event in this environment's table. */
export type EventHandle = number;
/** Index of an operator overload in the process-wide registry. */
export type OpId = number;
export type TypedArray =
  | Float64Array
  | Float32Array
  | BigInt64Array
  | BigUint64Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray;

/**
 * A value as it crosses, read by the operator's schema:
 * - Tensor, Generator: the handle; None is null, and handle 0 where a tensor is optional.
 * - Scalar: a whole number within ±(2^53 - 1) is an integer, any other number (NaN, infinities, -0, 1e300) a float;
 *   a boolean; a bigint is an int64; `[x]` is x as a float, whole or not (`torch.float(1)`); `[re, im]` is complex.
 * - int, SymInt: a whole number or a bigint. float: a number, a bigint or `[x]`. A list of fixed length (`int[2]`) also takes
 *   one value for all its items.
 * - dtype, device, layout ("strided"), memory format ("channels_last"): torch's names.
 * Results come back the same way: int64 as a number when it is safe, else a bigint; complex as `[re, im]`; an undefined
 * tensor (a gradient that was not asked for) as null.
 */
export type Value = number | bigint | string | boolean | null | undefined | readonly Value[];

export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: string; // torch's name
  readonly shape: readonly number[];
  readonly begin: number; // bytes, within the data part
  readonly end: number;
}

/** A recorded function, held by the addon. Opaque; lives as long as this object. */
export type ProgramHandle = object & { readonly __program: never };

/** Blocks that take turns on a device, held by the addon. Opaque; lives as long as this object. */
export type StreamerHandle = object & { readonly __streamer: never };

export interface LimitedDeviceInfo {
  readonly name: string;
  readonly capacity: number; // bytes
  readonly used: number;
  readonly bandwidth: number; // bytes per second; 0: as memory is
  readonly bytes_copied: number;
}

export interface StreamerNumbers {
  /** Bytes of the blocks that were brought. */
  readonly bytes_moved: number;
  /** Bytes that came from the disk, as they were not in the page cache. */
  readonly disk_bytes: number;
  /** Blocks that were brought. */
  readonly loads: number;
  /** Blocks that were asked for, */
  readonly uses: number;
  /** and of these, not there yet. */
  readonly waits: number;
  /** Milliseconds in which somebody waited for a block. */
  readonly exposed_ms: number;
  /** Milliseconds in which blocks were brought and nobody waited. */
  readonly hidden_ms: number;
  /** Blocks that stay once they are there. */
  readonly resident_blocks: number;
  /** Slots that the others take turns in. */
  readonly slots: number;
  /** Bytes of all slots. */
  readonly room: number;
}

export interface Recording {
  readonly program: ProgramHandle;
  /** Tensors that the function used without getting them as arguments. */
  readonly captured: Handle[];
  /** Per operator of the Program, the number that it, or what it replaces, had in the recording. */
  readonly lines: number[];
  readonly draws: boolean;
}

export interface RunResult {
  /** Without owners. */
  readonly outputs: (Handle | null)[];
  /** Of a profiled run: begin and end of each operator, in nanoseconds since the run began. */
  readonly spans: number[];
}

export interface LoopResult {
  /** Those of all steps since the last time, one after the other. */
  readonly ids: number[];
  /** Steps made so far. */
  readonly steps: number;
  /** It has made as many as it may, and leaves its tensors alone. */
  readonly paused: boolean;
  /** It holds no tensors any more. */
  readonly ended: boolean;
  readonly cancelled: boolean;
  /** On a CUDA device: how many Programs are replayed as graphs, and why others are not ("" where all are). */
  readonly graphs: number;
  readonly noGraph: string;
  /** At the end: what the Programs that collect gave, one after the other, without owners. */
  readonly collected: (Handle | null)[];
}

export interface MemoryStats {
  readonly live_tensors: number; // handles alive in this environment
  readonly private_bytes: number; // CPU storages owned by the process, each counted once
  readonly mapped_bytes: number; // safetensors mappings
  readonly shared_bytes: number; // storages over JS buffers, or shared between environments
  readonly device_bytes: number;
  readonly heap_bytes: number; // handed out by malloc in this process, to libtorch and V8 too; 0 where it does not tell
  readonly sweeps: number;
}

/** Of the caching allocator of a device. An array has current, peak, allocated and freed: of all, of small, of large blocks. */
export interface DeviceMemory {
  readonly allocation: number[]; // counts
  readonly segment: number[];
  readonly active: number[];
  readonly inactive_split: number[];
  readonly allocated_bytes: number[];
  readonly reserved_bytes: number[];
  readonly active_bytes: number[];
  readonly inactive_split_bytes: number[];
  readonly requested_bytes: number[];
  readonly num_alloc_retries: number;
  readonly num_ooms: number;
  readonly num_device_alloc: number;
  readonly num_device_free: number;
}

export interface TensorInfo {
  readonly shape: number[];
  readonly dtype: string;
  readonly device: string;
  readonly requires_grad: boolean;
}

export interface Addon {
  // errors ------------------------------------------------------------------------------------------------
  /** Registers the one JS function that makes every error thrown by native code. */
  setErrorFactory(make: (code: string, message: string, hint: string | null) => Error): void;

  // op ----------------------------------------------------------------------------------------------------
  /** Looks an operator up by name ("aten::add") and overload ("Tensor" or ""). Throws ERR_OP when it does not exist. */
  findOp(name: string, overload: string): OpId;
  /**
   * Runs an operator. Arguments stand in the schema's order; `undefined` or a missing one takes the schema's default.
   * The items of an int[] may stand one by one, as in view(2, 3); every number from there on is one of them.
   * One fresh tensor as result: it is given to `owner` and its handle is returned.
   * An operator that writes its argument and returns it (`add_`, `out=`): returns undefined.
   * Anything else: the value, several results as an array, tensors inside as handles that wait for `adopt`. Among several
   * results those that were written arguments stand as undefined.
   * Errors start with the operator, "[aten::mm] …", and end with the tensors' dtypes and shapes.
   */
  call(op: OpId, owner: object | null, ...args: Value[]): Value;
  /**
   * Microseconds of one of `times` runs of the operator alone, without JavaScript between, for benchmarks; negative
   * where these arguments take the boxed call.
   */
  timeCall(op: OpId, times: number, ...args: Value[]): number;
  /** Gives a handle that `call` returned without owner to its JS object. */
  adopt(handle: Handle, owner: object): void;
  /** All schemas, in text, for the generator: one per overload, with its alias annotations. */
  listOps(): string[];

  // tensor: facts -----------------------------------------------------------------------------------------
  /** Registers the array that `shape` and `stride` leave their values in: they return how many there are. */
  setSizesArray(array: Float64Array): void;
  shape(handle: Handle): number;
  stride(handle: Handle): number;
  dim(handle: Handle): number;
  numel(handle: Handle): number;
  dtype(handle: Handle): string;
  device(handle: Handle): string;
  storageOffset(handle: Handle): number;
  elementSize(handle: Handle): number;
  isContiguous(handle: Handle, memoryFormat: string): boolean;
  version(handle: Handle): number;
  /** Same number = same storage; with its size in bytes. A meta storage has one too. */
  storage(handle: Handle): { id: number; nbytes: number };

  // tensor: data ------------------------------------------------------------------------------------------
  /** Copies a typed array in; `dtype` says what its bits are (bfloat16 and float16 come as Uint16Array, bool as Uint8Array). */
  fromData(owner: object, data: TypedArray, dtype: string, shape: readonly number[]): Handle;
  /** Shares the bytes of a buffer, which is kept alive. */
  fromBuffer(
    owner: object,
    data: TypedArray | SharedArrayBuffer | ArrayBuffer,
    dtype: string,
    shape: readonly number[],
    byteOffset: number,
  ): Handle;
  /** The values, contiguous, copied out. bfloat16, float16 and float8 become Float32Array unless `raw`. Complex: pairs. */
  toData(handle: Handle, raw: boolean): TypedArray;
  /** The single value: number, boolean, bigint (int64 beyond 2^53) or [re, im]. */
  item(handle: Handle): number | bigint | boolean | [number, number];

  // tensor: life ------------------------------------------------------------------------------------------
  dispose(handle: Handle): void;
  isDisposed(handle: Handle): boolean;
  /** A second handle on the same tensor (same identity for autograd), for another owner. */
  alias(owner: object, handle: Handle): Handle;
  /** The handle holds another tensor from now on: `param.data = …`, `to()`, offload. Keeps requires_grad and hooks. */
  rebind(handle: Handle, other: Handle): void;
  /** torch's `variable_data`: same storage, no history. */
  variableData(owner: object, handle: Handle): Handle;
  openScope(name: string): void;
  /** Ends the innermost scope: frees what was made in it, except what `keep` names and what was marked by `keep()`. */
  closeScope(keep: readonly Handle[]): void;
  keep(handle: Handle): void;
  /** Registers the function that makes V8 collect its young objects; it returns false when it can't. */
  setYoungCollector(collect: () => boolean): void;
  /** Frees tensors whose owners are garbage. Returns how many. */
  sweep(): number;
  memoryStats(): MemoryStats;
  /** A token that another environment of this process can claim once. */
  share(handle: Handle): number;
  fromShared(owner: object, token: number): Handle;

  // autograd ----------------------------------------------------------------------------------------------
  requiresGrad(handle: Handle): boolean;
  setRequiresGrad(handle: Handle, value: boolean): void;
  isLeaf(handle: Handle): boolean;
  gradFn(handle: Handle): string | null; // the node's name, "AddBackward0"
  outputNr(handle: Handle): number;
  /** The gradient, given to `owner`; 0 when there is none. */
  grad(owner: object, handle: Handle): Handle;
  setGrad(handle: Handle, grad: Handle): void; // 0 clears
  retainGrad(handle: Handle): void;
  backward(
    tensors: readonly Handle[],
    grads: readonly Handle[] | null,
    retainGraph: boolean,
    createGraph: boolean,
    inputs: readonly Handle[] | null,
  ): void;
  /** Gradients of the inputs, without owners; null where unused. */
  autogradGrad(
    outputs: readonly Handle[],
    grads: readonly Handle[] | null,
    inputs: readonly Handle[],
    retainGraph: boolean,
    createGraph: boolean,
    allowUnused: boolean,
  ): (Handle | null)[];
  /** `hook(handle)` gets the gradient as a handle without owner; returns a handle, or 0 for "unchanged". */
  registerHook(handle: Handle, hook: (grad: Handle) => Handle): number;
  /** Like registerHook, on the leaf, after its gradient is accumulated; the hook gets nothing and returns nothing. */
  registerPostAccumulateGradHook(handle: Handle, hook: () => void): number;
  removeHook(id: number): void;
  gradMode(): boolean;
  setGradMode(enabled: boolean): void;
  inferenceMode(): boolean;
  /** Nests; each push is undone by one pop. */
  pushInferenceMode(enabled: boolean): void;
  popInferenceMode(): void;
  autocast(deviceType: string): { enabled: boolean; dtype: string };
  setAutocast(deviceType: string, enabled: boolean, dtype: string): void;
  clearAutocastCache(): void;
  detectAnomaly(enabled: boolean): void;
  /**
   * From here to `closeCheckpoint` operators drop what they would save for backward. `forward` does the same once more, with
   * the inputs under handles without owners; it may end early by an error, which `checkpointStopped` then tells.
   */
  openCheckpoint(
    inputs: readonly Handle[],
    forward: (inputs: readonly Handle[]) => void,
    preserveRandom: boolean,
    earlyStop: boolean,
    check: boolean,
  ): void;
  closeCheckpoint(): void;
  checkpointStopped(): boolean;

  // device, threads, random -------------------------------------------------------------------------------
  deviceCount(type: string): number;
  deviceInfo(): {
    type: string;
    index: number;
    name: string;
    total_memory: number;
    free_memory: number;
    capability: string;
  }[];
  cpuCapability(): string;
  torchVersion(): string;
  buildInfo(): { napi: number; compiler: string; libtorch: string; sanitizer: string };
  synchronize(device: string): void;
  emptyCache(): void;
  /** Says why libtorch_cuda is not loaded, for messages; "" when it is. Once, by the loader. */
  noteCudaLibrary(absence: string): void;
  /** Opens the library for CUDA graphs, after libtorch_cuda. Returns why there are none, or "". */
  openCudaLibrary(path: string): string;
  /** Why no CUDA device can be used, one sentence each; empty when one can. */
  cudaReasons(): string[];

  // CUDA: -1 as `device` is the current one. All of these throw ERR_CUDA_UNAVAILABLE without a device. ----------
  currentDevice(): number;
  setDevice(device: number): void;
  deviceMemory(device: number): DeviceMemory;
  /** Sets the peaks to what is held now, or the accumulated counts to 0. */
  resetDeviceMemory(device: number, accumulated: boolean): void;
  /** Only before the allocator's first use. */
  setMemoryFraction(fraction: number): void;
  /** Streams are numbers per device; libtorch keeps them for ever. 0 is the default one. */
  currentStream(device: number): number;
  defaultStream(device: number): number;
  newStream(device: number, priority: number): number;
  setStream(device: number, stream: number): void;
  queryStream(device: number, stream: number): boolean;
  synchronizeStream(device: number, stream: number): void;
  recordStream(tensor: Handle, device: number, stream: number): void;
  newEvent(timing: boolean): EventHandle;
  dropEvent(event: EventHandle): void;
  recordEvent(event: EventHandle, device: number, stream: number): void;
  waitEvent(event: EventHandle, device: number, stream: number): void;
  queryEvent(event: EventHandle): boolean;
  synchronizeEvent(event: EventHandle): void;
  /** Milliseconds. */
  elapsedTime(start: EventHandle, end: EventHandle): number;
  getNumThreads(): number;
  setNumThreads(count: number): void;
  /** Before the process ends: runs are given up, and the operator under way is waited for. */
  endProcess(patience: number): void;
  /** Bytes of CPU tensors above 1 KiB that may be in use in the process; -1: no limit. */
  memoryLimit(): number;
  setMemoryLimit(bytes: number): void;
  /** Bytes of CPU tensors above 1 KiB in use in the process. */
  hostMemory(): number;
  setDeterministic(enabled: boolean, warnOnly: boolean): void;
  defaultDtype(): string;
  setDefaultDtype(dtype: string): void;
  /** A new generator of a device, given to `owner`; `defaultGenerator` the device's own. */
  newGenerator(owner: object, device: string): GeneratorHandle;
  defaultGenerator(device: string): GeneratorHandle;
  generatorDevice(generator: GeneratorHandle): string;
  generatorSeed(generator: GeneratorHandle, seed: bigint): void;
  generatorInitialSeed(generator: GeneratorHandle): bigint;
  generatorGetState(owner: object, generator: GeneratorHandle): Handle;
  generatorSetState(generator: GeneratorHandle, state: Handle): void;
  /** Seeds the default generators of all devices. */
  manualSeed(seed: bigint): void;

  // io ----------------------------------------------------------------------------------------------------
  /** Maps and checks a safetensors file. Reading the header happens off the event loop. */
  openSafetensors(path: string): Promise<{
    file: FileHandle;
    entries: SafetensorsEntry[];
    metadata: Record<string, string> | null;
    byteLength: number;
  }>;
  /** A tensor over the mapping (copy on write); copied when its address is not aligned. */
  safetensorsTensor(owner: object, file: FileHandle, index: number): Handle;
  /** Drops the table's reference; the mapping lives as long as its tensors. */
  closeSafetensors(file: FileHandle): void;
  /** Writes atomically: a temporary file beside `path`, fsync, rename. Tensors are read on another thread. */
  saveSafetensors(
    path: string,
    names: readonly string[],
    tensors: readonly Handle[],
    metadata: Readonly<Record<string, string>> | null,
  ): Promise<void>;

  /**
   * Fills `into[i]` from a part of tensor `indices[i]` of `files[i]`, by several threads, in the destination's dtype and on
   * its device. `views` holds a strided view per job: dimensions, offset, sizes, strides; elements of the file's tensor.
   */
  readTensors(
    files: readonly FileHandle[],
    indices: readonly number[],
    views: readonly number[],
    into: readonly Handle[],
  ): Promise<void>;
  /** Asks for the tensors' bytes to be in the page cache soon, in this order; returns at once. */
  readAhead(files: readonly FileHandle[], indices: readonly number[]): void;
  /** A file's bytes as a uint8 tensor over its mapping, copy on write. */
  mapBytes(owner: object, path: string): Handle;
  /** Lets two paths change places in one step. False where the file system cannot: then nothing has happened. */
  exchangePaths(a: string, b: string): boolean;
  /** Locks a file or folder for this process; -1 when another one holds it, else what `unlockPath` takes. */
  lockPath(path: string): number;
  unlockPath(lock: number): void;

  // placement ---------------------------------------------------------------------------------------------
  /** Takes the place of those that there were; a bandwidth of 0 is memory's own. */
  setLimitedDevices(capacities: readonly number[], bandwidths: readonly number[]): void;
  limitedDevices(): LimitedDeviceInfo[];
  /** A copy in a limited device's memory, once it is there. */
  copyToLimited(owner: object, device: number, handle: Handle): Handle;
  /** `device`: the number of a limited one, or -1: blocks are used where they lie. `numbers`: slots, depth, memory. */
  makeStreamer(
    device: number,
    blocks: readonly (readonly Handle[])[],
    numbers: readonly [slots: number, depth: number, memory: number],
    synchronous: boolean,
    letsGo: boolean,
  ): StreamerHandle;
  /** Waits for the block. Its tensors come without owners, and hold other values after `releaseBlock`. */
  acquireBlock(streamer: StreamerHandle, block: number): Handle[];
  releaseBlock(streamer: StreamerHandle, block: number): void;
  /** Tensors without memory that stand for a block's, without owners. */
  restingBlock(streamer: StreamerHandle, block: number): Handle[];
  isResting(handle: Handle): boolean;
  /** Where a tensor is when it is computed with: its device, unless it rests. */
  homeDevice(handle: Handle): string;
  /** Where a resting tensor's values come from, without an owner; null for any other tensor. */
  restingSource(handle: Handle): Handle | null;
  streamerNumbers(streamer: StreamerHandle): StreamerNumbers;
  closeStreamer(streamer: StreamerHandle): void;

  // programs ----------------------------------------------------------------------------------------------
  /**
   * From here on `call` records instead of computing: tensors become fakes (shapes without values). `lines` gets one
   * unformatted Error per operator. Reading values is ERR_TRACE meanwhile.
   */
  beginRecording(lines: Error[]): void;
  /** The fake that stands for an argument. All arguments come before the first operator. */
  recordInput(owner: object, handle: Handle): Handle;
  /** A generator among the arguments: in each run, that call's takes its place. */
  recordGenerator(generator: GeneratorHandle): void;
  /** The last recorded operator's argument is, in each run, the call's number `input`. */
  bindNumber(argument: number, input: number): void;
  /** `outputs` are fakes; `passes` the names of those that may rewrite the Program, all when undefined. */
  endRecording(outputs: readonly Handle[], passes: readonly string[] | undefined): Recording;
  /** Gives the recording up, if one is on. */
  abandonRecording(): void;
  /** While it is suspended, `call` computes: what comes of it is a constant of the recording. */
  suspendRecording(suspended: boolean): void;
  isFake(handle: Handle): boolean;
  /** Everything about tensors that a recording depends on, as text; says which share memory. */
  tensorsKey(handles: readonly Handle[]): string;
  /**
   * Queues a run on the executor; `id` is for `cancelRun`. null: a captured tensor no longer fits, record again; false:
   * gradients are there that the recording did not find, or the other way round. A failure has the number of its operator as
   * `instruction`; a cancelled run rejects with ERR_ABORTED.
   */
  runProgram(
    program: ProgramHandle,
    inputs: readonly Handle[],
    id: number,
    profiled: boolean,
    generators: readonly GeneratorHandle[],
    numbers: readonly number[],
  ): Promise<RunResult> | null | false;
  cancelRun(id: number): void;
  /** One line per operator. */
  programText(program: ProgramHandle): string[];

  // loops -------------------------------------------------------------------------------------------------
  /**
   * Runs Programs again and again: the first `first` of them once, as the first step, then the others as one step, until
   * `going` (one integer) is zero. `ids` (int64) is read after each step. `inputs` are written in place. The numbers are
   * how many steps it may make before it pauses, how many in all, milliseconds from now, and how many may be queued before
   * an earlier one's ids are read (Infinity: as the device needs); a draw without a generator
   * uses `generator`, or a copy of the default one that is written back at the end. false: as `runProgram`'s null.
   */
  startLoop(
    id: number,
    programs: readonly ProgramHandle[],
    inputs: readonly (readonly Handle[])[],
    collects: readonly boolean[],
    first: number,
    ids: Handle | null,
    going: Handle | null,
    limits: readonly [limit: number, most: number, milliseconds: number, ahead: number],
    generator: GeneratorHandle | null,
    quiet: boolean,
  ): boolean;
  /** While it is paused: other Programs, the first `first` of them for the next step, the others from then on. */
  replaceLoop(
    id: number,
    programs: readonly ProgramHandle[],
    inputs: readonly (readonly Handle[])[],
    collects: readonly boolean[],
    first: number,
  ): boolean;
  /**
   * What came since the last time, as soon as there is something. A failure has `stage` (number n of the first step's
   * Programs, or -1 - n of the others') and `instruction`. After the end, the id is forgotten.
   */
  nextOfLoop(id: number): Promise<LoopResult>;
  /** It may make `limit` steps in all. */
  allowLoop(id: number, limit: number): void;
  /** `forgets`: nobody will ask for its news. */
  cancelLoop(id: number, forgets: boolean): void;
}
