// Names what pictures show, one line each, several at a time.
//   node build/examples/image-classification/index.js FOLDER PICTURE…
import { pipeline } from "torchformers";

const [folder, ...pictures] = process.argv.slice(2);
if (folder === undefined || pictures.length === 0) throw new Error("Give a model and pictures.");

const classify = await pipeline("image-classification", folder);
for (const [i, labels] of (await classify(pictures, { top_k: 2, batch_size: 4 })).entries())
  console.log(pictures[i], labels.map(({ label, score }) => `${label} ${score.toFixed(3)}`).join(", "));
