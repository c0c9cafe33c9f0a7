// npm start [-- "some prompt"]: sets up what is missing, then lets the demo model continue a prompt.

import { prepare } from "./prepare.mjs";

await prepare();
const { demo } = await import("./demo.mjs");
await demo(process.argv.slice(2).join(" ") || undefined);
