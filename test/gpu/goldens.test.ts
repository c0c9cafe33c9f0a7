// Every model's and every way of generating's golden checks, on the device.
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { device, onCuda, TOLERANCE } from "../support/device.js";
import { fixture } from "../support/fixtures.js";
import { type Check, replay } from "../support/golden.js";
import { notYet } from "../support/not_yet.js";

/** Other devices draw other numbers from the same seed: what is drawn is compared by random.test.ts. */
const skip = (check: Check) =>
  notYet(check) ??
  (onCuda && check.options["do_sample"] === true ? "its numbers were drawn on a CPU" : undefined);

const folders = ["models", "generate"].flatMap((kind) =>
  readdirSync(fixture(kind))
    .map((name) => `${kind}/${name}`)
    .filter((folder) => existsSync(join(fixture(folder), "golden.json"))),
);

for (const folder of [...folders, "demo-llama"])
  t.test(folder, (t) => replay(t, folder, { device, atLeast: TOLERANCE, skip }));
