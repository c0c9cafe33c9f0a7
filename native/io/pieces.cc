#include "native/io/pieces.h"

#include <algorithm>

namespace tf::io {
namespace {

// A gap of this many elements between two rows is skipped rather than read.
constexpr int64_t kGap = 32 * 1024;

void Cut(Piece piece, uint64_t limit, const std::function<void(Piece)>& visit) {
  const View& view = piece.view;
  const uint64_t span = SpanOf(view);
  if (span == 0) return;
  // The dimension whose neighbours lie farthest apart: cutting it keeps the file's order.
  size_t widest = view.sizes.size();
  for (size_t i = 0; i < view.sizes.size(); ++i) {
    if (view.sizes[i] < 2) continue;
    if (widest == view.sizes.size() || view.strides[i] > view.strides[widest]) widest = i;
  }
  if (widest == view.sizes.size()) {
    visit(std::move(piece));
    return;
  }
  const int64_t size = view.sizes[widest];
  const int64_t stride = view.strides[widest];
  const int64_t row = static_cast<int64_t>(span) - (size - 1) * stride;
  if (stride == 0) {  // the same elements again: one row is all there is to read
    visit(std::move(piece));
    return;
  }
  const int64_t most = static_cast<int64_t>(limit);
  int64_t rows = row > most ? 1 : std::min(size, (most - row) / stride + 1);
  if (stride - row >= kGap) rows = 1;
  if (rows == size) {
    visit(std::move(piece));
    return;
  }
  for (int64_t start = 0; start < size; start += rows) {
    Piece part = piece;
    part.view.offset += static_cast<uint64_t>(start * stride);
    part.view.sizes[widest] = std::min(rows, size - start);
    part.starts[widest] += start;
    Cut(std::move(part), limit, visit);
  }
}

}  // namespace

uint64_t SpanOf(const View& view) {
  uint64_t last = 0;
  for (size_t i = 0; i < view.sizes.size(); ++i) {
    if (view.sizes[i] == 0) return 0;
    last += static_cast<uint64_t>((view.sizes[i] - 1) * view.strides[i]);
  }
  return last + 1;
}

bool IsContiguous(const View& view) {
  int64_t expected = 1;
  for (size_t i = view.sizes.size(); i-- > 0;) {
    if (view.sizes[i] != 1 && view.strides[i] != expected) return false;
    expected *= view.sizes[i];
  }
  return true;
}

void EachPiece(const View& view, uint64_t limit, const std::function<void(Piece)>& visit) {
  Cut({view, std::vector<int64_t>(view.sizes.size(), 0)}, std::max<uint64_t>(limit, 1), visit);
}

}  // namespace tf::io
