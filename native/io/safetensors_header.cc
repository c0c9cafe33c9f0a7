#include "native/io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <optional>
#include <unordered_set>

#include "native/io/json_reader.h"

namespace tf::io {
namespace {

struct DtypeInfo {
  std::string_view name;
  uint32_t bits;
};

// Indexed by SafetensorsDtype.
constexpr std::array<DtypeInfo, 22> kDtypes{{
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
}};

constexpr std::string_view kMetadataKey = "__metadata__";

std::string Quote(std::string_view name) {
  constexpr size_t kShown = 200;
  if (name.size() <= kShown) {
    std::string out;
    AppendJsonString(out, name);
    out.front() = out.back() = '\'';
    return out;
  }
  size_t cut = kShown;
  while (cut > 0 && (static_cast<unsigned char>(name[cut]) & 0xC0) == 0x80) --cut;
  return Quote(name.substr(0, cut)) + " (the first of " + std::to_string(name.size()) + " bytes)";
}

std::string Show(const std::vector<uint64_t>& shape) {
  constexpr size_t kShown = 16;
  std::string out = "[";
  for (size_t i = 0; i < std::min(shape.size(), kShown); ++i) {
    if (i > 0) out += ", ";
    out += std::to_string(shape[i]);
  }
  return out + (shape.size() > kShown ? ", …]" : "]");
}

[[noreturn]] void Fail(const std::string& name, const std::string& reason) {
  throw SafetensorsError("tensor " + Quote(name) + ": " + reason);
}

std::optional<SafetensorsDtype> FindDtype(std::string_view name) {
  for (size_t i = 0; i < kDtypes.size(); ++i) {
    if (kDtypes[i].name == name) return static_cast<SafetensorsDtype>(i);
  }
  return std::nullopt;
}

std::string DtypeNames() {
  std::string out;
  for (const auto& dtype : kDtypes) (out += out.empty() ? "" : ", ") += dtype.name;
  return out;
}

// Bytes of a tensor. Sizes count in signed 64-bit numbers further on, and an empty tensor's strides
// multiply its other dimensions: so the product of all that are not 0 must fit.
uint64_t ByteLength(const std::string& name,
                    SafetensorsDtype dtype,
                    const std::vector<uint64_t>& shape) {
  uint64_t extent = BitsOf(dtype);
  bool empty = false;
  for (const uint64_t dim : shape) {
    if (dim == 0) {
      empty = true;
    } else if (extent > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / dim) {
      Fail(name, "the size of shape " + Show(shape) + " overflows 64 bits");
    } else {
      extent *= dim;
    }
  }
  if (empty) return 0;
  if (extent % 8 != 0) {
    Fail(name,
         "shape " + Show(shape) + " of " + std::string(NameOf(dtype)) +
             " does not fill whole bytes");
  }
  return extent / 8;
}

SafetensorsEntry ReadEntry(JsonReader& json, std::string name) {
  std::optional<SafetensorsDtype> dtype;
  std::optional<std::vector<uint64_t>> shape;
  std::optional<std::vector<uint64_t>> offsets;
  const auto once = [&](const auto& field, const char* key) {
    if (field) Fail(name, std::string("the field '") + key + "' occurs twice");
  };
  const auto numbers = [&] {
    std::vector<uint64_t> values;
    json.Array([&] { values.push_back(json.Unsigned()); });
    return values;
  };

  json.Object([&](const std::string& key) {
    if (key == "dtype") {
      once(dtype, "dtype");
      const std::string text = json.String();
      dtype = FindDtype(text);
      if (!dtype) Fail(name, "unknown dtype " + Quote(text) + "; the format has " + DtypeNames());
    } else if (key == "shape") {
      once(shape, "shape");
      shape = numbers();
    } else if (key == "data_offsets") {
      once(offsets, "data_offsets");
      offsets = numbers();
    } else {
      json.Skip();
    }
  });

  if (!dtype) Fail(name, "the field 'dtype' is missing");
  if (!shape) Fail(name, "the field 'shape' is missing");
  if (!offsets) Fail(name, "the field 'data_offsets' is missing");
  if (offsets->size() != 2) {
    Fail(name,
         "'data_offsets' holds " + std::to_string(offsets->size()) + " numbers, not begin and end");
  }
  return {std::move(name), *dtype, std::move(*shape), (*offsets)[0], (*offsets)[1]};
}

void ReadMetadata(JsonReader& json, SafetensorsHeader& header) {
  if (header.has_metadata) throw SafetensorsError("'__metadata__' occurs twice in the header");
  if (json.Null()) return;
  header.has_metadata = true;
  std::unordered_set<std::string> seen;
  json.Object([&](std::string key) {
    if (!seen.insert(key).second)
      throw SafetensorsError("the metadata key " + Quote(key) + " occurs twice");
    std::string value = json.String();
    header.metadata.emplace_back(std::move(key), std::move(value));
  });
}

// Every byte of the data belongs to exactly one tensor. Sorts the entries by their place.
void CheckPlaces(std::vector<SafetensorsEntry>& entries, uint64_t data_size) {
  for (const auto& entry : entries) {
    if (entry.end < entry.begin) {
      Fail(entry.name,
           "its data ends at byte " + std::to_string(entry.end) + ", before it begins at byte " +
               std::to_string(entry.begin));
    }
    const uint64_t needed = ByteLength(entry.name, entry.dtype, entry.shape);
    if (entry.end - entry.begin != needed) {
      Fail(entry.name,
           "shape " + Show(entry.shape) + " of " + std::string(NameOf(entry.dtype)) + " needs " +
               std::to_string(needed) + " bytes, but its offsets hold " +
               std::to_string(entry.end - entry.begin));
    }
  }
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });

  uint64_t covered = 0;
  const SafetensorsEntry* before = nullptr;
  for (const auto& entry : entries) {
    if (entry.begin < covered) {
      Fail(entry.name,
           "its data begins at byte " + std::to_string(entry.begin) +
               " and overlaps that of tensor " + Quote(before->name) + ", which ends at byte " +
               std::to_string(covered));
    }
    if (entry.begin > covered) {
      Fail(entry.name,
           "the " + std::to_string(entry.begin - covered) + " bytes before its data, from byte " +
               std::to_string(covered) + " on, belong to no tensor");
    }
    covered = entry.end;
    before = &entry;
  }
  if (covered > data_size) {
    throw SafetensorsError("the tensors need " + std::to_string(covered) +
                           " bytes of data, but the file holds " + std::to_string(data_size) +
                           ": it is cut off");
  }
  if (covered < data_size) {
    throw SafetensorsError("the last " + std::to_string(data_size - covered) +
                           " bytes of the file belong to no tensor");
  }
}

}  // namespace

std::string_view NameOf(SafetensorsDtype dtype) { return kDtypes[static_cast<size_t>(dtype)].name; }

uint32_t BitsOf(SafetensorsDtype dtype) { return kDtypes[static_cast<size_t>(dtype)].bits; }

uint64_t ParseSafetensorsLength(std::span<const uint8_t> prefix, uint64_t file_size) {
  if (prefix.size() < kSafetensorsPrefix || file_size < kSafetensorsPrefix) {
    throw SafetensorsError("the file has " + std::to_string(file_size) +
                           " bytes; the length of the header alone takes 8");
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kSafetensorsPrefix; ++i)
    length |= static_cast<uint64_t>(prefix[i]) << (8 * i);
  if (length > kSafetensorsMaxHeader) {
    throw SafetensorsError("the header's length is given as " + std::to_string(length) +
                           " bytes, above the format's limit of 100000000");
  }
  if (length > file_size - kSafetensorsPrefix) {
    throw SafetensorsError("the header's length is given as " + std::to_string(length) +
                           " bytes, but only " + std::to_string(file_size - kSafetensorsPrefix) +
                           " follow in the file");
  }
  return length;
}

SafetensorsHeader ParseSafetensorsHeader(std::string_view text, uint64_t data_size) {
  if (text.empty() || text.front() != '{')
    throw SafetensorsError("the header does not start with '{'");
  if (const size_t bad = FindInvalidUtf8(text); bad != std::string_view::npos) {
    throw SafetensorsError("the header is not valid UTF-8 at byte " + std::to_string(bad));
  }
  SafetensorsHeader header;
  std::string current;  // the tensor being read, for the reason
  try {
    JsonReader json(text);
    std::unordered_set<std::string> names;
    json.Object([&](std::string name) {
      current = name;
      if (name == kMetadataKey) {
        ReadMetadata(json, header);
      } else {
        if (!names.insert(name).second) Fail(name, "the name occurs twice in the header");
        header.entries.push_back(ReadEntry(json, std::move(name)));
      }
      current.clear();
    });
    json.End();
  } catch (const JsonError& error) {
    const std::string where = current.empty() ? "" : ", in " + Quote(current);
    throw SafetensorsError(std::string("the header is not valid: ") + error.what() + where);
  }
  CheckPlaces(header.entries, data_size);
  return header;
}

SafetensorsPlan PlanSafetensors(std::span<const SafetensorsSpec> specs,
                                const SafetensorsMetadata* metadata) {
  SafetensorsPlan plan;
  plan.order.resize(specs.size());
  std::iota(plan.order.begin(), plan.order.end(), size_t{0});
  std::sort(plan.order.begin(), plan.order.end(), [&](size_t a, size_t b) {
    return specs[a].dtype != specs[b].dtype ? specs[a].dtype > specs[b].dtype
                                            : specs[a].name < specs[b].name;
  });

  std::string header = "{";
  const auto key = [&](std::string_view name) {
    if (header.size() > 1) header += ',';
    AppendJsonString(header, name);
    header += ':';
  };
  if (metadata != nullptr) {
    key(kMetadataKey);
    header += '{';
    for (size_t i = 0; i < metadata->size(); ++i) {
      if (i > 0) header += ',';
      AppendJsonString(header, (*metadata)[i].first);
      header += ':';
      AppendJsonString(header, (*metadata)[i].second);
    }
    header += '}';
  }

  uint64_t offset = 0;
  std::unordered_set<std::string_view> names;
  for (const size_t index : plan.order) {
    const SafetensorsSpec& spec = specs[index];
    if (spec.name == kMetadataKey) Fail(spec.name, "the format keeps this name for the metadata");
    if (!names.insert(spec.name).second) Fail(spec.name, "the name occurs twice");
    const uint64_t length = ByteLength(spec.name, spec.dtype, spec.shape);
    key(spec.name);
    header += R"({"dtype":")";
    header += NameOf(spec.dtype);
    header += R"(","shape":[)";
    for (size_t i = 0; i < spec.shape.size(); ++i) {
      if (i > 0) header += ',';
      header += std::to_string(spec.shape[i]);
    }
    header += R"(],"data_offsets":[)" + std::to_string(offset) + ',' +
              std::to_string(offset + length) + "]}";
    offset += length;
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');
  if (header.size() > kSafetensorsMaxHeader) {
    throw SafetensorsError("the header would take " + std::to_string(header.size()) +
                           " bytes, above the format's limit of 100000000");
  }

  for (size_t i = 0; i < kSafetensorsPrefix; ++i) {
    plan.prefix += static_cast<char>((static_cast<uint64_t>(header.size()) >> (8 * i)) & 0xFF);
  }
  plan.prefix += header;
  plan.data_size = offset;
  return plan;
}

}  // namespace tf::io
