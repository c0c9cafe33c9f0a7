// Which streamers serve a model.
import type { BlockStreamer, OffloadStats } from "./block_streamer.ts";

const streamers = new WeakMap<object, BlockStreamer[]>();

/** Notes that a streamer brings parameters of `model`, for `offload_stats`. */
export function attachStreamer(model: object, streamer: BlockStreamer): void {
  streamers.set(model, [...(streamers.get(model) ?? []), streamer]);
}

/** The streamers of a model, in the order in which they came. */
export const streamersOf = (model: object): readonly BlockStreamer[] => streamers.get(model) ?? [];

/** Ends the streamers of a model, and forgets them. */
export function detachStreamers(model: object): void {
  for (const streamer of streamersOf(model)) streamer.dispose();
  streamers.delete(model);
}

/** What all streamers of a model did together; zeros for a model that is not offloaded. */
export function offloadStats(model: object): OffloadStats {
  const sum = {
    bytes_moved: 0,
    disk_bytes: 0,
    loads: 0,
    uses: 0,
    waits: 0,
    exposed_ms: 0,
    hidden_ms: 0,
    resident_blocks: 0,
    slots: 0,
    room: 0,
  };
  for (const streamer of streamersOf(model)) {
    const stats = streamer.stats();
    for (const key of Object.keys(sum) as (keyof OffloadStats)[]) sum[key] += stats[key];
  }
  return sum;
}
