import t from "tap";
import { compiled, replay } from "../../support/golden.js";

await replay(t, "models/sam");
await replay(t, "models/sam", { mode: compiled });
