// Padding as modules. Sizes are pairs (before, after), the last dimension first; one number stands for all.

import type { Tensor } from "../torch/index.ts";
import { type Arguments, bind, ntuple, REQUIRED, type Sizes } from "./arguments.ts";
import type { PaddingMode } from "./functional/padding.ts";
import * as F from "./functional.ts";
import { Module } from "./module.ts";
import { py } from "./repr.ts";

type Padding = Arguments<[padding: Sizes], ["padding"]>;
const PADDING = { padding: REQUIRED as Sizes };

abstract class _Pad extends Module {
  readonly padding: readonly number[];
  protected abstract readonly mode: PaddingMode;

  constructor(dims: number, args: Padding) {
    super();
    const { padding } = bind(new.target.name, args, PADDING);
    this.padding = ntuple(padding, 2 * dims);
  }

  override forward(x: Tensor): Tensor {
    return F.pad(x, this.padding, this.mode);
  }

  override extra_repr(): string {
    return py(this.padding);
  }
}

type PaddingAndValue = Arguments<[padding: Sizes, value: number], ["padding", "value"]>;

abstract class _ConstantPad extends _Pad {
  readonly value: number;

  constructor(dims: number, args: PaddingAndValue) {
    const { padding, value } = bind(new.target.name, args, { ...PADDING, value: REQUIRED as number });
    super(dims, [padding]);
    this.value = value;
  }

  protected get mode(): PaddingMode {
    return "constant";
  }

  override forward(x: Tensor): Tensor {
    return F.pad(x, this.padding, this.mode, this.value);
  }

  override extra_repr(): string {
    return `padding=${py(this.padding)}, value=${py(this.value)}`;
  }
}

/** Puts `value` around [..., length]. */
export class ConstantPad1d extends _ConstantPad {
  constructor(...args: PaddingAndValue) {
    super(1, args);
  }
}

/** Puts `value` around [..., height, width]. */
export class ConstantPad2d extends _ConstantPad {
  constructor(...args: PaddingAndValue) {
    super(2, args);
  }
}

/** Puts `value` around [..., depth, height, width]. */
export class ConstantPad3d extends _ConstantPad {
  constructor(...args: PaddingAndValue) {
    super(3, args);
  }
}

abstract class _ZeroPad extends _ConstantPad {
  constructor(dims: number, args: Padding) {
    super(dims, [bind(new.target.name, args, PADDING).padding, 0]);
  }

  override extra_repr(): string {
    return py(this.padding);
  }
}

/** Puts zeros around [..., length]. */
export class ZeroPad1d extends _ZeroPad {
  constructor(...args: Padding) {
    super(1, args);
  }
}

/** Puts zeros around [..., height, width]. */
export class ZeroPad2d extends _ZeroPad {
  constructor(...args: Padding) {
    super(2, args);
  }
}

/** Puts zeros around [..., depth, height, width]. */
export class ZeroPad3d extends _ZeroPad {
  constructor(...args: Padding) {
    super(3, args);
  }
}

abstract class _ReflectionPad extends _Pad {
  protected get mode(): PaddingMode {
    return "reflect";
  }
}

/** Mirrors the input at its edges, without repeating them. */
export class ReflectionPad1d extends _ReflectionPad {
  constructor(...args: Padding) {
    super(1, args);
  }
}

/** Mirrors [batch, channels, height, width] at its edges. */
export class ReflectionPad2d extends _ReflectionPad {
  constructor(...args: Padding) {
    super(2, args);
  }
}

/** Mirrors [batch, channels, depth, height, width] at its edges. */
export class ReflectionPad3d extends _ReflectionPad {
  constructor(...args: Padding) {
    super(3, args);
  }
}

abstract class _ReplicationPad extends _Pad {
  protected get mode(): PaddingMode {
    return "replicate";
  }
}

/** Repeats the entries at the edges. */
export class ReplicationPad1d extends _ReplicationPad {
  constructor(...args: Padding) {
    super(1, args);
  }
}

/** Repeats the edges of [batch, channels, height, width]. */
export class ReplicationPad2d extends _ReplicationPad {
  constructor(...args: Padding) {
    super(2, args);
  }
}

/** Repeats the edges of [batch, channels, depth, height, width]. */
export class ReplicationPad3d extends _ReplicationPad {
  constructor(...args: Padding) {
    super(3, args);
  }
}

abstract class _CircularPad extends _Pad {
  protected get mode(): PaddingMode {
    return "circular";
  }
}

/** Goes on at the other end. */
export class CircularPad1d extends _CircularPad {
  constructor(...args: Padding) {
    super(1, args);
  }
}

/** Continues [batch, channels, height, width] with its other end. */
export class CircularPad2d extends _CircularPad {
  constructor(...args: Padding) {
    super(2, args);
  }
}

/** Continues [batch, channels, depth, height, width] with its other end. */
export class CircularPad3d extends _CircularPad {
  constructor(...args: Padding) {
    super(3, args);
  }
}
