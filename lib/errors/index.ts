// Every error this package throws, in one place. Each has a stable `code`, and a `hint` that says what to do next.

/** What an error says beside its message. */
export interface TorchformersErrorOptions {
  readonly cause?: unknown;
  /** The next step, in words or as a command to type. Printed after the message. */
  readonly hint?: string;
}

/** Base class: `error instanceof TorchformersError` and `error.code` are stable across versions. */
export class TorchformersError extends Error {
  readonly code: string;
  declare readonly hint: string | undefined;

  constructor(code: string, message: string, { cause, hint }: TorchformersErrorOptions = {}) {
    super(hint ? `${message}\n${hint}` : message, cause === undefined ? undefined : { cause });
    this.code = code;
    // Not enumerable: Node prints own properties after the message, which ends with the hint already.
    Object.defineProperty(this, "hint", { value: hint });
    this.name = new.target.name;
  }
}

/** A class per code, so that callers may use either `instanceof` or `error.code`. */
function errorClass(code: string) {
  return class extends TorchformersError {
    constructor(message: string, options?: TorchformersErrorOptions) {
      super(code, message, options);
    }
  };
}

/** libtorch is not on this machine, or is another version. */
export class LibtorchNotFoundError extends errorClass("ERR_LIBTORCH_NOT_FOUND") {}

/** `torchformers setup` cannot go on: a tool, a file or room on the disk is missing, or an archive is damaged. */
export class SetupError extends errorClass("ERR_SETUP") {}

/** The addon for this platform is missing or does not load. */
export class NativeBindingNotFoundError extends errorClass("ERR_NATIVE_BINDING_NOT_FOUND") {}

/** A CUDA device was asked for and cannot be used; the message lists the reasons found. */
export class CudaUnavailableError extends errorClass("ERR_CUDA_UNAVAILABLE") {}

/** A device or the host has no room for an allocation. */
export class OutOfMemoryError extends errorClass("ERR_OUT_OF_MEMORY") {}

/** Shapes do not fit; the message names the operator and the shapes. */
export class ShapeError extends errorClass("ERR_SHAPE") {}

/** A dtype is unknown or not supported by an operator. */
export class DtypeError extends errorClass("ERR_DTYPE") {}

/** An operator is unknown or failed; the message starts with its name. */
export class OpError extends errorClass("ERR_OP") {}

/** A function cannot be recorded as a Program. */
export class TraceError extends errorClass("ERR_TRACE") {}

/** An in-place operation on a tensor that a running Program uses. */
export class TensorBusyError extends errorClass("ERR_TENSOR_BUSY") {}

/** A tensor, model or file was used after it was disposed, or after its scope ended. */
export class DisposedError extends errorClass("ERR_DISPOSED") {}

/** A configuration is not valid; the message names the file and the field. */
export class ConfigError extends errorClass("ERR_CONFIG") {}

/** A class field overwrote what a constructor had stored. */
export class ConfigFieldError extends errorClass("ERR_CONFIG_FIELD") {}

/** The weights do not fit the model; carries the three sets of the loading report. */
export class CheckpointError extends errorClass("ERR_CHECKPOINT") {
  readonly missing_keys: readonly string[];
  readonly unexpected_keys: readonly string[];
  /** Name, shape in the checkpoint, shape in the model. */
  readonly mismatched_keys: readonly (readonly [string, readonly number[], readonly number[]])[];

  constructor(
    message: string,
    {
      missing_keys = [],
      unexpected_keys = [],
      mismatched_keys = [],
      ...options
    }: TorchformersErrorOptions &
      Partial<Pick<CheckpointError, "missing_keys" | "unexpected_keys" | "mismatched_keys">> = {},
  ) {
    super(message, options);
    this.missing_keys = missing_keys;
    this.unexpected_keys = unexpected_keys;
    this.mismatched_keys = mismatched_keys;
  }
}

/** A safetensors file breaks the format; the message names the file and the reason. */
export class SafetensorsFormatError extends errorClass("ERR_SAFETENSORS_FORMAT") {}

/** The checkpoint is quantized in a way that is not implemented. */
export class UnsupportedQuantizationError extends errorClass("ERR_UNSUPPORTED_QUANTIZATION") {}

/** An adapter is of a kind, or has a setting, that is not implemented; the message names it. */
export class UnsupportedAdapterError extends errorClass("ERR_UNSUPPORTED_ADAPTER") {}

/** Parameters were neither loaded nor trained. */
export class UninitializedWeightsError extends errorClass("ERR_UNINITIALIZED_WEIGHTS") {}

/** A checkpoint asks for code of its own, which is not trusted, or which breaks the rules for such code. */
export class RemoteCodeError extends errorClass("ERR_REMOTE_CODE") {}

/** The code of a class of one's own cannot be found, or not be shared as it is. */
export class CustomCodeError extends errorClass("ERR_CUSTOM_CODE") {}

/** What a {@link HubError} says beside its message. */
export interface HubErrorOptions extends TorchformersErrorOptions {
  /** The HTTP status of the last answer, if there was one. */
  readonly status?: number | undefined;
  /** The page to visit: of the repository, or of the account's settings. */
  readonly page?: string | undefined;
}

/** A class per code below `HubError`. */
function hubErrorClass(code: string) {
  return class extends HubError {
    constructor(message: string, options?: HubErrorOptions) {
      super(message, options, code);
    }
  };
}

/** The hub cannot be reached, answered with an error, or sent what it did not announce. */
export class HubError extends TorchformersError {
  declare readonly status: number | undefined;
  declare readonly page: string | undefined;

  constructor(message: string, { status, page, ...options }: HubErrorOptions = {}, code = "ERR_HUB") {
    super(code, message, options);
    Object.defineProperty(this, "status", { value: status });
    Object.defineProperty(this, "page", { value: page });
  }
}

/** There is no such repository, or it is private and the token does not open it. */
export class RepositoryNotFoundError extends hubErrorClass("ERR_REPOSITORY_NOT_FOUND") {}

/** The repository has no such branch, tag or commit. */
export class RevisionNotFoundError extends hubErrorClass("ERR_REVISION_NOT_FOUND") {}

/** The repository wants an accepted licence or a token. */
export class GatedRepoError extends hubErrorClass("ERR_GATED_REPO") {}

/** The hub has closed the repository. */
export class DisabledRepoError extends hubErrorClass("ERR_DISABLED_REPO") {}

/** A file is not in the cache and the network is switched off. */
export class OfflineModeError extends errorClass("ERR_OFFLINE_MODE") {}

/** A file does not exist in a folder or repository. */
export class EntryNotFoundError extends errorClass("ERR_ENTRY_NOT_FOUND") {}

/** A file cannot be read or written, or became shorter while it was in use; the message names it and the reason. */
export class FileError extends errorClass("ERR_FILE") {}

/** A chat template does not parse, or raised an error. */
export class TemplateError extends errorClass("ERR_TEMPLATE") {}

/** A tokenizer file is missing or not valid. */
export class TokenizerError extends errorClass("ERR_TOKENIZER") {}

/** A picture cannot be decoded, or the package that decodes is not installed. */
export class ImageError extends errorClass("ERR_IMAGE") {}

/** An argument or option is wrong; `suggestion` is the name that was probably meant. */
export class InvalidArgumentError extends errorClass("ERR_INVALID_ARGUMENT") {
  readonly suggestion: string | undefined;

  constructor(
    message: string,
    { suggestion, ...options }: TorchformersErrorOptions & { readonly suggestion?: string | undefined } = {},
  ) {
    super(suggestion === undefined ? message : `${message} Did you mean '${suggestion}'?`, options);
    this.suggestion = suggestion;
  }
}

/** No model is known for a `model_type`; `nearest` are known names close to it. */
export class UnknownModelTypeError extends errorClass("ERR_UNKNOWN_MODEL_TYPE") {
  readonly nearest: readonly string[];

  constructor(
    message: string,
    { nearest = [], ...options }: TorchformersErrorOptions & { readonly nearest?: readonly string[] } = {},
  ) {
    super(message, options);
    this.nearest = nearest;
  }
}
