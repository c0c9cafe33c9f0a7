// How a strided part of a tensor in a file is read: in pieces of a bounded size, in the order of
// the file, without reading large gaps. Knows no libtorch and no Node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace tf::io {

// Elements of a file's tensor: `offset`, sizes and strides count elements, and no stride is
// negative.
struct View {
  uint64_t offset = 0;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
};

// Elements from the first to the last one of a view, both included; 0 for an empty view.
uint64_t SpanOf(const View& view);

// True when the elements of the view lie one after the other in the order of its dimensions.
bool IsContiguous(const View& view);

// A part of a view, as narrow(dimension, start, sizes[dimension]) of each dimension.
struct Piece {
  View view;
  std::vector<int64_t> starts;  // within the view that was cut
};

// Calls `visit` with pieces that cover `view`, each spanning at most `limit` elements (one at
// least).
void EachPiece(const View& view, uint64_t limit, const std::function<void(Piece)>& visit);

}  // namespace tf::io
