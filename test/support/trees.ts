// Models of modules made from a description, for tests that compare with plans of the reference or with models that are whole.
import { nn, torch } from "torchformers";

export interface Spec {
  readonly class: string;
  /** Shape and dtype. */
  readonly parameters: Readonly<Record<string, readonly [number[], torch.Dtype]>>;
  /** Shape, dtype, and whether it is stored. */
  readonly buffers: Readonly<Record<string, readonly [number[], torch.Dtype, boolean]>>;
  readonly children: Readonly<Record<string, Spec>>;
}

const classes = new Map<string, typeof nn.Module>();

function classOf(name: string): typeof nn.Module {
  const made = classes.get(name) ?? { [name]: class extends nn.Module {} }[name];
  classes.set(name, made as typeof nn.Module);
  return made as typeof nn.Module;
}

/** The described tree, on the meta device. */
export function build({ class: name, parameters, buffers, children }: Spec): nn.Module {
  const module = new (classOf(name))();
  for (const [key, [shape, dtype]] of Object.entries(parameters)) {
    const data = torch.empty(shape, { dtype, device: "meta" });
    module.register_parameter(key, new nn.Parameter(data, data.is_floating_point()));
  }
  for (const [key, [shape, dtype, persistent]] of Object.entries(buffers))
    module.register_buffer(key, torch.empty(shape, { dtype, device: "meta" }), { persistent });
  for (const [key, child] of Object.entries(children)) module.add_module(key, build(child));
  return module;
}

/** Ties parameters: target name → source name. */
export function tied(model: nn.Module, ties: Readonly<Record<string, string>>): nn.Module {
  for (const [target, source] of Object.entries(ties)) {
    const dot = target.lastIndexOf(".");
    const owner = model.get_submodule(target.slice(0, Math.max(dot, 0))) as unknown as Record<
      string,
      unknown
    >;
    owner[target.slice(dot + 1)] = model.get_parameter(source);
  }
  Object.defineProperty(model, "all_tied_weights_keys", { value: ties });
  return model;
}
