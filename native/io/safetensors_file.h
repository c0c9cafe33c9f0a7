// Opens a safetensors file: maps it, reads its header, checks it. Knows no libtorch and no Node.
#pragma once

#include <memory>
#include <string>

#include "native/io/mapping.h"
#include "native/io/safetensors_header.h"

namespace tf::io {

struct SafetensorsFile {
  std::shared_ptr<MappedFile> mapping;
  SafetensorsHeader header;
  size_t data_offset = 0;  // where the data begins in the file

  // The first byte of a tensor's data.
  uint8_t* data(const SafetensorsEntry& entry) const {
    return mapping->bytes().data() + data_offset + entry.begin;
  }
};

// Throws FileError, MappingFault, or SafetensorsError with the file's name before the reason.
SafetensorsFile OpenSafetensorsFile(const std::string& path);

}  // namespace tf::io
