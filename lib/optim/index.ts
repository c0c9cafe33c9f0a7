// torch.optim: optimizers and schedulers of their learning rates.

export { Adagrad, type AdagradOptions, RMSprop, type RMSpropOptions } from "./adagrad.ts";
export { Adam, type AdamOptions, AdamW } from "./adam.ts";
export * as lr_scheduler from "./lr_scheduler/index.ts";
export {
  type GroupOptions,
  Optimizer,
  type OptimizerStateDict,
  type ParamGroup,
  type ParamState,
  type Params,
} from "./optimizer.ts";
export { SGD, type SGDOptions } from "./sgd.ts";
