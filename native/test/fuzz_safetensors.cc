// Puts mutated safetensors files through the reader. The sanitizers watch for what must not happen;
// here it is checked that a file that was accepted means what it says. Arguments: the number of
// files, a folder to write in, seed files. The same arguments give the same files.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "native/io/safetensors_file.h"
#include "native/io/safetensors_header.h"

using namespace tf::io;  // NOLINT: the room under test

namespace {

using Random = std::mt19937_64;

size_t Below(Random& random, size_t limit) { return limit == 0 ? 0 : random() % limit; }

std::string ReadAll(const char* path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void SetLength(std::string& file, uint64_t length) {
  for (size_t i = 0; i < 8 && i < file.size(); ++i) file[i] = static_cast<char>(length >> (8 * i));
}

// The header's bytes in a file, as far as they are there.
std::pair<size_t, size_t> HeaderRange(const std::string& file) {
  if (file.size() < 8) return {file.size(), 0};
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  return {8, std::min<uint64_t>(length, file.size() - 8)};
}

constexpr std::array kNumbers{
    "0",
    "1",
    "-1",
    "-0",
    "2",
    "7",
    "8",
    "255",
    "65536",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1.0",
    "1e3",
    "00",
    "1e400",
    "null",
    "true",
    "\"1\"",
    "[]",
    "{}",
};
constexpr std::array kTokens{
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u",
    "\\ud800",
    "\\udc00",
    "\\u0000",
    " ",
    "\n",
    "\xEF\xBB\xBF",
    "\xC0\x80",
    "\xED\xA0\x80",
    "\xFF",
    "[[[[[[[[[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":",
    "\"dtype\":\"F32\",",
    "\"shape\":[],",
    "\"data_offsets\":[0,0],",
    "\"__metadata__\":{},",
    "\"x\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},",
    "\"BOOL\"",
    "\"F4\"",
    "\"F6_E2M3\"",
    "\"C64\"",
    "NaN",
};

// Replaces one run of digits in the header, and keeps the header's length right so that parsing
// goes on.
void MutateNumber(std::string& file, Random& random) {
  const auto [begin, size] = HeaderRange(file);
  std::vector<std::pair<size_t, size_t>> runs;
  for (size_t i = begin; i < begin + size; ++i) {
    const size_t start = i;
    while (i < begin + size && file[i] >= '0' && file[i] <= '9') ++i;
    if (i > start) runs.emplace_back(start, i - start);
  }
  if (runs.empty()) return;
  const auto [at, count] = runs[Below(random, runs.size())];
  std::string number = kNumbers[Below(random, kNumbers.size())];
  if (random() % 3 == 0)
    number = std::to_string(std::strtoull(file.c_str() + at, nullptr, 10) + random() % 17 - 8);
  file.replace(at, count, number);
  SetLength(file, size - count + number.size());
}

void MutateHeader(std::string& file, Random& random) {
  const auto [begin, size] = HeaderRange(file);
  const size_t at = begin + Below(random, size + 1);
  size_t now = size;
  switch (random() % 4) {
    case 0: {
      const std::string token = kTokens[Below(random, kTokens.size())];
      file.insert(at, token);
      now += token.size();
      break;
    }
    case 1: {
      const size_t count = std::min(Below(random, 40), begin + size - at);
      file.erase(at, count);
      now -= count;
      break;
    }
    case 2: {  // a piece of the header, again
      const size_t from = begin + Below(random, size);
      const std::string piece =
          file.substr(from, std::min(Below(random, 120), begin + size - from));
      file.insert(at, piece);
      now += piece.size();
      break;
    }
    default:
      if (at < file.size()) file[at] = static_cast<char>(random());
  }
  if (random() % 8 != 0) SetLength(file, now);
}

void MutateFile(std::string& file, Random& random) {
  switch (random() % 5) {
    case 0:
      file.resize(Below(random, file.size() + 1));
      break;
    case 1:
      file.append(Below(random, 64), static_cast<char>(random()));
      break;
    case 2:
      SetLength(file, random() >> (random() % 64));
      break;
    case 3:
      SetLength(file, HeaderRange(file).second + random() % 9 - 4);
      break;
    default:
      if (!file.empty())
        file[Below(random, file.size())] ^= static_cast<char>(1u << (random() % 8));
  }
}

[[noreturn]] void Broken(const std::string& path, const char* what) {
  std::printf("the file kept at %s was accepted, but %s\n", path.c_str(), what);
  std::exit(1);
}

// What an accepted file promises; reads all of its data.
void CheckAccepted(const std::string& path, const SafetensorsFile& file) {
  uint64_t covered = 0;
  uint64_t sum = 0;
  std::vector<SafetensorsSpec> specs;
  for (const auto& entry : file.header.entries) {
    if (entry.begin != covered || entry.end < entry.begin)
      Broken(path, "its tensors do not lie side by side");
    covered = entry.end;
    uint64_t bits = BitsOf(entry.dtype);
    for (const uint64_t dim : entry.shape) bits *= dim;
    if (bits != (entry.end - entry.begin) * 8) Broken(path, "a shape does not fit its bytes");
    const uint8_t* data = file.data(entry);
    for (uint64_t i = 0; i < entry.end - entry.begin; ++i) sum += data[i];
    specs.push_back({entry.name, entry.dtype, entry.shape});
  }
  if (file.data_offset + covered != file.mapping->bytes().size())
    Broken(path, "its tensors do not fill it");
  volatile uint64_t keep = sum;
  (void)keep;

  const auto* metadata = file.header.has_metadata ? &file.header.metadata : nullptr;
  const auto plan = PlanSafetensors(specs, metadata);
  const auto again =
      ParseSafetensorsHeader(std::string_view(plan.prefix).substr(8), plan.data_size);
  if (again.entries.size() != specs.size() || again.metadata != file.header.metadata) {
    Broken(path, "it changes when it is written again");
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) return 2;
  const long files = std::atol(arguments[1]);
  const std::string path = std::string(arguments[2]) + "/fuzzed.safetensors";
  std::vector<std::string> seeds;
  for (int i = 3; i < count; ++i) seeds.push_back(ReadAll(arguments[i]));

  Random random(20'240'607);
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (fd < 0) return 2;
  long accepted = 0;
  for (long i = 0; i < files; ++i) {
    std::string file = seeds[Below(random, seeds.size())];
    for (size_t left = 1 + Below(random, 4); left > 0; --left) {
      switch (random() % 3) {
        case 0:
          MutateNumber(file, random);
          break;
        case 1:
          MutateHeader(file, random);
          break;
        default:
          MutateFile(file, random);
      }
    }
    if (ftruncate(fd, static_cast<off_t>(file.size())) != 0 ||
        pwrite(fd, file.data(), file.size(), 0) != static_cast<ssize_t>(file.size())) {
      return 2;
    }
    try {
      CheckAccepted(path, OpenSafetensorsFile(path));
      ++accepted;
    } catch (const SafetensorsError&) {
      // Refused with a reason: as it should be. Anything else ends the run.
    }
  }
  close(fd);
  unlink(path.c_str());
  std::printf("%ld files, %ld accepted, %ld refused\n", files, accepted, files - accepted);
  std::printf("1 passed, 0 failed\n");
  return 0;
}
