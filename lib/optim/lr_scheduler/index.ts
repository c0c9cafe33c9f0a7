// torch.optim.lr_scheduler.

export { ChainedScheduler, type PlateauOptions, ReduceLROnPlateau, SequentialLR } from "./composed.ts";
export * from "./cosine.ts";
export { CyclicLR, type CyclicOptions, OneCycleLR, type OneCycleOptions } from "./cycles.ts";
export { type Group, type LastEpoch, LRScheduler, type SchedulerState } from "./scheduler.ts";
export * from "./simple.ts";
