// Entry of a tokenizer's own thread: loads the file named in `workerData` and answers calls, in order of completion.

import { parentPort, workerData } from "node:worker_threads";
import { packEncoding, packedBuffers } from "./encoding.ts";
import { NativeBackend } from "./native_backend.ts";
import { type Answer, type Call, describeError, type Question } from "./tokenizer_thread.ts";

const port = parentPort as NonNullable<typeof parentPort>;

async function answer({ id, method, args }: Call, backend: NativeBackend): Promise<void> {
  try {
    const result = await (backend[method] as (...args: unknown[]) => Promise<unknown>)(...args);
    if (method === "encode") {
      const packed = (result as Awaited<ReturnType<NativeBackend["encode"]>>).map(packEncoding);
      port.postMessage({ id, result: packed } satisfies Answer, packed.flatMap(packedBuffers));
    } else if (method === "addTokens") {
      port.postMessage({ id, result, info: backend.info } satisfies Answer);
    } else {
      port.postMessage({ id, result } satisfies Answer);
    }
  } catch (error) {
    port.postMessage({ id, error: describeError(error) } satisfies Answer);
  }
}

function answerNow({ token, port: asker, done }: Question, backend: NativeBackend): void {
  asker.postMessage(backend.tokenToIdNow(token));
  Atomics.store(done, 0, 1);
  Atomics.notify(done, 0);
}

const LOADED = 0;
try {
  const backend = await NativeBackend.load(workerData as string);
  port.on("message", (message: Call | Question) => {
    if ("token" in message) answerNow(message, backend);
    else void answer(message, backend);
  });
  port.postMessage({ id: LOADED, result: null, info: backend.info } satisfies Answer);
} catch (error) {
  port.postMessage({ id: LOADED, error: describeError(error) } satisfies Answer);
}
