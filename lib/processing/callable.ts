// Objects that are called: `await tokenizer(texts)`, `await processor(images)`.

/**
 * Base class of objects that are also functions.
 *
 * The reference calls tokenizers and processors directly, so its documentation and ours read the same only if the
 * object itself can be called. The constructor therefore returns a function that has the class's prototype; fields,
 * `#private` state, `instanceof` and inheritance work on it as on any object. `length` and `name`, which every function
 * owns, are removed so that a class may define its own.
 */
export abstract class Callable {
  constructor() {
    const self = Object.setPrototypeOf((...inputs: unknown[]) => self._call(...inputs), new.target.prototype);
    delete self.length;
    delete self.name;
    // biome-ignore lint/correctness/noConstructorReturn: this is how the instance becomes a function
    return self;
  }

  /** What calling the object does. */
  abstract _call(...inputs: unknown[]): unknown;
}
