// Pictures into inputs: decoding, both backends, the processors, their files and registries.
import { readdirSync } from "node:fs";
import t from "tap";
import { fixture } from "../support/fixtures.js";
import { replay } from "../support/golden.js";

for (const folder of readdirSync(fixture("preprocessing"))) {
  if (folder !== "assets") await replay(t, `preprocessing/${folder}`);
}
