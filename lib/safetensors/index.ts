// safetensors: tensors in files, mapped in and written atomically.
export { type LoadFileOptions, load_file, SafeOpen, safe_open, type TensorInfo } from "./reader.ts";
export { type SaveFileOptions, save_file } from "./writer.ts";
