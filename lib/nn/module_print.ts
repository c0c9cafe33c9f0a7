// A module as text: torch's own form, and a tree with the facts of each tensor.

import type { Tensor } from "../torch/index.ts";
import type { Module } from "./module.ts";

const indent = (text: string) => text.replaceAll("\n", "\n  ");

/** The tree as torch prints it. */
export function printModule(module: Module): string {
  return printWith(module, childLines(module));
}

/** Name, settings and the given lines for the children. */
export function printWith(module: Module, children: readonly string[]): string {
  const settings = module.extra_repr();
  const extra = settings === "" ? [] : settings.split("\n");
  const name = module._get_name();
  if (extra.length + children.length === 0) return `${name}()`;
  if (extra.length === 1 && children.length === 0) return `${name}(${extra[0]})`;
  return `${name}(\n  ${[...extra, ...children].join("\n  ")}\n)`;
}

function childLines(module: Module): string[] {
  return module._own_state().children.map(([name, child]) => `(${name}): ${indent(child.toString())}`);
}

/** The children of a list: neighbours that print alike share a line, "(0-1): 2 x Linear(…)". */
export function repeatedLines(children: readonly (readonly [string, Module])[]): string[] {
  return runs(children.map(([, child]) => child.toString())).map(({ start, count, text }) =>
    indent(count === 1 ? `(${start}): ${text}` : `(${start}-${start + count - 1}): ${count} x ${text}`),
  );
}

/** Equal neighbours, counted. */
function runs(texts: readonly string[]): { start: number; count: number; text: string }[] {
  const found: { start: number; count: number; text: string }[] = [];
  for (const [i, text] of texts.entries()) {
    const last = found.at(-1);
    if (last?.text === text) last.count++;
    else found.push({ start: i, count: 1, text });
  }
  return found;
}

/** `1536` → "1.5 KiB". */
export function printBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

const bytesOf = (tensor: Tensor) => tensor.numel() * tensor.element_size();

interface Node {
  readonly label: string;
  readonly nodes: readonly (readonly [string, Node])[];
}

/** The tree of modules and tensors down to `depth` levels; repeated layers are shown once. */
export function summarize(module: Module, depth: number): string {
  const tensors = [...module.parameters(), ...module.buffers()];
  const parameters = [...module.parameters()].reduce((sum, parameter) => sum + parameter.numel(), 0);
  const kinds = (values: Iterable<string>) => [...new Set(values)].join(", ");
  const facts = [
    `${parameters.toLocaleString("en-US")} parameters`,
    printBytes(tensors.reduce((sum, tensor) => sum + bytesOf(tensor), 0)),
    kinds(tensors.map((tensor) => tensor.dtype)),
    kinds(tensors.map((tensor) => tensor.device)),
  ];
  const { label, nodes } = describe(module, depth);
  return [`${label}  ${facts.filter((fact) => fact !== "").join(" · ")}`, ...draw(nodes, "")].join("\n");
}

function describe(module: Module, depth: number): Node {
  const settings = module.extra_repr().replaceAll("\n", ", ");
  const label = settings === "" ? module._get_name() : `${module._get_name()}(${settings})`;
  if (depth <= 0) return { label, nodes: [] };
  const { parameters, buffers, children } = module._own_state();
  const leaves = [...parameters, ...buffers].map(([name, tensor]): [string, Node] => [
    name,
    {
      label: `[${tensor.shape.join(", ")}] ${tensor.dtype} ${tensor.device} ${printBytes(bytesOf(tensor))}`,
      nodes: [],
    },
  ]);
  return {
    label,
    nodes: [...leaves, ...merge(children.map(([name, child]) => [name, describe(child, depth - 1)]))],
  };
}

/** Numbered neighbours that look alike become one entry, "0-31" with "32 × …". */
function merge(children: readonly [string, Node][]): [string, Node][] {
  const texts = children.map(([name, node]) => (/^\d+$/.test(name) ? JSON.stringify(node) : name));
  return runs(texts).map(({ start, count }) => {
    const [name, node] = children[start] as [string, Node];
    if (count === 1) return [name, node];
    const [last] = children[start + count - 1] as [string, Node];
    return [`${name}-${last}`, { ...node, label: `${count} × ${node.label}` }];
  });
}

function draw(nodes: Node["nodes"], margin: string): string[] {
  return nodes.flatMap(([name, { label, nodes: inner }], i) => {
    const last = i === nodes.length - 1;
    return [
      `${margin}${last ? "└─ " : "├─ "}${name}: ${label}`,
      ...draw(inner, margin + (last ? "   " : "│  ")),
    ];
  });
}
