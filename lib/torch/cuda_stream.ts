// Streams and events of CUDA devices.
import { addon } from "../addon/loader.ts";
import { scoped } from "./autograd.ts";
import { type CudaDevice, cudaIndex } from "./cuda_device.ts";
import type { Tensor } from "./tensor.ts";

export interface StreamOptions {
  /** Default: the current device. */
  readonly device?: CudaDevice | undefined;
  /** Lower is more urgent; default 0. */
  readonly priority?: number | undefined;
}

/** A handle that the constructors take from our own functions only. */
interface Known {
  readonly index: number;
  readonly id: number;
}

/**
 * A queue of work on a device: what one stream holds runs in order, several run side by side.
 *
 * @throws CudaUnavailableError without a device
 * @example
 * const side = new torch.cuda.Stream();
 * side.wait_stream(torch.cuda.current_stream());
 * const y = torch.cuda.stream(side, () => x.matmul(w));
 * torch.cuda.current_stream().wait_stream(side);
 */
export class Stream {
  readonly device_index: number;
  readonly stream_id: number;

  constructor({ device, priority = 0 }: StreamOptions = {}, known?: Known) {
    const index = known?.index ?? cudaIndex(device, "Stream");
    this.device_index = index < 0 ? addon().currentDevice() : index;
    this.stream_id = known?.id ?? addon().newStream(this.device_index, priority);
  }

  get device(): string {
    return `cuda:${this.device_index}`;
  }

  /** Whether all that was queued is done. */
  query(): boolean {
    return addon().queryStream(this.device_index, this.stream_id);
  }

  /** Waits, in this thread, until all that was queued is done. */
  synchronize(): void {
    addon().synchronizeStream(this.device_index, this.stream_id);
  }

  /** What is queued here from now on waits for the event. */
  wait_event(event: Event): void {
    event.wait(this);
  }

  /** What is queued here from now on waits for what `other` holds now. */
  wait_stream(other: Stream): void {
    this.wait_event(other.record_event());
  }

  /** Marks this point of the queue. */
  record_event(event: Event = new Event()): Event {
    event.record(this);
    return event;
  }
}

function known(device: CudaDevice | undefined, caller: string, id: (index: number) => number): Stream {
  const index = cudaIndex(device, caller);
  const concrete = index < 0 ? addon().currentDevice() : index;
  return new Stream({}, { index: concrete, id: id(concrete) });
}

/** The stream that this thread queues work on. */
export const current_stream = (device?: CudaDevice): Stream =>
  known(device, "current_stream", (index) => addon().currentStream(index));

/** The stream that a device has from the start. */
export const default_stream = (device?: CudaDevice): Stream =>
  known(device, "default_stream", (index) => addon().defaultStream(index));

/** Makes a stream, and its device, the current ones of this thread. */
export function set_stream(stream: Stream): void {
  addon().setDevice(stream.device_index);
  addon().setStream(stream.device_index, stream.stream_id);
}

/**
 * Queues what a callback does on a stream, and returns its result; device and stream are as before afterwards.
 *
 * @throws InvalidArgumentError when the callback returns a promise
 */
export function stream<T>(stream: Stream, body: () => T): T {
  const native = addon();
  const device = native.currentDevice();
  const before = native.currentStream(stream.device_index);
  return scoped(
    "cuda.stream",
    () => set_stream(stream),
    () => {
      native.setStream(stream.device_index, before);
      native.setDevice(device);
    },
    body,
  );
}

/** Keeps a tensor's memory from reuse until what is queued on the stream now is done: for tensors made on another one. */
export const record_stream = (tensor: Tensor, stream: Stream): void =>
  addon().recordStream(tensor._handle, stream.device_index, stream.stream_id);

export interface EventOptions {
  /** Needed for `elapsed_time`; default false. */
  readonly enable_timing?: boolean | undefined;
}

const dropped = new FinalizationRegistry<number>((handle) => addon().dropEvent(handle));

/**
 * A point in a stream's queue, to wait for or to measure from.
 *
 * @throws CudaUnavailableError without a device
 * @example
 * const [start, end] = [1, 2].map(() => new torch.cuda.Event({ enable_timing: true }));
 * start.record(); work(); end.record();
 * end.synchronize();
 * start.elapsed_time(end); // milliseconds
 */
export class Event {
  readonly _handle: number;

  constructor({ enable_timing = false }: EventOptions = {}) {
    this._handle = addon().newEvent(enable_timing);
    dropped.register(this, this._handle);
  }

  /** Marks the end of what a stream holds now; default: the current stream. */
  record(stream: Stream = current_stream()): void {
    addon().recordEvent(this._handle, stream.device_index, stream.stream_id);
  }

  /** What is queued on the stream from now on waits for the event. */
  wait(stream: Stream = current_stream()): void {
    addon().waitEvent(this._handle, stream.device_index, stream.stream_id);
  }

  /** Whether it has been reached. */
  query(): boolean {
    return addon().queryEvent(this._handle);
  }

  /** Waits, in this thread, until it has been reached. */
  synchronize(): void {
    addon().synchronizeEvent(this._handle);
  }

  /** Milliseconds from this event to another; both need `enable_timing`, and must have been reached. */
  elapsed_time(end: Event): number {
    return addon().elapsedTime(this._handle, end._handle);
  }
}
