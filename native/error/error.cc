#include "native/error/error.h"

#include <c10/util/Exception.h>
#include <napi.h>

#include <array>
#include <cerrno>
#include <new>

#include "native/addon.h"
#include "native/io/mapping.h"
#include "native/io/safetensors_header.h"
#include "native/placement/streamer.h"

namespace tf {
namespace {

struct Wording {
  const char* code;
  std::string_view part;
};

// How libtorch words its errors, first match wins. Its classes say little: nearly all are plain
// c10::Error.
constexpr std::array kWordings{
    Wording{code::kOutOfMemory, "out of memory"},
    Wording{code::kOutOfMemory, "can't allocate memory"},
    Wording{code::kOutOfMemory, "not enough memory"},
    Wording{code::kTrace, "depends on data, which a meta tensor does not have"},
    Wording{code::kCudaUnavailable, "Found no NVIDIA driver"},
    Wording{code::kCudaUnavailable, "Cannot initialize CUDA without ATen_cuda library"},
    Wording{code::kCudaUnavailable, "not linked with support for cuda"},
    Wording{code::kCudaUnavailable, "Cannot access accelerator device when none is available"},
    Wording{code::kCudaUnavailable, "No CUDA GPUs are available"},
    Wording{code::kCudaUnavailable, "no CUDA-capable device is detected"},
    Wording{code::kCudaUnavailable, "CUDA driver version is insufficient"},
    Wording{code::kDtype, "not implemented for '"},
    Wording{code::kDtype, "same dtype"},
    Wording{code::kDtype, "dtype"},
    Wording{code::kDtype, "scalar type"},
    Wording{code::kDtype, "can't be cast to"},
    Wording{code::kDtype, "Only Tensors of floating point and complex"},
    Wording{code::kShape, "shapes cannot be multiplied"},
    Wording{code::kShape, "must match the size"},
    Wording{code::kShape, "must match the existing size"},
    Wording{code::kShape, "Sizes of tensors must match"},
    Wording{code::kShape, "size mismatch"},
    Wording{code::kShape, "shape"},
    Wording{code::kShape, "Dimension out of range"},
    Wording{code::kShape, "dimension"},
    Wording{code::kShape, "sizes"},
    Wording{code::kShape, "size of tensor"},
    Wording{code::kShape, "-D tensor"},
    Wording{code::kShape, "channels, but got"},
};

const char* CodeByWording(std::string_view message, const char* otherwise) {
  for (const Wording& wording : kWordings) {
    if (message.find(wording.part) != std::string_view::npos) return wording.code;
  }
  return otherwise;
}

Failure FromTorch(const c10::Error& error, const char* otherwise) {
  std::string message = error.what_without_backtrace();
  const char* code = CodeByWording(message, otherwise);
  Failure failure(code, std::move(message));
  failure.from_torch = true;
  return failure;
}

napi_value String(napi_env env, std::string_view text) {
  napi_value value = nullptr;
  napi_create_string_utf8(env, text.data(), text.size(), &value);
  return value;
}

napi_value PlainError(napi_env env, const Failure& failure) {
  napi_value error = nullptr;
  const std::string text =
      failure.hint.empty() ? failure.message : failure.message + "\n" + failure.hint;
  napi_create_error(env, String(env, failure.code), String(env, text), &error);
  return error;
}

}  // namespace

void Check(napi_env env, napi_status status) {
  if (status == napi_ok) return;
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (pending || status == napi_pending_exception) throw PendingException{};
  const napi_extended_error_info* info = nullptr;
  napi_get_last_error_info(env, &info);
  const char* text = info != nullptr && info->error_message != nullptr ? info->error_message
                                                                       : "Node-API call failed";
  throw Failure(code::kInvalidArgument, text);
}

Failure CurrentFailure() {
  try {
    throw;
  } catch (const Failure& failure) {
    return failure;
  } catch (const c10::OutOfMemoryError& error) {
    return FromTorch(error, code::kOutOfMemory);
  } catch (const c10::IndexError& error) {
    return FromTorch(error, code::kInvalidArgument);
  } catch (const c10::ValueError& error) {
    return FromTorch(error, code::kInvalidArgument);
  } catch (const c10::TypeError& error) {
    return FromTorch(error, code::kInvalidArgument);
  } catch (const c10::Error& error) {
    return FromTorch(error, code::kOp);
  } catch (const io::FileError& error) {
    const bool absent = error.error() == ENOENT || error.error() == ENOTDIR;
    return Failure(absent ? code::kEntryNotFound : code::kFile, error.what());
  } catch (const io::MappingFault& error) {
    return Failure(code::kFile, error.what());
  } catch (const placement::DeviceFull& error) {
    return Failure(code::kOutOfMemory,
                   error.what(),
                   "Free tensors that lie there, use fewer slots, or place fewer blocks on it.");
  } catch (const placement::StreamerClosed& error) {
    return Failure(code::kDisposed, error.what());
  } catch (const placement::NoSlot& error) {
    return Failure(code::kOutOfMemory, error.what(), "Release a block first, or use more slots.");
  } catch (const io::SafetensorsError& error) {
    return Failure(code::kSafetensorsFormat, error.what());
  } catch (const std::bad_alloc&) {
    return Failure(code::kOutOfMemory, "out of memory");
  } catch (const std::exception& error) {
    Failure failure(code::kOp, error.what());
    failure.from_torch = true;
    return failure;
  } catch (...) {
    return Failure(code::kOp, "an exception of unknown type was thrown");
  }
}

napi_value MakeError(Environment& environment, const Failure& failure) {
  const napi_env env = environment.env();
  napi_value factory = environment.ErrorFactory();
  if (factory == nullptr) return PlainError(env, failure);
  napi_value arguments[] = {String(env, failure.code), String(env, failure.message), nullptr};
  if (failure.hint.empty()) {
    napi_get_null(env, &arguments[2]);
  } else {
    arguments[2] = String(env, failure.hint);
  }
  napi_value receiver = nullptr;
  napi_value error = nullptr;
  napi_get_undefined(env, &receiver);
  if (napi_call_function(env, receiver, factory, 3, arguments, &error) != napi_ok) {
    napi_value ignored = nullptr;
    napi_get_and_clear_last_exception(env, &ignored);
    return PlainError(env, failure);
  }
  return error;
}

void Throw(Environment& environment, const Failure& failure) noexcept {
  napi_throw(environment.env(), MakeError(environment, failure));
}

void ThrowCurrent(Environment& environment) noexcept {
  try {
    throw;
  } catch (const PendingException&) {
    // JavaScript's own exception goes on.
  } catch (const Napi::Error& error) {
    napi_throw(environment.env(), error.Value());
  } catch (...) {
    Throw(environment, CurrentFailure());
  }
}

}  // namespace tf
