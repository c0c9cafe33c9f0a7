// torch's names of dtypes, layouts and memory formats, both ways.
#pragma once

#include <c10/core/Layout.h>
#include <c10/core/MemoryFormat.h>
#include <c10/core/ScalarType.h>

#include <optional>
#include <string>
#include <string_view>

namespace tf {

// "float32", "bfloat16", …
std::string_view DtypeName(c10::ScalarType dtype);
// Throws ERR_DTYPE for a name that torch does not have.
c10::ScalarType DtypeFromName(std::string_view name);
std::optional<c10::ScalarType> FindDtype(std::string_view name);

std::string_view LayoutName(c10::Layout layout);
std::optional<c10::Layout> FindLayout(std::string_view name);

std::string_view MemoryFormatName(c10::MemoryFormat format);
std::optional<c10::MemoryFormat> FindMemoryFormat(std::string_view name);

}  // namespace tf
