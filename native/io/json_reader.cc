#include "native/io/json_reader.h"

#include <limits>

namespace tf::io {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Length of the valid UTF-8 sequence at `p`, or 0. `left` is at least 1.
size_t Utf8Length(const unsigned char* p, size_t left) {
  const auto continues = [&](size_t i, unsigned char low = 0x80, unsigned char high = 0xBF) {
    return i < left && p[i] >= low && p[i] <= high;
  };
  const unsigned char lead = p[0];
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return continues(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    // E0 must not be overlong, ED must not be a surrogate.
    const bool second = continues(1, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF);
    return second && continues(2) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const bool second = continues(1, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF);
    return second && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

void AppendUtf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | (code >> 12));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (code >> 18));
    out += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

}  // namespace

size_t FindInvalidUtf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  for (size_t i = 0; i < text.size();) {
    const size_t length = Utf8Length(bytes + i, text.size() - i);
    if (length == 0) return i;
    i += length;
  }
  return std::string_view::npos;
}

void JsonReader::Space() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return;
    ++at_;
  }
}

char JsonReader::Peek() {
  Space();
  return at_ < text_.size() ? text_[at_] : '\0';
}

void JsonReader::Expect(char wanted) {
  if (Peek() != wanted) Fail(std::string("expected '") + wanted + "'");
  ++at_;
}

void JsonReader::Open(char bracket, const char* what) {
  if (Peek() != bracket) Fail(std::string("expected ") + what);
  if (++depth_ > kMaxDepth)
    Fail("values are nested more than " + std::to_string(kMaxDepth) + " deep");
  ++at_;
}

bool JsonReader::Close(char bracket) {
  if (Peek() != bracket) return false;
  ++at_;
  --depth_;
  return true;
}

bool JsonReader::More(char bracket) {
  if (Close(bracket)) return false;
  if (Peek() != ',') Fail(std::string("expected ',' or '") + bracket + "'");
  ++at_;
  return true;
}

std::string JsonReader::String() {
  if (Peek() != '"') Fail("expected a string");
  ++at_;
  std::string out;
  for (;;) {
    // Runs without escapes, nearly all text, are appended whole.
    const size_t start = at_;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
           static_cast<unsigned char>(text_[at_]) >= 0x20) {
      ++at_;
    }
    out.append(text_.substr(start, at_ - start));
    if (at_ == text_.size()) Fail("a string does not end");
    const char c = text_[at_];
    if (c == '"') {
      ++at_;
      return out;
    }
    if (c != '\\') Fail("a string holds a control character that is not escaped");
    ++at_;
    const char escape = at_ < text_.size() ? text_[at_] : '\0';
    switch (escape) {
      case '"':
      case '\\':
      case '/':
        out += escape;
        ++at_;
        break;
      case 'b':
        out += '\b';
        ++at_;
        break;
      case 'f':
        out += '\f';
        ++at_;
        break;
      case 'n':
        out += '\n';
        ++at_;
        break;
      case 'r':
        out += '\r';
        ++at_;
        break;
      case 't':
        out += '\t';
        ++at_;
        break;
      case 'u': {
        ++at_;
        uint32_t code = Hex4();
        if (code >= 0xDC00 && code <= 0xDFFF) Fail("a lone surrogate");
        if (code >= 0xD800 && code <= 0xDBFF) {
          if (text_.substr(at_, 2) != "\\u") Fail("a lone surrogate");
          at_ += 2;
          const uint32_t low = Hex4();
          if (low < 0xDC00 || low > 0xDFFF) Fail("a lone surrogate");
          code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        AppendUtf8(out, code);
        break;
      }
      default:
        Fail("an unknown escape in a string");
    }
  }
}

uint32_t JsonReader::Hex4() {
  uint32_t code = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    uint32_t digit = 0;
    if (IsDigit(c))
      digit = static_cast<uint32_t>(c - '0');
    else if (c >= 'a' && c <= 'f')
      digit = static_cast<uint32_t>(c - 'a' + 10);
    else if (c >= 'A' && c <= 'F')
      digit = static_cast<uint32_t>(c - 'A' + 10);
    else
      Fail("expected four hexadecimal digits after \\u");
    code = code * 16 + digit;
  }
  return code;
}

uint64_t JsonReader::Unsigned() {
  if (Peek() == '-') Fail("expected a whole number of at least 0, got a negative one");
  if (!IsDigit(Peek())) Fail("expected a whole number");
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  uint64_t value = 0;
  const size_t start = at_;
  while (at_ < text_.size() && IsDigit(text_[at_])) {
    const auto digit = static_cast<uint64_t>(text_[at_] - '0');
    if (value > (kMax - digit) / 10) Fail("a whole number is above 2^64 - 1");
    value = value * 10 + digit;
    ++at_;
  }
  if (text_[start] == '0' && at_ - start > 1) Fail("a number starts with 0");
  const char next = at_ < text_.size() ? text_[at_] : '\0';
  if (next == '.' || next == 'e' || next == 'E') Fail("expected a whole number, got a float");
  return value;
}

bool JsonReader::Null() {
  if (Peek() != 'n') return false;
  Word("null");
  return true;
}

void JsonReader::Word(std::string_view word) {
  if (text_.substr(at_, word.size()) != word) Fail("expected a value");
  at_ += word.size();
}

bool JsonReader::Digits() {
  const size_t start = at_;
  while (at_ < text_.size() && IsDigit(text_[at_])) ++at_;
  return at_ > start;
}

void JsonReader::SkipNumber() {
  if (text_[at_] == '-') ++at_;
  const size_t start = at_;
  if (!Digits()) Fail("expected a value");
  if (text_[start] == '0' && at_ - start > 1) Fail("a number starts with 0");
  if (at_ < text_.size() && text_[at_] == '.') {
    ++at_;
    if (!Digits()) Fail("expected digits after '.'");
  }
  if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
    ++at_;
    if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) ++at_;
    if (!Digits()) Fail("expected digits in an exponent");
  }
}

void JsonReader::Skip() {
  switch (Peek()) {
    case '{':
      Object([&](const std::string&) { Skip(); });
      break;
    case '[':
      Array([&] { Skip(); });
      break;
    case '"':
      String();
      break;
    case 't':
      Word("true");
      break;
    case 'f':
      Word("false");
      break;
    case 'n':
      Word("null");
      break;
    default:
      if (at_ == text_.size()) Fail("expected a value");
      SkipNumber();
  }
}

void JsonReader::End() {
  Space();
  if (at_ != text_.size()) Fail("text after the end of the value");
}

void AppendJsonString(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += "\\u00";
          out += kHex[(c >> 4) & 0xF];
          out += kHex[c & 0xF];
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

}  // namespace tf::io
