// Devices by name. Nothing here links CUDA: libtorch_cuda registers itself with libtorch when the
// loader has opened it.
#pragma once

#include <c10/core/Device.h>

#include <string>

namespace tf {

// "cpu", "meta", "cuda", "cuda:1". Throws ERR_INVALID_ARGUMENT for an unknown name,
// ERR_CUDA_UNAVAILABLE with the reasons for a CUDA device that cannot be used. "cuda" is the
// calling thread's current device: other threads, which have current devices of their own, may be
// given it.
c10::Device ParseDevice(const std::string& name);

// 1 for "cpu" and "meta"; for "cuda" the devices that libtorch sees, 0 without libtorch_cuda or
// without a driver.
int64_t DeviceCount(c10::DeviceType type);

class Exports;

// The part of the devices' functions that only an accelerator has.
void InitAccelerator(Exports& exports);
void InitDeviceGraph(Exports& exports);

}  // namespace tf
