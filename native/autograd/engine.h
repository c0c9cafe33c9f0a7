// Runs libtorch's autograd engine where its OpenMP team is, while this thread serves JavaScript
// hooks.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace tf {

class Environment;

// Runs `body`, which calls the engine on the graph of `roots`, and waits for it; the calling
// thread's modes hold there. Errors of libtorch get `name` in front; what JavaScript threw in a
// hook is left pending.
void RunEngine(Environment& environment,
               const char* name,
               const std::vector<at::Tensor>& roots,
               const std::function<void()>& body);

}  // namespace tf
