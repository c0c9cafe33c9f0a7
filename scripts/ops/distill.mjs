// Distils libtorch's own operator declarations into scripts/ops/schemas.txt, the input of `npm run generate`.
// Run once per libtorch version: node scripts/ops/distill.mjs <folder that holds torch/ and torchgen/>
//
// A line is "<flags> <schema>"; flags: t function of torch, m method of Tensor, n of torch.nn, l, f, s of torch.linalg,
// fft, special. Left out: out= variants, named-tensor overloads, backward operators, quantized, sparse and
// vendor-library internals (all of them stay reachable as torch.ops.aten.<name>.<overload>).
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";

const root = process.argv[2] ?? process.env.TORCHFORMERS_LIBTORCH;
if (!root) throw new Error("usage: node scripts/ops/distill.mjs <folder that holds torch/ and torchgen/>");
const read = (path) => readFileSync(join(root, path), "utf8");
const declared = (text, pattern) => new Set([...text.matchAll(pattern)].map((match) => match[1]));

const entries = parse(read("torchgen/packaged/ATen/native/native_functions.yaml"));
const publicFunctions = declared(read("torch/_C/_VariableFunctions.pyi"), /^def (\w+)\(/gm);
const tensorBase = read("torch/_C/__init__.pyi").match(/^class TensorBase[\s\S]*?^class /m)[0];
const publicMethods = declared(tensorBase, /^ {4}def (\w+)\(/gm);

const NAMESPACE = { nn: "n", linalg: "l", fft: "f", special: "s" };
const INTERNAL = new RegExp(
  [
    "^_|__",
    "^unique_dim",
    "backward",
    "quantize(?!d_like)",
    "^q_",
    "int_repr",
    "qscheme",
    "fbgemm",
    "mkldnn",
    "miopen",
    "cudnn",
    "fused_moving_avg",
    "sparse",
    "^(s|ss|hs)(p?)(add)?mm$",
    "^(ccol|col|crow|row)_indices",
    "^(indices|values|coalesce|is_coalesced|dense_dim)(_copy)?$",
    "^to_(dense|mkldnn|padded)",
    "_copy$",
    "^(rename|refine_names|align_)",
    "batch_norm_(stats|elemt|gather|update)",
    "record_stream",
    "^(is_set_to|is_distributed|set_data|slice_inverse|lu_unpack_internal|chalf)$",
    "^(item|size|stride|retain_grad|requires_grad_)$",
    "^(set_|resize_as_sparse_|promote_types|can_cast|result_type|to|type_as|get_device|numel|data|is_leaf|output_nr)$",
    "^(from_file|sym_|index|index_put_|split|norm|hspmm|saddmm|is_vulkan_available|grid_sampler_2d_cpu|isin_internal)",
  ].join("|"),
);
// Removed by INTERNAL for their spelling, but ordinary operators.
const KEPT = new Set([
  "index_copy",
  "index_copy_",
  "narrow_copy",
  "index_add",
  "index_add_",
  "index_fill",
  "index_fill_",
  "index_reduce",
  "index_reduce_",
  "index_select",
  "split_with_sizes",
  "set_",
  "normal",
  "normal_",
  "norm_except_dim",
  "dequantize",
  "index_put",
]);

const lines = [];
for (const { func, variants = "function", python_module } of entries) {
  const [full] = func.split("(", 1);
  const [name, overload = ""] = full.split(".");
  if (/Dimname|Stream|Storage|\*, .*!\).*->/.test(func) || /_out$|^out$/.test(overload)) continue;
  if (INTERNAL.test(name) && !KEPT.has(name)) continue;
  let flags = "";
  if (variants.includes("function") && !python_module && publicFunctions.has(name)) flags += "t";
  if (variants.includes("method") && publicMethods.has(name)) flags += "m";
  if (python_module && variants.includes("function")) flags += NAMESPACE[python_module] ?? "";
  // C++ takes the factor of a number by position, Python by name only.
  if (flags)
    lines.push(`${flags} ${func.replace("Scalar other, Scalar alpha=1", "Scalar other, *, Scalar alpha=1")}`);
}
lines.sort((a, b) => (a.split(" ")[1].split(/[.(]/)[0] < b.split(" ")[1].split(/[.(]/)[0] ? -1 : 1));
const header =
  "# Public operators of libtorch 2.11.0, made by scripts/ops/distill.mjs. t torch, m Tensor, n nn, l linalg, f fft, s special.";
writeFileSync(new URL("schemas.txt", import.meta.url), `${[header, ...lines].join("\n")}\n`);
console.log(`${lines.length} overloads`);
