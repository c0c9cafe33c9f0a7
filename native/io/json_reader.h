// A strict reader for JSON that comes from outside. Pulls values in order, builds no tree, knows no
// libtorch and no Node. The caller says what must come next; anything else is a JsonError with its
// byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace tf::io {

class JsonError : public std::runtime_error {
 public:
  JsonError(const std::string& message, size_t byte)
      : std::runtime_error(message + " at byte " + std::to_string(byte)) {}
};

// Byte of the first sequence that is not UTF-8 (overlong forms and surrogates are not), or npos.
size_t FindInvalidUtf8(std::string_view text);

// Reads `text`, which must be valid UTF-8 and outlive the reader.
class JsonReader {
 public:
  // Containers within containers; the reference's parser stops at the same depth.
  static constexpr int kMaxDepth = 128;

  explicit JsonReader(std::string_view text) : text_(text) {}

  // Reads an object; `on_member(std::string key)` must read the member's value.
  template <typename OnMember>
  void Object(OnMember&& on_member) {
    Open('{', "an object");
    if (!Close('}')) {
      do {
        std::string key = String();
        Expect(':');
        on_member(std::move(key));
      } while (More('}'));
    }
  }

  // Reads an array; `on_element()` must read one element.
  template <typename OnElement>
  void Array(OnElement&& on_element) {
    Open('[', "an array");
    if (!Close(']')) {
      do on_element();
      while (More(']'));
    }
  }

  // Reads a string with its escapes resolved; a lone surrogate is an error.
  std::string String();
  // Reads a whole number of 0 to 2^64 - 1, written in digits alone.
  uint64_t Unsigned();
  // Reads `null` if it comes next.
  bool Null();
  // Reads any value and drops it.
  void Skip();
  // Nothing but white space may follow.
  void End();

 private:
  void Space();
  char Peek();  // the next byte that is not white space; '\0' at the end
  void Expect(char wanted);
  void Open(char bracket, const char* what);
  bool Close(char bracket);
  bool More(char bracket);
  void SkipNumber();
  void Word(std::string_view word);
  bool Digits();
  uint32_t Hex4();
  [[noreturn]] void Fail(const std::string& message) const { throw JsonError(message, at_); }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
};

// Appends `text` as a JSON string: quotes, backslashes and control characters escaped, the rest as
// it is.
void AppendJsonString(std::string& out, std::string_view text);

}  // namespace tf::io
