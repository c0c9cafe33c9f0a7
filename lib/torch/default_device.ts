// Where tensors are made when no device is given; undefined is the CPU.
export const defaultDevice: { name: string | undefined } = { name: undefined };
