// Sends the model in ./model to the hub: npm run push -- user/my-model
import { MyModelForImageClassification } from "./index.ts";

const [repository] = process.argv.slice(2);
if (repository === undefined) {
  console.error("Which repository? npm run push -- user/my-model");
  process.exit(2);
}
const model = await MyModelForImageClassification.from_pretrained("./model");
const { url } = await model.push_to_hub(repository);
console.log(url);
