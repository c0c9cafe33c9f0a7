// Pictures into inputs: decoding, both backends, the processors, their files and registries.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import t from "tap";
import * as torchformers from "torchformers";
import {
  AutoImageProcessor,
  AutoProcessor,
  BatchFeature,
  ConvNextImageProcessor,
  load_image,
  SamImageProcessor,
  SamProcessor,
  TorchvisionBackend,
  torch,
  ViTImageProcessor,
  ViTImageProcessorPil,
} from "torchformers";
import { fixture } from "../support/fixtures.js";
import { replay } from "../support/golden.js";

// biome-ignore lint/suspicious/noExplicitAny: wrong arguments on purpose.
type Any = any;

const asset = (name: string): string => join(fixture("preprocessing/assets"), name);
const wrong = { code: "ERR_INVALID_ARGUMENT" };
const small = { size: { height: 8, width: 8 } };

t.test("wrong input", async (t) => {
  const processor = new ViTImageProcessor(small) as Any;
  const image = torch.zeros([3, 5, 6], { dtype: "uint8" });
  await t.rejects(processor(image, { do_resise: true }), { ...wrong, suggestion: "do_resize" });
  await t.rejects(processor(image, { do_resize: 1 }), wrong);
  await t.rejects(processor(image, { size: { height: 3 } }), wrong);
  await t.rejects(processor(image, { size: "8" }), wrong);
  await t.rejects(processor(image, { resample: 7 }), wrong);
  await t.rejects(processor(image, { resample: 5 }), { message: /pil/ });
  await t.rejects(processor(image, { do_center_crop: true }), { message: /crop_size/ });
  await t.rejects(processor(image, { image_mean: "0.5" }), wrong);
  await t.rejects(processor(image, { return_tensors: "np" }), wrong);
  await t.rejects(processor([]), { message: /empty/ });
  await t.rejects(processor(3), wrong);
  await t.rejects(processor("no such file.png"), { message: /neither a file/ });
  await t.rejects(processor(torch.zeros([2, 2])), { code: "ERR_SHAPE" });
  await t.rejects(processor(torch.zeros([5, 4, 7])), { message: /channels/ });
  await t.rejects(processor(torch.zeros([1, 4, 7], { dtype: "uint8" })), { message: /do_convert_rgb/ });
  await t.rejects(processor({ data: new Uint8Array(5), width: 2, height: 2 }), wrong);
  await t.rejects(
    processor([image, torch.zeros([3, 7, 6], { dtype: "uint8" })], {
      do_resize: false,
      return_tensors: "pt",
    }),
    {
      code: "ERR_SHAPE",
      message: /pixel_values/,
    },
  );
  await t.rejects(load_image(asset("../image-vit/golden.json")), {
    code: "ERR_IMAGE",
    message: /golden\.json/,
  });
  await t.rejects(load_image(Buffer.from("<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>")), {
    code: "ERR_IMAGE",
  });
  await t.rejects(load_image(asset("small.png"), { mode: "L" }), { message: /grey/ });
  await t.rejects(load_image(asset("small.png"), { signal: AbortSignal.abort(new Error("stop")) }), {
    message: "stop",
  });
  t.throws(() => processor.pad([image], { pad_size: { height: 2, width: 2 } }), { message: /smaller/ });
  t.throws(() => processor.normalize(image, 0, 1), { message: /floats/ });
  t.throws(() => new SamProcessor(new ViTImageProcessor() as Any, 1 as Any, { tokeniser: 1 } as Any), wrong);
  t.throws(() => new SamProcessor({} as Any), { message: /image processor/ });
  const sam = new SamProcessor(new SamImageProcessor({ size: { longest_edge: 16 } }));
  await t.rejects(sam(image, { input_points: [1, 2] }), { message: /lists in lists/ });
  await t.rejects(sam({ input_boxes: [[[1, 2, 3, 4]]] }), { message: /images/ });
  await t.rejects(sam(image, { input_point: [[1, 2]] } as Any), { ...wrong, suggestion: "input_points" });
});

for (const folder of readdirSync(fixture("preprocessing"))) {
  if (folder !== "assets") await replay(t, `preprocessing/${folder}`);
}

t.test("large images go through a Program, to the same numbers", async (t) => {
  const base = await load_image(asset("wide.jpg"));
  const large = base.repeat([1, 12, 9]);
  for (const Class of [
    ViTImageProcessor,
    ViTImageProcessorPil,
    ConvNextImageProcessor,
    SamImageProcessor,
  ] as Any[]) {
    const processor = new Class({ do_center_crop: false });
    const inPlace = torch.no_grad(() =>
      processor._preprocess_image_like_inputs([large], processor._prepare_kwargs({ return_tensors: "pt" })),
    );
    const off = await processor(large, { return_tensors: "pt" });
    t.same(off.keys(), inPlace.keys());
    t.ok(torch.equal(off.pixel_values, inPlace.pixel_values), Class.name);
  }
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  const huge = large.repeat([1, 3, 3]);
  ticks = 0;
  await new ViTImageProcessorPil()(huge);
  clearInterval(timer);
  t.ok(ticks > 0, "timers ran meanwhile");
});

t.test("whatever an image comes as", async (t) => {
  const png = readFileSync(asset("small.png"));
  const expected = await load_image(asset("small.png"));
  const { width, height } = { width: expected.shape[2] as number, height: expected.shape[1] as number };
  const data = (await expected.permute([1, 2, 0]).contiguous().data()) as Uint8Array;
  const server = createServer((request, response) => {
    if (request.url === "/moved") response.writeHead(302, { location: "/small.png" }).end();
    else if (request.url === "/small.png") response.end(png);
    else response.writeHead(404).end("no");
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  t.teardown(() => server.close());
  const { port } = server.address() as { port: number };
  const sources = {
    path: asset("small.png"),
    "file URL": new URL(`file://${asset("small.png")}`),
    Buffer: png,
    ArrayBuffer: new Uint8Array(png).buffer,
    "data URL": `data:image/png;base64,${png.toString("base64")}`,
    base64: png.toString("base64"),
    pixels: { data, width, height },
    RGB: { data, width, height, channels: 3 },
    address: `http://127.0.0.1:${port}/small.png`,
    moved: new URL(`http://127.0.0.1:${port}/moved`),
  };
  for (const [name, source] of Object.entries(sources))
    t.ok(torch.equal(await load_image(source), expected), name);
  await t.rejects(load_image(`http://127.0.0.1:${port}/absent`), { message: /404|no such/i });
  t.equal(await load_image(expected), expected, "a tensor is the image itself");
  const grey = await load_image(asset("gray.png"), { mode: "L" });
  t.same(grey.shape, [1, 100, 150]);
  t.ok(
    torch.equal(grey[0 as never] ?? grey.select(0, 0), (await load_image(asset("gray.png"))).select(0, 1)),
  );
  const processor = new ViTImageProcessor(small);
  const both = await processor([[asset("small.png")], [expected]], { return_tensors: "pt" });
  t.ok(torch.equal((both.pixel_values as Any).select(0, 0), (both.pixel_values as Any).select(0, 1)));
  const batch = await processor(torch.stack([expected, expected]));
  t.equal((batch.pixel_values as Any).length, 2);
});

t.test("files, as the reference writes them", async (t) => {
  const folder = t.testdir();
  for (const name of ["image-vit", "image-convnext", "image-convnext_384", "image-sam"]) {
    const source = fixture(`preprocessing/${name}`);
    for (const backend of ["torchvision", "pil"]) {
      const processor = await AutoImageProcessor.from_pretrained(source, { backend });
      t.equal(processor.backend, backend);
      const [file] = await processor.save_pretrained(folder);
      t.equal(
        readFileSync(file as string, "utf8"),
        readFileSync(join(source, "preprocessor_config.json"), "utf8"),
      );
    }
  }
  const processor = await AutoProcessor.from_pretrained(fixture("preprocessing/processor-sam"));
  t.ok(processor instanceof SamProcessor);
  const sam = t.testdir();
  await (processor as SamProcessor).save_pretrained(sam);
  t.equal(
    readFileSync(join(sam, "processor_config.json"), "utf8"),
    readFileSync(join(fixture("preprocessing/processor-sam"), "processor_config.json"), "utf8"),
  );
  t.same((await SamImageProcessor.from_pretrained(sam)).pad_size, { height: 48, width: 48 }, "a part alone");

  const own = join(t.testdir(), "own");
  const given = { rescale_factor: 1, image_mean: [0, 0, 0], note: "kept", crop_pct: 1, do_resize: null };
  await new ConvNextImageProcessor(given as Any).save_pretrained(own);
  const text = readFileSync(join(own, "preprocessor_config.json"), "utf8");
  t.match(text, '"rescale_factor": 1.0,');
  t.match(text, '"crop_pct": 1.0,');
  t.match(text, /"image_mean": \[\n {4}0\.0,/);
  t.match(text, '"note": "kept"');
  t.notMatch(text, "crop_size");
  const again = await AutoImageProcessor.from_pretrained(own, { size: 100, rescale_factor: 0.5 });
  t.same(again.size, { shortest_edge: 100 }, "an option overrides a setting");
  t.equal(again.rescale_factor, 0.5);
  await t.rejects(AutoImageProcessor.from_pretrained(own, { sise: 3 }), { ...wrong, suggestion: "size" });
  const [, unused] = await ConvNextImageProcessor.from_pretrained(own, {
    foo: 1,
    return_unused_kwargs: true,
  });
  t.same(unused, { foo: 1 });
  t.same((await ConvNextImageProcessor.from_pretrained(join(own, "preprocessor_config.json"))).crop_pct, 1);
});

t.test("registries", async (t) => {
  const folder = t.testdir();
  const write = (name: string, config: object, settings: object) => {
    const path = join(folder, name);
    mkdirSync(path);
    writeFileSync(join(path, "config.json"), JSON.stringify(config));
    writeFileSync(join(path, "preprocessor_config.json"), JSON.stringify(settings));
    return path;
  };
  await t.rejects(AutoImageProcessor.from_pretrained(fixture("models/llama")), {
    code: "ERR_ENTRY_NOT_FOUND",
  });
  const clip = write("clip", { model_type: "clip" }, { image_processor_type: "CLIPImageProcessor" });
  await t.rejects(AutoImageProcessor.from_pretrained(clip), { message: /not implemented here yet/ });
  const remote = write("remote", { model_type: "mine" }, { auto_map: { AutoImageProcessor: "a.B" } });
  await t.rejects(AutoImageProcessor.from_pretrained(remote), { code: "ERR_REMOTE_CODE" });
  t.throws(() => new (AutoImageProcessor as Any)(), wrong);

  const byType = write("resnet", { model_type: "resnet" }, { size: { shortest_edge: 40 } });
  t.ok((await AutoImageProcessor.from_pretrained(byType)) instanceof ConvNextImageProcessor);
  const older = write(
    "older",
    { model_type: "none" },
    { feature_extractor_type: "ViTFeatureExtractor", size: 30 },
  );
  const found = await AutoImageProcessor.from_pretrained(older);
  t.ok(found instanceof ViTImageProcessor);
  t.same(found.size, { height: 30, width: 30 });
  const fast = write("fast", {}, { image_processor_type: "ViTImageProcessorFast" });
  t.ok((await AutoImageProcessor.from_pretrained(fast, { use_fast: false })) instanceof ViTImageProcessorPil);
  t.ok((await AutoProcessor.from_pretrained(fast)) instanceof ViTImageProcessor, "the only part there is");

  class MyConfig extends torchformers.PretrainedConfig {
    static override readonly model_type = "my-images";
  }
  class MyImageProcessor extends TorchvisionBackend {
    static override readonly size = { height: 4, width: 4 };
    static override readonly resample = 2;
    static override readonly do_resize = true;
  }
  class Mine extends torchformers.ProcessorMixin {
    static override readonly attributes = ["image_processor"] as const;
  }
  class Sounds extends torchformers.FeatureExtractionMixin {
    static override readonly valid_kwargs = ["sampling_rate"];
    _call(): unknown {
      return new BatchFeature();
    }
  }
  class Films extends torchformers.BaseVideoProcessor {
    _call(): unknown {
      return new BatchFeature();
    }
  }
  torchformers.AutoConfig.register("my-images", MyConfig);
  AutoImageProcessor.register(MyConfig, MyImageProcessor);
  AutoImageProcessor.register(MyConfig, MyImageProcessor);
  t.throws(() => AutoImageProcessor.register(MyConfig, ViTImageProcessor), { message: /exist_ok/ });
  t.throws(() => AutoImageProcessor.register(torchformers.ViTConfig, MyImageProcessor), {
    message: /exist_ok: true/,
  });
  t.throws(() => AutoImageProcessor.register(MyConfig, SamProcessor as Any), { message: /must extend/ });
  t.throws(() => AutoImageProcessor.register(MyConfig, null), { message: /no class/ });
  AutoProcessor.register(MyConfig, Mine);
  torchformers.AutoFeatureExtractor.register(MyConfig, Sounds);
  torchformers.AutoVideoProcessor.register(MyConfig, Films);
  const mine = write("mine", { model_type: "my-images" }, { sampling_rate: 3 });
  t.ok((await AutoImageProcessor.from_pretrained(mine)) instanceof MyImageProcessor);
  t.equal(((await torchformers.AutoFeatureExtractor.from_pretrained(mine)) as Any).sampling_rate, 3);
  t.ok((await torchformers.AutoVideoProcessor.from_pretrained(mine)) instanceof Films);
  const processor = (await AutoProcessor.from_pretrained(mine)) as Mine;
  t.ok(processor instanceof Mine);
  const features = await processor({ images: asset("small.png"), return_tensors: "pt", do_rescale: false });
  t.same((features.pixel_values as Any).shape, [1, 3, 4, 4]);
  await t.rejects(processor({ images: asset("small.png"), do_rescle: false }), {
    ...wrong,
    suggestion: "do_rescale",
  });

  const native = write("native", { model_type: "vit" }, { image_processor_type: "ViTImageProcessor" });
  AutoImageProcessor.register(torchformers.ViTConfig, { torchvision: MyImageProcessor }, { exist_ok: true });
  t.ok((await AutoImageProcessor.from_pretrained(native)) instanceof MyImageProcessor, "a user's class wins");
});
