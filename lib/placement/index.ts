// Where parts of a model lie, and how they come to where they are computed with.
import { recording } from "../compile/session.ts";

export { type LimitedDeviceOptions, limited_devices } from "../torch/limited_devices.ts";
export { type Block, BlockStreamer, type BlockStreamerOptions, type OffloadStats } from "./block_streamer.ts";
export { isLimitedDevice, PlacementDevice } from "./device.ts";
export { attachStreamer, detachStreamers, offloadStats, streamersOf } from "./offloaded.ts";
export { home_device, is_resting, resting_source } from "./resting.ts";

/** Whether a function is being recorded: hooks leave parameters alone then, a run brings them by itself. */
export const isRecording = (): boolean => recording() !== undefined;
