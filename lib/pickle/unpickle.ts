// Reads pickles that hold tensors, dicts, lists, tuples, numbers and strings, and nothing else. A pickle is a program for a
// stack machine that can call anything; this reader knows the instructions that build plain data, and a closed list of names
// whose calls it answers itself. Anything else ends the reading: nothing of a file is ever run.
import { CheckpointError } from "../errors/index.ts";
import { asDtype, isDtype } from "../torch/dtype.ts";
import type { Dtype } from "../torch/index.ts";

/** A tuple, which pickles tell from a list. */
export class Tuple {
  readonly items: readonly Value[];
  constructor(items: readonly Value[]) {
    this.items = items;
  }
}

/** Bytes that tensors lie in, by the key under which the file keeps them. */
export interface StorageRef {
  readonly kind: "storage";
  readonly key: string;
  /** uint8 for storage without a type. */
  readonly dtype: Dtype;
  /** In elements. */
  readonly length: number;
  /** In elements, for a part of a storage. */
  readonly offset: number;
}

/** A tensor whose values are still in the file. */
export interface TensorRef {
  readonly kind: "tensor";
  readonly storage: StorageRef;
  readonly dtype: Dtype;
  /** In elements of `dtype`. */
  readonly offset: number;
  readonly size: readonly number[];
  readonly stride: readonly number[];
}

/** A name that the pickle mentions, from the closed list. */
interface Global {
  readonly kind: "global";
  readonly name: string;
}

export type Dict = Map<Value, Value>;
export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | Value[]
  | Tuple
  | Dict
  | StorageRef
  | TensorRef
  | Global;

const STORAGES: Readonly<Record<string, Dtype>> = {
  FloatStorage: "float32",
  DoubleStorage: "float64",
  HalfStorage: "float16",
  BFloat16Storage: "bfloat16",
  LongStorage: "int64",
  IntStorage: "int32",
  ShortStorage: "int16",
  CharStorage: "int8",
  ByteStorage: "uint8",
  BoolStorage: "bool",
  ComplexFloatStorage: "complex64",
  ComplexDoubleStorage: "complex128",
};

const REBUILD = "torch._utils._rebuild_";
const CALLABLE = new Set([
  "collections.OrderedDict",
  "torch.Size",
  `${REBUILD}tensor`,
  `${REBUILD}tensor_v2`,
  `${REBUILD}tensor_v3`,
  `${REBUILD}parameter`,
]);
const UNTYPED = new Set(["torch.storage.UntypedStorage", "torch.UntypedStorage"]);
const MOST_DIMENSIONS = 64;
/** More items than any checkpoint has: what a hostile file may make us hold. */
const MOST_VALUES = 50_000_000;
const MARK = Symbol("mark");

const isKnown = (name: string) =>
  CALLABLE.has(name) ||
  UNTYPED.has(name) ||
  (name.startsWith("torch.") && (Object.hasOwn(STORAGES, name.slice(6)) || isDtype(name.slice(6))));

export const isTensor = (value: Value | undefined): value is TensorRef =>
  typeof value === "object" && value !== null && "kind" in value && value.kind === "tensor";

const isGlobal = (value: Value | undefined): value is Global =>
  typeof value === "object" && value !== null && "kind" in value && value.kind === "global";

const isStorage = (value: Value | undefined): value is StorageRef =>
  typeof value === "object" && value !== null && "kind" in value && value.kind === "storage";

/** Reads the pickle that begins at `start`; gives its value and where it ends. */
export function unpickle(
  bytes: Uint8Array,
  file: string,
  start = 0,
): { readonly value: Value; readonly end: number } {
  const reader = new Unpickler(bytes, file, start);
  return { value: reader.run(), end: reader.at };
}

class Unpickler {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #file: string;
  readonly #stack: (Value | typeof MARK)[] = [];
  readonly #memo = new Map<number, Value>();
  #values = 0;
  at: number;

  constructor(bytes: Uint8Array, file: string, start: number) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#file = file;
    this.at = start;
  }

  run(): Value {
    for (;;) {
      const opcode = this.#bytes[this.#skip(1)] as number;
      if (opcode === 0x2e) return this.#end(); // STOP
      this.#step(opcode);
      if (++this.#values > MOST_VALUES) throw this.#fail("it holds too much");
    }
  }

  #end(): Value {
    const value = this.#pop();
    if (this.#stack.length > 0) throw this.#fail("it ends with values left over");
    return value;
  }

  /** One instruction, by its byte: the protocol's own letters and numbers. */
  #step(opcode: number): void {
    switch (opcode) {
      case 0x80: // PROTO
        if ((this.#bytes[this.#skip(1)] as number) > 5) throw this.#fail("its protocol is unknown");
        break;
      case 0x95: // FRAME
        this.#skip(8);
        break;
      case 0x28: // MARK
        this.#stack.push(MARK);
        break;
      case 0x4e: // NONE
        this.#stack.push(null);
        break;
      case 0x88: // NEWTRUE
        this.#stack.push(true);
        break;
      case 0x89: // NEWFALSE
        this.#stack.push(false);
        break;
      case 0x4a: // BININT
        this.#stack.push(this.#view.getInt32(this.#skip(4), true));
        break;
      case 0x4b: // BININT1
        this.#stack.push(this.#bytes[this.#skip(1)] as number);
        break;
      case 0x4d: // BININT2
        this.#stack.push(this.#view.getUint16(this.#skip(2), true));
        break;
      case 0x8a: // LONG1
        this.#stack.push(this.#long(this.#bytes[this.#skip(1)] as number));
        break;
      case 0x47: // BINFLOAT
        this.#stack.push(this.#view.getFloat64(this.#skip(8), false));
        break;
      case 0x58: // BINUNICODE
        this.#stack.push(this.#text(this.#view.getUint32(this.#skip(4), true)));
        break;
      case 0x8c: // SHORT_BINUNICODE
      case 0x55: // SHORT_BINSTRING
        this.#stack.push(this.#text(this.#bytes[this.#skip(1)] as number));
        break;
      case 0x8d: // BINUNICODE8
        this.#stack.push(this.#text(Number(this.#view.getBigUint64(this.#skip(8), true))));
        break;
      case 0x5d: // EMPTY_LIST
        this.#stack.push([]);
        break;
      case 0x61: // APPEND
        this.#append([this.#pop()]);
        break;
      case 0x65: // APPENDS
        this.#append(this.#popMark());
        break;
      case 0x7d: // EMPTY_DICT
        this.#stack.push(new Map());
        break;
      case 0x73: {
        // SETITEM
        const value = this.#pop();
        this.#setItems([this.#pop(), value]);
        break;
      }
      case 0x75: // SETITEMS
        this.#setItems(this.#popMark());
        break;
      case 0x29: // EMPTY_TUPLE
        this.#stack.push(new Tuple([]));
        break;
      case 0x74: // TUPLE
        this.#stack.push(new Tuple(this.#popMark()));
        break;
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        this.#stack.push(new Tuple(this.#popSome(opcode - 0x84)));
        break;
      case 0x71: // BINPUT
        this.#memo.set(this.#bytes[this.#skip(1)] as number, this.#top());
        break;
      case 0x72: // LONG_BINPUT
        this.#memo.set(this.#view.getUint32(this.#skip(4), true), this.#top());
        break;
      case 0x94: // MEMOIZE
        this.#memo.set(this.#memo.size, this.#top());
        break;
      case 0x68: // BINGET
        this.#stack.push(this.#remembered(this.#bytes[this.#skip(1)] as number));
        break;
      case 0x6a: // LONG_BINGET
        this.#stack.push(this.#remembered(this.#view.getUint32(this.#skip(4), true)));
        break;
      case 0x63: // GLOBAL
        this.#stack.push(this.#global(`${this.#line()}.${this.#line()}`));
        break;
      case 0x93: {
        // STACK_GLOBAL
        const [module, name] = this.#popSome(2);
        this.#stack.push(this.#global(`${module}.${name}`));
        break;
      }
      case 0x51: // BINPERSID
        this.#stack.push(this.#storage(this.#pop()));
        break;
      case 0x52: {
        // REDUCE
        const [callable, args] = this.#popSome(2);
        this.#stack.push(this.#call(callable, args));
        break;
      }
      case 0x62: // BUILD
        // The attributes of an OrderedDict, such as a state dict's versions of modules.
        this.#pop();
        if (!(this.#top() instanceof Map)) throw this.#fail("it sets attributes of an object");
        break;
      default:
        throw this.#fail(
          `instruction 0x${opcode.toString(16).padStart(2, "0")} makes no tensor, number, text or list`,
        );
    }
  }

  #fail(reason: string): CheckpointError {
    return new CheckpointError(`'${this.#file}' is refused at byte ${this.at} of its pickle: ${reason}.`, {
      hint: "Only tensors, dicts, lists, tuples, numbers and strings are read. Nothing in the file was run.",
    });
  }

  /** Moves on by `length` bytes; gives where they begin. */
  #skip(length: number): number {
    const begin = this.at;
    if (!(length <= this.#bytes.length - begin)) throw this.#fail("it ends early");
    this.at += length;
    return begin;
  }

  #text(length: number): string {
    const begin = this.#skip(length);
    return new TextDecoder().decode(this.#bytes.subarray(begin, begin + length));
  }

  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.at);
    if (end < 0 || end - this.at > 1000) throw this.#fail("a name has no end");
    const text = this.#text(end - this.at);
    this.#skip(1);
    return text;
  }

  #long(length: number): number | bigint {
    const begin = this.#skip(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#bytes[begin + i] as number);
    if (length > 0 && (this.#bytes[begin + length - 1] as number) >= 0x80) value -= 1n << BigInt(8 * length);
    const small = Number(value);
    return Number.isSafeInteger(small) ? small : value;
  }

  #pop(): Value {
    const value = this.#stack.pop();
    if (value === undefined || value === MARK) throw this.#fail("its stack is empty");
    return value as Value;
  }

  #popSome(count: number): Value[] {
    const values: Value[] = [];
    for (let i = 0; i < count; i++) values.unshift(this.#pop());
    return values;
  }

  #popMark(): Value[] {
    const mark = this.#stack.lastIndexOf(MARK);
    if (mark < 0) throw this.#fail("a mark is missing");
    return this.#stack.splice(mark).slice(1) as Value[];
  }

  #top(): Value {
    const value = this.#stack.at(-1);
    if (value === undefined || value === MARK) throw this.#fail("its stack is empty");
    return value as Value;
  }

  #remembered(index: number): Value {
    const value = this.#memo.get(index);
    if (value === undefined) throw this.#fail(`it refers to value ${index}, which there is not`);
    return value;
  }

  #append(values: readonly Value[]): void {
    const list = this.#top();
    if (!Array.isArray(list)) throw this.#fail("it appends to what is no list");
    for (const value of values) list.push(value);
  }

  #setItems(items: readonly Value[]): void {
    const dict = this.#top();
    if (!(dict instanceof Map) || items.length % 2 !== 0)
      throw this.#fail("it sets an item of what is no dict");
    for (let i = 0; i < items.length; i += 2) dict.set(items[i] as Value, items[i + 1] as Value);
  }

  #global(name: string): Global {
    if (!isKnown(name)) throw this.#fail(`it wants '${name}', which is no kind of tensor`);
    return { kind: "global", name };
  }

  #call(callable: Value | undefined, args: Value | undefined): Value {
    if (!isGlobal(callable) || !(args instanceof Tuple)) throw this.#fail("it calls what cannot be called");
    const { items } = args;
    switch (callable.name) {
      case "collections.OrderedDict":
        return this.#ordered(items);
      case "torch.Size":
        if (items.length === 1 && (Array.isArray(items[0]) || items[0] instanceof Tuple))
          return new Tuple(Array.isArray(items[0]) ? items[0] : items[0].items);
        break;
      case `${REBUILD}parameter`:
        if (isTensor(items[0])) return items[0];
        break;
      case `${REBUILD}tensor`:
      case `${REBUILD}tensor_v2`:
        return this.#tensor(items, undefined);
      case `${REBUILD}tensor_v3`:
        return this.#tensor(items, this.#dtype(items[6]));
    }
    throw this.#fail(`it calls '${callable.name}' in a way that is not known`);
  }

  #ordered(items: readonly Value[]): Dict {
    const dict: Dict = new Map();
    if (items.length === 0) return dict;
    const [pairs] = items;
    if (items.length > 1 || !Array.isArray(pairs))
      throw this.#fail("an OrderedDict is not made of a list of pairs");
    for (const pair of pairs) {
      const values = pair instanceof Tuple ? pair.items : pair;
      if (!Array.isArray(values) || values.length !== 2)
        throw this.#fail("an OrderedDict's item is not a pair");
      dict.set(values[0] as Value, values[1] as Value);
    }
    return dict;
  }

  #dtype(value: Value | undefined): Dtype {
    if (!isGlobal(value) || !isDtype(value.name.slice(6))) throw this.#fail("a tensor's dtype is not known");
    return asDtype(value.name);
  }

  /** The storage that a persistent id names: ("storage", type, key, location, length[, (key, offset, length)]). */
  #storage(id: Value): StorageRef {
    const items = id instanceof Tuple ? id.items : [];
    const [what, type, key, location, length, view] = items;
    const known =
      what === "storage" &&
      isGlobal(type) &&
      (typeof key === "string" || typeof key === "number") &&
      typeof location === "string" &&
      (items.length === 5 || items.length === 6);
    if (!known) throw this.#fail("it refers to something outside of it that is no storage");
    const dtype = UNTYPED.has(type.name) ? "uint8" : STORAGES[type.name.slice(6)];
    if (dtype === undefined) throw this.#fail(`'${type.name}' is no storage`);
    let [offset, elements] = [0, this.#size(length)];
    if (view instanceof Tuple) {
      offset = this.#size(view.items[1]);
      elements = this.#size(view.items[2]);
    } else if (view !== undefined && view !== null)
      throw this.#fail("a part of a storage is not described as one");
    return { kind: "storage", key: String(key), dtype, length: elements, offset };
  }

  #size(value: Value | undefined): number {
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
    throw this.#fail("a size or offset is not a whole number");
  }

  #sizes(value: Value | undefined): number[] {
    const items = value instanceof Tuple ? value.items : Array.isArray(value) ? value : undefined;
    if (items === undefined || items.length > MOST_DIMENSIONS)
      throw this.#fail("a shape is not a tuple of numbers");
    return items.map((item) => this.#size(item));
  }

  /** (storage, offset, size, stride, …) */
  #tensor(items: readonly Value[], given: Dtype | undefined): TensorRef {
    const [storage] = items;
    if (!isStorage(storage) || items.length < 4) throw this.#fail("a tensor has no storage");
    const [size, stride] = [this.#sizes(items[2]), this.#sizes(items[3])];
    if (size.length !== stride.length) throw this.#fail("a tensor's shape and strides differ in length");
    return {
      kind: "tensor",
      storage,
      dtype: given ?? storage.dtype,
      offset: this.#size(items[1]),
      size,
      stride,
    };
  }
}
