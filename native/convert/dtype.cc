#include "native/convert/dtype.h"

#include <array>
#include <utility>

#include "native/error/error.h"

namespace tf {
namespace {

template <class T>
using Names = std::pair<std::string_view, T>;

// The first name of a dtype is the one we print; torch's short names are understood too.
constexpr std::array kDtypes{
    Names<c10::ScalarType>{"float32", c10::ScalarType::Float},
    Names<c10::ScalarType>{"bfloat16", c10::ScalarType::BFloat16},
    Names<c10::ScalarType>{"float16", c10::ScalarType::Half},
    Names<c10::ScalarType>{"float64", c10::ScalarType::Double},
    Names<c10::ScalarType>{"int64", c10::ScalarType::Long},
    Names<c10::ScalarType>{"int32", c10::ScalarType::Int},
    Names<c10::ScalarType>{"int16", c10::ScalarType::Short},
    Names<c10::ScalarType>{"int8", c10::ScalarType::Char},
    Names<c10::ScalarType>{"uint8", c10::ScalarType::Byte},
    Names<c10::ScalarType>{"bool", c10::ScalarType::Bool},
    Names<c10::ScalarType>{"uint16", c10::ScalarType::UInt16},
    Names<c10::ScalarType>{"uint32", c10::ScalarType::UInt32},
    Names<c10::ScalarType>{"uint64", c10::ScalarType::UInt64},
    Names<c10::ScalarType>{"complex32", c10::ScalarType::ComplexHalf},
    Names<c10::ScalarType>{"complex64", c10::ScalarType::ComplexFloat},
    Names<c10::ScalarType>{"complex128", c10::ScalarType::ComplexDouble},
    Names<c10::ScalarType>{"float8_e4m3fn", c10::ScalarType::Float8_e4m3fn},
    Names<c10::ScalarType>{"float8_e5m2", c10::ScalarType::Float8_e5m2},
    Names<c10::ScalarType>{"float8_e4m3fnuz", c10::ScalarType::Float8_e4m3fnuz},
    Names<c10::ScalarType>{"float8_e5m2fnuz", c10::ScalarType::Float8_e5m2fnuz},
    Names<c10::ScalarType>{"float8_e8m0fnu", c10::ScalarType::Float8_e8m0fnu},
    Names<c10::ScalarType>{"float4_e2m1fn_x2", c10::ScalarType::Float4_e2m1fn_x2},
    Names<c10::ScalarType>{"qint8", c10::ScalarType::QInt8},
    Names<c10::ScalarType>{"quint8", c10::ScalarType::QUInt8},
    Names<c10::ScalarType>{"qint32", c10::ScalarType::QInt32},
    Names<c10::ScalarType>{"float", c10::ScalarType::Float},
    Names<c10::ScalarType>{"half", c10::ScalarType::Half},
    Names<c10::ScalarType>{"double", c10::ScalarType::Double},
    Names<c10::ScalarType>{"long", c10::ScalarType::Long},
    Names<c10::ScalarType>{"int", c10::ScalarType::Int},
    Names<c10::ScalarType>{"short", c10::ScalarType::Short},
    Names<c10::ScalarType>{"chalf", c10::ScalarType::ComplexHalf},
    Names<c10::ScalarType>{"cfloat", c10::ScalarType::ComplexFloat},
    Names<c10::ScalarType>{"cdouble", c10::ScalarType::ComplexDouble},
};

constexpr std::array kLayouts{
    Names<c10::Layout>{"strided", c10::Layout::Strided},
    Names<c10::Layout>{"sparse_coo", c10::Layout::Sparse},
    Names<c10::Layout>{"sparse_csr", c10::Layout::SparseCsr},
    Names<c10::Layout>{"sparse_csc", c10::Layout::SparseCsc},
    Names<c10::Layout>{"sparse_bsr", c10::Layout::SparseBsr},
    Names<c10::Layout>{"sparse_bsc", c10::Layout::SparseBsc},
    Names<c10::Layout>{"jagged", c10::Layout::Jagged},
    Names<c10::Layout>{"_mkldnn", c10::Layout::Mkldnn},
};

constexpr std::array kMemoryFormats{
    Names<c10::MemoryFormat>{"contiguous_format", c10::MemoryFormat::Contiguous},
    Names<c10::MemoryFormat>{"preserve_format", c10::MemoryFormat::Preserve},
    Names<c10::MemoryFormat>{"channels_last", c10::MemoryFormat::ChannelsLast},
    Names<c10::MemoryFormat>{"channels_last_3d", c10::MemoryFormat::ChannelsLast3d},
};

template <class Table>
auto Find(const Table& table, std::string_view name)
    -> std::optional<typename Table::value_type::second_type> {
  for (const auto& [key, value] : table) {
    if (key == name) return value;
  }
  return std::nullopt;
}

template <class Table, class T>
std::string_view Name(const Table& table, T wanted, std::string_view otherwise) {
  for (const auto& [key, value] : table) {
    if (value == wanted) return key;
  }
  return otherwise;
}

}  // namespace

std::string_view DtypeName(c10::ScalarType dtype) {
  return Name(kDtypes, dtype, c10::toString(dtype));
}

std::optional<c10::ScalarType> FindDtype(std::string_view name) { return Find(kDtypes, name); }

c10::ScalarType DtypeFromName(std::string_view name) {
  if (const auto dtype = FindDtype(name)) return *dtype;
  throw Failure(code::kDtype,
                "unknown dtype '" + std::string(name) + "'",
                "dtypes are torch's names, for example 'float32', 'bfloat16', 'int64'.");
}

std::string_view LayoutName(c10::Layout layout) { return Name(kLayouts, layout, "unknown"); }

std::optional<c10::Layout> FindLayout(std::string_view name) { return Find(kLayouts, name); }

std::string_view MemoryFormatName(c10::MemoryFormat format) {
  return Name(kMemoryFormats, format, "unknown");
}

std::optional<c10::MemoryFormat> FindMemoryFormat(std::string_view name) {
  return Find(kMemoryFormats, name);
}

}  // namespace tf
