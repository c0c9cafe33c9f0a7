// A small suite for the addon under AddressSanitizer and UBSan (scripts/test_native.mjs --addon): what crosses the border
// in every shape, and above all wrongly. A finding ends the process; here only results are compared.
import assert from "node:assert/strict";
import { copyFileSync, fstatSync, mkdtempSync, readdirSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { addon } from "../../dist/addon/loader.js";
import { safetensors, torch } from "../../dist/index.js";

const native = addon();
const fixtures = new URL("../fixtures/", import.meta.url).pathname;
const scratch = mkdtempSync(join(tmpdir(), "torchformers-sanitized-"));
const collect = () => {
  for (let i = 0; i < 3; i++) {
    globalThis.gc?.();
    native.sweep();
  }
};

const tests = {
  "every function with wrong arguments throws and does not crash"() {
    const wrong = [
      undefined,
      null,
      0,
      -1,
      1.5,
      Number.NaN,
      2 ** 53,
      1e300,
      7n,
      "x",
      "",
      true,
      [],
      [1],
      [[]],
      {},
      () => {},
      Symbol("s"),
      new Float32Array(2),
      16777216,
    ];
    const skip = new Set(["setErrorFactory", "setNumThreads"]);
    let random = 12345;
    const next = (limit) => {
      random = (Math.imul(random, 1103515245) + 12345) >>> 0;
      return (random >>> 8) % limit;
    };
    for (const [name, call] of Object.entries(native)) {
      if (typeof call !== "function" || skip.has(name)) continue;
      for (let i = 0; i < 60; i++) {
        const args = Array.from({ length: next(7) }, () => wrong[next(wrong.length)]);
        try {
          const result = call(...args);
          if (result instanceof Promise) result.catch(() => {});
        } catch (error) {
          assert.ok(error instanceof Error, `${name} threw ${String(error)}`);
        }
      }
    }
    native.setMemoryLimit(-1); // 0 bytes is a limit, too
    native.setGradMode(true);
    native.detectAnomaly(false);
    native.setAutocast("cpu", false, "bfloat16");
    while (native.inferenceMode()) native.popInferenceMode();
    native.setDefaultDtype("float32");
    native.setDeterministic(false, false);
    native.manualSeed(0n);
    // Some of these calls were right, and opened a scope that nobody closed.
    for (;;) {
      try {
        native.closeCheckpoint();
      } catch {
        break;
      }
    }
  },

  "every operator with random tensors and numbers"() {
    const ops = native.listOps();
    const tensors = [
      torch.ones([2, 3]),
      torch.arange(6),
      torch.zeros([0]),
      torch.ones([]),
      torch.ones([3, 3], { dtype: "bfloat16" }),
    ];
    const values = [
      undefined,
      null,
      0,
      1,
      -1,
      2.5,
      true,
      [1, 2],
      [0],
      "mean",
      "float32",
      10n,
      ...tensors.map((tensor) => tensor._handle),
    ];
    let random = 99;
    const next = (limit) => {
      random = (Math.imul(random, 1103515245) + 12345) >>> 0;
      return (random >>> 8) % limit;
    };
    // Operators of our own choice: arithmetic, shapes, reductions. Not all of libtorch is safe with nonsense.
    const chosen =
      /^(aten::)?(add|sub|mul|div|matmul|mm|cat|stack|sum|mean|max|min|reshape|view|permute|transpose|expand|index_select|gather|where|softmax|layer_norm|topk|sort|chunk|split|squeeze|unsqueeze|full|zeros|arange|clamp|pow)(\.\w+)?\(/;
    for (const schema of ops.filter((text) => chosen.test(text) && !/[( ]out\b|!\)|Dimname/.test(text))) {
      const [, name, overload = ""] = /^((?:aten::)?\w+)(?:\.(\w+))?\(/.exec(schema);
      const op = native.findOp(name.startsWith("aten::") ? name : `aten::${name}`, overload);
      for (let i = 0; i < 8; i++) {
        try {
          native.call(op, null, ...Array.from({ length: 1 + next(5) }, () => values[next(values.length)]));
        } catch (error) {
          assert.ok(error instanceof Error);
        }
      }
    }
  },

  "handles: stale, forged, doubly disposed"() {
    const x = torch.ones([2]);
    const handle = x._handle;
    x.dispose();
    x.dispose();
    assert.throws(() => native.shape(handle), { code: "ERR_DISPOSED" });
    assert.throws(() => native.shape(handle + 1e6), { code: "ERR_INVALID_ARGUMENT" });
    for (let i = 0; i < 1000; i++) torch.ones([3]);
    collect();
    assert.throws(() => native.shape(handle), { code: "ERR_DISPOSED" });
  },

  "locks: held, given back, forged"() {
    const lock = native.lockPath(scratch);
    assert.ok(lock > 0);
    assert.equal(native.lockPath(scratch), -1, "it is ours");
    // Descriptors of this process: a number of the caller's choice must close none of them.
    for (const forged of [-1, 0, 1, 2, 3, 4, 5, lock + 1e6, Number.NaN]) native.unlockPath(forged);
    for (const standard of [0, 1, 2]) fstatSync(standard);
    assert.equal(native.lockPath(scratch), -1, "it is still ours");
    native.unlockPath(lock);
    native.unlockPath(lock);
    const again = native.lockPath(scratch);
    assert.ok(again > 0 && again !== lock);
    native.unlockPath(again);
  },

  "data in and out, of every kind"() {
    for (const [array, dtype] of [
      [new Float32Array([1, 2]), "float32"],
      [new Float64Array([1, 2]), "float64"],
      [new BigInt64Array([1n, -2n]), "int64"],
      [new Int32Array([1, 2]), "int32"],
      [new Int16Array([1, 2]), "int16"],
      [new Int8Array([1, 2]), "int8"],
      [new Uint8Array([1, 0]), "bool"],
      [new Uint16Array([1, 2]), "bfloat16"],
    ]) {
      const owner = {};
      const handle = native.fromData(owner, array, dtype, [2]);
      assert.equal(native.toData(handle, true).length, 2);
      native.toData(handle, false);
      assert.throws(() => native.fromData({}, array, dtype, [3]));
    }
    let buffer = new ArrayBuffer(64);
    let view = torch.from_buffer(buffer, { dtype: "float32" });
    view.add_(1);
    buffer = undefined;
    collect();
    assert.equal(view.sum().item(), 16);
    view = undefined;
    collect();
  },

  "scopes, sweeps, rebinding"() {
    const kept = torch.tidy(() => torch.tidy("inner", () => torch.ones([4]).add(1)).mul(2));
    assert.deepEqual(kept.tolist(), [4, 4, 4, 4]);
    const parameter = torch.ones([2]).requires_grad_();
    parameter.data = torch.zeros([3]);
    assert.deepEqual(parameter.shape, [3]);
    for (let i = 0; i < 200; i++) torch.ones([1000, 100]).add(1);
    collect();
  },

  "autograd with hooks that replace, throw, nest"() {
    for (const size of [3, 40_000]) {
      const x = torch.ones([size]).requires_grad_();
      const run = (hook) => {
        const y = x.mul(2);
        y.register_hook(hook);
        y.sum().backward();
      };
      run((g) => g.mul(3));
      for (const thrown of [new Error("x"), null, 5])
        assert.throws(
          () =>
            run(() => {
              throw thrown;
            }),
          (e) => e === thrown,
        );
      assert.throws(() => run(() => torch.ones([2])), { code: "ERR_SHAPE" });
      run(() => torch.enable_grad(() => void torch.ones([size]).requires_grad_().mul(2).sum().backward()));
      x.register_post_accumulate_grad_hook(() => x.grad.sum().item()).remove();
      x.grad = null;
    }
    collect();
  },

  "checkpoints: computed twice, nested, left, failing"() {
    const { checkpoint } = torch.utils.checkpoint;
    for (const size of [3, 400]) {
      const x = torch.ones([size, size]).requires_grad_();
      const step = (h) => h.matmul(x).tanh().mul(h);
      const nested = (h) => checkpoint(step, [checkpoint(step, [h])]);
      const y = nested(nested(x));
      y.sum().backward({ retain_graph: true });
      y.sum().backward();
      for (let i = 0; i < 20; i++) nested(x); // nobody asks for these
      let calls = 0;
      const failing = (h) => {
        if (calls++) throw new Error("second");
        return step(h);
      };
      assert.throws(() => checkpoint(failing, [x]).sum().backward(), /second/);
      collect();
    }
  },

  async "safetensors: refused, read, written, cut off"() {
    for (const folder of readdirSync(`${fixtures}bad`).filter((name) => name.startsWith("safetensors-"))) {
      await assert.rejects(safetensors.load_file(`${fixtures}bad/${folder}/model.safetensors`), {
        code: "ERR_SAFETENSORS_FORMAT",
      });
    }
    for (const name of readdirSync(`${fixtures}safetensors`)) {
      const tensors = await safetensors.load_file(`${fixtures}safetensors/${name}`);
      await safetensors.save_file(tensors, join(scratch, name));
    }
    await assert.rejects(safetensors.load_file(scratch), { code: "ERR_FILE" });
    const path = join(scratch, "cut.safetensors");
    copyFileSync(`${fixtures}demo-llama/model.safetensors`, path);
    const weights = Object.values(await safetensors.load_file(path));
    truncateSync(path, 20_000);
    let lost = 0;
    for (const weight of weights) {
      try {
        weight.float().sum().item();
      } catch (error) {
        assert.equal(error.code, "ERR_FILE");
        lost += 1;
      }
    }
    assert.equal(lost, weights.length);
    for (const weight of weights) weight.dispose();
  },

  async "workers that are ended at work"() {
    const source = `
      import { torch } from ${JSON.stringify(new URL("../../dist/index.js", import.meta.url).href)};
      import { parentPort } from "node:worker_threads";
      const w = torch.ones([200, 200]).requires_grad_();
      parentPort.postMessage(torch.ones([3]).share());
      for (;;) { const y = w.matmul(w); y.register_hook((g) => g.mul(2)); y.sum().backward(); w.grad = null; }`;
    for (let i = 0; i < 2; i++) {
      const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`));
      const token = await new Promise((resolve, reject) =>
        worker.once("message", resolve).once("error", reject),
      );
      await worker.terminate();
      assert.deepEqual(torch.from_shared(token).tolist(), [1, 1, 1]);
    }
  },
};

let [passed, failed] = [0, 0];
for (const [name, run] of Object.entries(tests)) {
  try {
    await run();
    passed += 1;
    console.log(`  ok   ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`  FAIL ${name}\n${error.stack}`);
  }
}
rmSync(scratch, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
