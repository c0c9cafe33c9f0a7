// Meta kernels of matrix products and of linear algebra.
#include "native/kernels/meta.h"

namespace tf::meta {
namespace {

// Matrices of LAPACK lie column by column.
Tensor ColumnMajor(IntArrayRef sizes, const Tensor& like) {
  auto turned = sizes.vec();
  std::swap(turned[turned.size() - 1], turned[turned.size() - 2]);
  return Empty(turned, like).mT();
}

void CheckSquare(const Tensor& self, const char* name) {
  TORCH_CHECK(self.dim() >= 2 && self.size(-1) == self.size(-2),
              name,
              ": A must be batches of square matrices, but they have sizes ",
              self.sizes());
}

Tensor Cholesky(const Tensor& self, bool) {
  CheckSquare(self, "cholesky");
  return ColumnMajor(self.sizes(), self);
}

Tensor CholeskyInverse(const Tensor& self, bool) {
  CheckSquare(self, "cholesky_inverse");
  return ColumnMajor(self.sizes(), self);
}

Tensor CholeskySolve(const Tensor& self, const Tensor&, bool) {
  return ColumnMajor(self.sizes(), self);
}

Tensor MatrixExp(const Tensor& self) {
  CheckSquare(self, "linalg.matrix_exp");
  return Empty(self.sizes(), self);
}

Tensor HouseholderProduct(const Tensor& input, const Tensor&) {
  return ColumnMajor(input.sizes(), input);
}

std::tuple<Tensor&, Tensor&> EigOut(const Tensor& self, Tensor& values, Tensor& vectors) {
  CheckSquare(self, "linalg.eig");
  Resize(values, self.sizes().slice(0, self.dim() - 1));
  vectors.as_strided_(self.sizes(), ColumnMajor(self.sizes(), self).strides());
  return {values, vectors};
}

std::tuple<Tensor, Tensor> Eig(const Tensor& self) {
  CheckSquare(self, "linalg.eig");
  const ScalarType dtype = c10::toComplexType(self.scalar_type());
  return {Empty(self.sizes().slice(0, self.dim() - 1), self, dtype),
          ColumnMajor(self.sizes(), self.to(dtype))};
}

// Batches are summed up: self broadcasts to [n, p], batch1 [b, n, m], batch2 [b, m, p].
Tensor Addbmm(const Tensor& self,
              const Tensor& batch1,
              const Tensor& batch2,
              const at::Scalar&,
              const at::Scalar&) {
  TORCH_CHECK(batch1.dim() == 3 && batch2.dim() == 3, "batch1 and batch2 must be 3D tensors");
  TORCH_CHECK(batch1.size(0) == batch2.size(0) && batch1.size(2) == batch2.size(1),
              "Incompatible matrix sizes for bmm (",
              batch1.sizes(),
              " and ",
              batch2.sizes(),
              ")");
  return Empty({batch1.size(1), batch2.size(2)}, self);
}

Tensor IntMm(const Tensor& self, const Tensor& other) {
  TORCH_CHECK(self.dim() == 2 && other.dim() == 2 && self.size(1) == other.size(0),
              "_int_mm: expected two matrices that go together, but got ",
              self.sizes(),
              " and ",
              other.sizes());
  return Empty({self.size(0), other.size(1)}, self, at::kInt);
}

// Weights [out, in] of 8 bits, one scale per row.
Tensor Int8Mm(const Tensor& self, const Tensor& weight, const Tensor&) {
  TORCH_CHECK(self.dim() == 2 && weight.dim() == 2 && self.size(1) == weight.size(1),
              "_weight_int8pack_mm: expected [rows, in] and [out, in], but got ",
              self.sizes(),
              " and ",
              weight.sizes());
  return Empty({self.size(0), weight.size(0)}, self);
}

// Weights [out, in / 2] of 4 bits, two to a byte.
Tensor Int4Mm(const Tensor& self, const Tensor& weight, int64_t, const Tensor&) {
  TORCH_CHECK(self.dim() == 2 && weight.dim() == 2 && self.size(1) == 2 * weight.size(1),
              "_weight_int4pack_mm_for_cpu: expected [rows, in] and [out, in / 2], but got ",
              self.sizes(),
              " and ",
              weight.sizes());
  return Empty({self.size(0), weight.size(0)}, self);
}

Tensor PackInt4(const Tensor& weight, int64_t) {
  TORCH_CHECK(weight.dim() == 2, "_convert_weight_to_int4pack_for_cpu: expected a matrix");
  return Empty({weight.size(0), weight.size(1) / 2}, weight, at::kByte);
}

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("cholesky", Cholesky);
  m.impl("cholesky_inverse", CholeskyInverse);
  m.impl("_cholesky_solve_helper", CholeskySolve);
  m.impl("linalg_matrix_exp", MatrixExp);
  m.impl("linalg_householder_product", HouseholderProduct);
  m.impl("linalg_eig", Eig);
  m.impl("linalg_eig.out", EigOut);
  m.impl("addbmm", Addbmm);
  m.impl("_int_mm", IntMm);
  m.impl("_weight_int8pack_mm", Int8Mm);
  m.impl("_weight_int4pack_mm_for_cpu", Int4Mm);
  m.impl("_convert_weight_to_int4pack_for_cpu", PackInt4);
}

}  // namespace
}  // namespace tf::meta
