// The safetensors format: bytes in, entries or a reason out, and back. Knows no libtorch and no
// Node, so that it can be fuzzed alone.
//
// A file is: the header's length (8 bytes, little endian), the header (JSON), the data. The header
// maps each tensor's name to { dtype, shape, data_offsets: [begin, end] } within the data, and
// "__metadata__" to strings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tf::io {

// The file breaks the format; what() says where and why, without the file's name.
class SafetensorsError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The format's dtypes. Files are written in descending order of this list, which keeps data
// aligned.
enum class SafetensorsDtype : uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};

// The dtype's name in a header ("BF16").
std::string_view NameOf(SafetensorsDtype dtype);
// Bits of one element: 4 and 6 for the packed kinds.
uint32_t BitsOf(SafetensorsDtype dtype);

struct SafetensorsEntry {
  std::string name;
  SafetensorsDtype dtype;
  std::vector<uint64_t> shape;
  uint64_t begin;  // bytes, within the data
  uint64_t end;
};

using SafetensorsMetadata = std::vector<std::pair<std::string, std::string>>;

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // in the order of their data
  SafetensorsMetadata metadata;           // in the file's order
  bool has_metadata = false;
};

inline constexpr size_t kSafetensorsPrefix = 8;
// The reference refuses a longer header, so that a file cannot make its reader allocate without
// bound.
inline constexpr uint64_t kSafetensorsMaxHeader = 100'000'000;

// The header's length, from the first bytes of a file of `file_size` bytes.
uint64_t ParseSafetensorsLength(std::span<const uint8_t> prefix, uint64_t file_size);

// Parses and checks a header that `data_size` bytes of data follow: every byte of the data belongs
// to exactly one tensor, every tensor's bytes are those that its shape needs. Unknown fields of a
// tensor are passed over, as the reference does; a name that occurs twice is refused.
SafetensorsHeader ParseSafetensorsHeader(std::string_view header, uint64_t data_size);

// A tensor to be written; its data has as many bytes as dtype and shape say.
struct SafetensorsSpec {
  std::string name;
  SafetensorsDtype dtype;
  std::vector<uint64_t> shape;
};

struct SafetensorsPlan {
  std::string prefix;         // length and header: everything before the data
  std::vector<size_t> order;  // the specs, in the order in which their data follows
  uint64_t data_size;
};

// Lays a file out, byte for byte as the reference does. `metadata` may be null.
SafetensorsPlan PlanSafetensors(std::span<const SafetensorsSpec> specs,
                                const SafetensorsMetadata* metadata);

}  // namespace tf::io
