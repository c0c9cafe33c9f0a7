import t from "tap";
import { compiled, replay } from "../../support/golden.js";

await replay(t, "models/resnet");
await replay(t, "models/resnet", { mode: compiled });
