// What Node lacks and needs no libtorch. Opens shared libraries by path and keeps them:
// `process.dlopen` closes whatever is not a Node module. Takes advisory locks on files: Node has no
// flock, and it is what the hub's cache is shared by. Knows Node-API, dlopen and flock only, so
// that it loads on any machine and can say why libtorch does not.
#include <dlfcn.h>
#include <errno.h>
#include <node_api.h>
#include <stdlib.h>
#include <sys/file.h>

namespace {

constexpr size_t kMaxPath = 4096;

// libgomp reads its settings when it is loaded, and by default a thread of its team spins for about
// 15 ms before it sleeps. On a machine with other work that takes the core away from whoever the
// team waits for: a small model's token took 20 to 60 times as long. About 0.1 ms bridges the gaps
// between operators just as well. What the user set holds; the variable is gone afterwards, so that
// child processes do not inherit it.
class ShortSpin {
 public:
  ShortSpin() : ours_(getenv("GOMP_SPINCOUNT") == nullptr && getenv("OMP_WAIT_POLICY") == nullptr) {
    if (ours_) setenv("GOMP_SPINCOUNT", "2000", 1);
  }
  ~ShortSpin() {
    if (ours_) unsetenv("GOMP_SPINCOUNT");
  }
  ShortSpin(const ShortSpin&) = delete;
  ShortSpin& operator=(const ShortSpin&) = delete;

 private:
  const bool ours_;
};

// open(path: string): string | null. The text of dlerror() when the library does not load.
// RTLD_LOCAL: made global, libtorch's protobuf and oneDNN would stand before those of other addons.
napi_value Open(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  char path[kMaxPath];
  size_t length = 0;
  if (napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr) != napi_ok || count != 1 ||
      napi_get_value_string_utf8(env, argument, path, sizeof path, &length) != napi_ok ||
      length + 1 >= sizeof path) {
    napi_throw_type_error(env, "ERR_INVALID_ARGUMENT", "open(path): 'path' must be a string");
    return nullptr;
  }

  napi_value result;
  const ShortSpin spin;
  if (dlopen(path, RTLD_NOW | RTLD_LOCAL) != nullptr) {
    napi_get_null(env, &result);
  } else {
    napi_create_string_utf8(env, dlerror(), NAPI_AUTO_LENGTH, &result);
  }
  return result;
}

// lock(fd: number): 0 | 1 | 2. Asks for the whole file without waiting: 0 it is ours until the
// descriptor is closed, 1 someone else has it, 2 this file system has no such locks.
napi_value Lock(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  int32_t fd = -1;
  if (napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr) != napi_ok || count != 1 ||
      napi_get_value_int32(env, argument, &fd) != napi_ok) {
    napi_throw_type_error(env, "ERR_INVALID_ARGUMENT", "lock(fd): 'fd' must be a number");
    return nullptr;
  }
  int failure;
  do {
    failure = flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
  } while (failure == EINTR);
  const bool taken = failure == EWOULDBLOCK || failure == EAGAIN || failure == EACCES;
  napi_value result;
  napi_create_uint32(env, failure == 0 ? 0 : taken ? 1 : 2, &result);
  return result;
}

}  // namespace

NAPI_MODULE_INIT() {
  const napi_property_descriptor functions[] = {
      {"open", nullptr, Open, nullptr, nullptr, nullptr, napi_default, nullptr},
      {"lock", nullptr, Lock, nullptr, nullptr, nullptr, napi_default, nullptr},
  };
  if (napi_define_properties(env, exports, 2, functions) != napi_ok) {
    napi_throw_error(env, nullptr, "torchformers: the loader could not be set up");
  }
  return exports;
}
