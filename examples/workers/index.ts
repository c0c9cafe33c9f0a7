// A worker thread computes on this thread's tensor, in the same memory: a token goes over, not the bytes.
//   node build/examples/workers/index.js
import { once } from "node:events";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { torch } from "torchformers";

if (isMainThread) {
  const weights = torch.arange(6, { dtype: "float32" }).view(2, 3);
  const worker = new Worker(new URL(import.meta.url), { workerData: weights.share() });
  const [answer] = await once(worker, "message");
  const norms = torch.from_shared(answer);
  console.log(weights.toString()); // doubled in place by the worker
  console.log(norms.toString());
  await worker.terminate();
} else {
  const weights = torch.from_shared(workerData);
  weights.mul_(2);
  parentPort?.postMessage(torch.linalg.norm(weights, { dim: 1 }).share());
}
