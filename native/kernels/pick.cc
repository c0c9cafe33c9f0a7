#include "native/kernels/pick.h"

#include "native/kernels/cpu_level.h"

namespace tf {
namespace {

template <class Kernels>
struct Levels {
  const Kernels& generic;
#if defined(__x86_64__)
  const Kernels& avx2;
  const Kernels& avx512;
  const Kernels& avx512_bf16;
#endif
};

template <class Kernels>
const auto& Pick(const at::Tensor& tensor, const Levels<Kernels>& levels) {
  const Kernels* kernels = &levels.generic;
#if defined(__x86_64__)
  switch (UsedCpuLevel()) {
    case CpuLevel::kAvx2:
      kernels = &levels.avx2;
      break;
    case CpuLevel::kAvx512:
      kernels = &levels.avx512;
      break;
    case CpuLevel::kAvx512Bf16:
      kernels = &levels.avx512_bf16;
      break;
    default:
      break;
  }
#endif
  return tensor.scalar_type() == at::kFloat ? kernels->fp32 : kernels->bf16;
}

}  // namespace

#if defined(__x86_64__)
const rows::Kernel& RowKernelFor(const at::Tensor& tensor) {
  return Pick<rows::Kernels>(tensor, {rows::kGeneric, rows::kAvx2, rows::kAvx512, rows::kAvx512});
}
const matvec::Kernel& MatvecKernelFor(const at::Tensor& tensor) {
  return Pick<matvec::Kernels>(
      tensor, {matvec::kGeneric, matvec::kAvx2, matvec::kAvx512, matvec::kAvx512Bf16});
}
const tiles::Kernel& TileKernelFor(const at::Tensor& tensor) {
  return Pick<tiles::Kernels>(tensor,
                              {tiles::kGeneric, tiles::kAvx2, tiles::kAvx512, tiles::kAvx512Bf16});
}
#else
const rows::Kernel& RowKernelFor(const at::Tensor& tensor) {
  return Pick<rows::Kernels>(tensor, {rows::kGeneric});
}
const matvec::Kernel& MatvecKernelFor(const at::Tensor& tensor) {
  return Pick<matvec::Kernels>(tensor, {matvec::kGeneric});
}
const tiles::Kernel& TileKernelFor(const at::Tensor& tensor) {
  return Pick<tiles::Kernels>(tensor, {tiles::kGeneric});
}
#endif

void CheckRowType(const char* name,
                  const at::Tensor& tensor,
                  std::initializer_list<const at::Tensor*> others) {
  TORCH_CHECK(tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16,
              name,
              ": not implemented for '",
              tensor.scalar_type(),
              "', only for float32 and bfloat16");
  for (const at::Tensor* other : others) {
    TORCH_CHECK(other->scalar_type() == tensor.scalar_type(),
                name,
                ": expected one dtype, but got ",
                tensor.scalar_type(),
                " and ",
                other->scalar_type());
  }
}

}  // namespace tf
