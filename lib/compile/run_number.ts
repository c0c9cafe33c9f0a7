// Numbers of runs and loops: they say which was called first.

let last = 0;

/** The number of the next run or loop of this environment. */
export const nextRun = (): number => ++last;
