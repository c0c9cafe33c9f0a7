// Paths below test/fixtures, from compiled tests in build/test too.

import { createRequire } from "node:module";
import { dirname, join } from "node:path";

/** The root of the checkout. */
export const root: string = dirname(createRequire(import.meta.url).resolve("torchformers/package.json"));

/** The path of a fixture: `fixture("models/llama")`. */
export const fixture = (name: string): string => join(root, "test/fixtures", name);
