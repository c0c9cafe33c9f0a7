import t from "tap";
import { compiled, replay } from "../../support/golden.js";

await replay(t, "models/vit");
await replay(t, "models/vit", { mode: compiled });
