export interface PrintMethods {
  /** The tensor as torch prints it. */
  toString(): string;
}
