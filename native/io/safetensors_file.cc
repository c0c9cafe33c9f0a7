#include "native/io/safetensors_file.h"

#include <algorithm>
#include <array>

namespace tf::io {

SafetensorsFile OpenSafetensorsFile(const std::string& path) {
  SafetensorsFile file;
  file.mapping = MappedFile::Open(path);
  const uint64_t size = file.mapping->bytes().size();
  try {
    // The header is copied before it is checked: another process may write to the file meanwhile.
    std::array<uint8_t, kSafetensorsPrefix> prefix{};
    const size_t present = std::min<uint64_t>(size, prefix.size());
    file.mapping->Read(0, std::span(prefix).first(present));
    const uint64_t length = ParseSafetensorsLength(std::span(prefix).first(present), size);
    std::string header(length, '\0');
    file.mapping->Read(kSafetensorsPrefix,
                       {reinterpret_cast<uint8_t*>(header.data()), header.size()});
    file.mapping->CloseDescriptor();
    file.data_offset = kSafetensorsPrefix + length;
    file.header = ParseSafetensorsHeader(header, size - file.data_offset);
  } catch (const SafetensorsError& error) {
    throw SafetensorsError("'" + path + "' is not a valid safetensors file: " + error.what());
  }
  return file;
}

}  // namespace tf::io
