// safetensors: tensors in files, mapped in and written atomically.
export { load_file, type LoadFileOptions, safe_open, SafeOpen, type TensorInfo } from "./reader.ts";
export { save_file, type SaveFileOptions } from "./writer.ts";
