// Tests of the rooms that parse bytes and write files. Arguments: the folder of the refused
// checkpoints, and one to write in.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "native/io/atomic_file.h"
#include "native/io/folder.h"
#include "native/io/json_reader.h"
#include "native/io/mapping.h"
#include "native/io/pieces.h"
#include "native/io/safetensors_file.h"
#include "native/io/safetensors_header.h"
#include "native/test/check.h"

namespace fs = std::filesystem;
using namespace tf::io;  // NOLINT: the room under test

namespace {

fs::path bad_folder;
fs::path scratch;

std::string ReadAll(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void WriteAll(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string Parsed(const std::string& text) { return JsonReader(text).String(); }

void SkipAll(const std::string& text) {
  JsonReader json(text);
  json.Skip();
  json.End();
}

SafetensorsHeader Header(const std::string& text, uint64_t data_size) {
  return ParseSafetensorsHeader(text, data_size);
}

// A header with one tensor of these fields.
std::string One(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"w":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

TEST("json: strings") {
  CHECK_EQ(Parsed(R"("a\"\\\/\b\f\n\r\t")"), "a\"\\/\b\f\n\r\t");
  CHECK_EQ(Parsed(R"("\u00e9\u20AC\ud83d\ude00")"), "é€😀");
  CHECK_EQ(Parsed("\"é€😀\""), "é€😀");
  CHECK_EQ(Parsed(R"("\u0000")").size(), 1u);
  CHECK_THROWS(JsonError, Parsed(R"("\ud83d")"), "lone surrogate");
  CHECK_THROWS(JsonError, Parsed(R"("\ud83d\u0041")"), "lone surrogate");
  CHECK_THROWS(JsonError, Parsed(R"("\ude00")"), "lone surrogate");
  CHECK_THROWS(JsonError, Parsed(R"("\u12g4")"), "hexadecimal");
  CHECK_THROWS(JsonError, Parsed(R"("\u12)"), "hexadecimal");
  CHECK_THROWS(JsonError, Parsed(R"("\x")"), "escape");
  CHECK_THROWS(JsonError, Parsed("\"a\nb\""), "control character");
  CHECK_THROWS(JsonError, Parsed("\"abc"), "does not end at byte 4");
  CHECK_THROWS(JsonError, Parsed("abc"), "expected a string at byte 0");
}

TEST("json: whole numbers") {
  CHECK_EQ(JsonReader(" 0").Unsigned(), 0u);
  CHECK_EQ(JsonReader("18446744073709551615").Unsigned(), UINT64_MAX);
  for (const char* text : {"18446744073709551616",
                           "99999999999999999999999",
                           "-1",
                           "-0",
                           "01",
                           "1.0",
                           "1e3",
                           "x",
                           ""}) {
    CHECK_THROWS(JsonError, JsonReader(text).Unsigned(), "number");
  }
}

TEST("json: values that are passed over") {
  for (const char* text : {"null",
                           "true",
                           "false",
                           "0",
                           "-0",
                           "-1.5e+10",
                           "1E-3",
                           "[]",
                           "{}",
                           " [1, {\"a\": [null]}] ",
                           "\"x\""}) {
    SkipAll(text);
  }
  for (const char* text :
       {"",   "nul",  "tru",  "-",     "1.",       ".5",       "1e",    "00",
        "+1", "[1,]", "[,1]", "[1 2]", "{\"a\"}",  "{\"a\":}", "{a:1}", "{\"a\":1,}",
        "[",  "{",    "1 2",  "NaN",   "Infinity", "'a'",      "[1]]",  "\xEF\xBB\xBF{}"}) {
    CHECK_THROWS(JsonError, SkipAll(text), "at byte");
  }
}

TEST("json: depth is limited") {
  SkipAll(std::string(128, '[') + std::string(128, ']'));
  CHECK_THROWS(JsonError,
               SkipAll(std::string(129, '[') + std::string(129, ']')),
               "nested more than 128 deep");
  CHECK_THROWS(JsonError, SkipAll(std::string(1'000'000, '[')), "nested");
}

TEST("json: UTF-8") {
  const auto npos = std::string_view::npos;
  CHECK_EQ(FindInvalidUtf8("aé€😀"), npos);
  CHECK_EQ(FindInvalidUtf8("\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEF\xBF\xBF\xF0\x90\x80"
                           "\x80\xF4\x8F\xBF\xBF"),
           npos);
  for (const char* bad : {"\x80",
                          "\xC1\x81",
                          "\xC3",
                          "\xE0\x9F\xBF",
                          "\xED\xA0\x80",
                          "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80",
                          "\xF5\x80\x80\x80",
                          "\xFF",
                          "\xE2\x82",
                          "\xF0\x9F\x98",
                          "\xE2\x28\xA1"}) {
    CHECK_EQ(FindInvalidUtf8(std::string("ab") + bad), 2u);
  }
}

TEST("json: what is written reads back") {
  std::string text;
  std::string all;
  for (int c = 0; c < 128; ++c) all += static_cast<char>(c);
  all += "é\u2028😀";
  AppendJsonString(text, all);
  CHECK_EQ(Parsed(text), all);
}

TEST("header: what is accepted") {
  const auto header = Header(
      R"({"b":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]}, "__metadata__":{"format":"pt","é":""},)"
      R"("a":{"shape":[],"later":{"x":[1.5,null]},"data_offsets":[0,4],"dtype":"I32"},)"
      R"("empty":{"dtype":"F64","shape":[0,5],"data_offsets":[12,12]}}   )",
      12);
  CHECK_EQ(header.entries.size(), 3u);
  CHECK_EQ(header.entries[0].name, "a");
  CHECK_EQ(header.entries[0].shape.size(), 0u);
  CHECK_EQ(header.entries[1].name, "b");
  CHECK_EQ(header.entries[1].shape[0], 2u);
  CHECK_EQ(header.entries[2].name, "empty");
  CHECK(header.has_metadata);
  CHECK_EQ(header.metadata[1].first, "é");
  CHECK(!Header("{}", 0).has_metadata);
  CHECK(!Header(R"({"__metadata__":null})", 0).has_metadata);
  CHECK(Header(R"({"__metadata__":{}})", 0).has_metadata);
}

TEST("header: every dtype") {
  const std::array<std::pair<const char*, uint64_t>, 22> bits{{
      {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
      {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
      {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
      {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
      {"I64", 64},        {"U64", 64},
  }};
  for (const auto& [name, size] : bits) {
    const std::string end = std::to_string(size * 4 / 8);
    const auto header = Header(One(name, "[2,2]", "[0," + end + "]"), size * 4 / 8);
    CHECK_EQ(NameOf(header.entries[0].dtype), name);
    CHECK_EQ(BitsOf(header.entries[0].dtype), size);
  }
  CHECK_THROWS(SafetensorsError, Header(One("F4", "[3]", "[0,2]"), 2), "does not fill whole bytes");
  CHECK_THROWS(SafetensorsError,
               Header(One("F128", "[1]", "[0,16]"), 16),
               "tensor 'w': unknown dtype 'F128'");
  CHECK_THROWS(SafetensorsError, Header(One("f32", "[1]", "[0,4]"), 4), "unknown dtype 'f32'");
}

TEST("header: what is refused") {
  const auto refused = [](const std::string& text, uint64_t size, const std::string& reason) {
    CHECK_THROWS(SafetensorsError, Header(text, size), reason);
  };
  refused("", 0, "does not start with '{'");
  refused(" {}", 0, "does not start with '{'");
  refused("[]", 0, "does not start with '{'");
  refused("{", 0, "expected a string");
  refused("{}x", 0, "text after the end");
  refused(std::string("{}\0", 3), 0, "text after the end");
  refused("{\"\xFF\":1}", 0, "not valid UTF-8 at byte 2");
  refused(R"({"w":3})", 0, "expected an object at byte 5, in 'w'");
  refused(R"({"w":{}})", 0, "'dtype' is missing");
  refused(R"({"w":{"dtype":"F32"}})", 0, "'shape' is missing");
  refused(R"({"w":{"dtype":"F32","shape":[1]}})", 0, "'data_offsets' is missing");
  refused(R"({"w":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
          4,
          "'dtype' occurs twice");
  refused(
      R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
      8,
      "tensor 'w': the name occurs twice");
  refused(R"({"__metadata__":{},"__metadata__":{}})", 0, "occurs twice");
  refused(R"({"__metadata__":{"a":"1","a":"2"}})", 0, "metadata key 'a' occurs twice");
  refused(R"({"__metadata__":{"a":1}})", 0, "expected a string");
  refused(R"({"__metadata__":[]})", 0, "expected an object");
  refused(One("F32", "[1.0]", "[0,4]"), 4, "got a float");
  refused(One("F32", "[-1]", "[0,4]"), 4, "negative");
  refused(One("F32", "1", "[0,4]"), 4, "expected an array");
  refused(One("F32", "[1]", "[0,4,8]"), 4, "holds 3 numbers");
  refused(One("F32", "[1]", "[4,0]"), 4, "before it begins");
  refused(One("F32", "[3]", "[0,4]"), 4, "needs 12 bytes, but its offsets hold 4");
  refused(One("F32", "[1]", "[0,4]"), 3, "cut off");
  refused(One("F32", "[1]", "[0,4]"), 5, "the last 1 bytes");
  refused(One("F32", "[1]", "[1,5]"), 5, "the 1 bytes before its data");
  refused(One("F32", "[4294967296,4294967296]", "[0,4]"), 4, "overflows 64 bits");
  refused(One("F32", "[0,4294967296,4294967296,4294967296]", "[0,0]"), 0, "overflows 64 bits");
  refused(One("U8", "[18446744073709551615]", "[0,18446744073709551615]"), 4, "overflows 64 bits");
  refused(One("U8", "[18446744073709551616]", "[0,1]"), 1, "above 2^64 - 1");
  refused(
      R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
      6,
      "tensor 'b': its data begins at byte 2 and overlaps that of tensor 'a'");
  // A long or hostile name is cut and escaped in the message.
  refused("{\"" + std::string(100'000, 'x') + "\":{}}", 0, "(the first of 100000 bytes)");
  refused(R"({"a\u001b[31m":{}})", 0, "'a\\u001b[31m'");
}

TEST("header: its length") {
  const auto length = [](std::array<uint8_t, 8> bytes, uint64_t size) {
    return ParseSafetensorsLength(bytes, size);
  };
  CHECK_EQ(length({2, 1, 0, 0, 0, 0, 0, 0}, 1000), 258u);
  CHECK_THROWS(SafetensorsError, ParseSafetensorsLength({}, 0), "the file has 0 bytes");
  CHECK_THROWS(SafetensorsError, length({2, 0, 0, 0, 0, 0, 0, 0}, 9), "but only 1 follow");
  CHECK_THROWS(SafetensorsError,
               length({1, 0xE1, 0xF5, 5, 0, 0, 0, 0}, UINT64_MAX),
               "above the format's limit");
  CHECK_EQ(length({0, 0xE1, 0xF5, 5, 0, 0, 0, 0}, UINT64_MAX), 100'000'000u);
  CHECK_THROWS(SafetensorsError,
               length({255, 255, 255, 255, 255, 255, 255, 255}, 100),
               "above the format's limit");
}

TEST("header: written as the reference writes it") {
  const std::vector<SafetensorsSpec> specs{
      {"b", SafetensorsDtype::kF32, {1}},
      {"half", SafetensorsDtype::kF16, {2}},
      {"a\u00e9\n\"\\\u0001", SafetensorsDtype::kF32, {0, 3}},
      {"z", SafetensorsDtype::kF32, {}},
      {"flag", SafetensorsDtype::kBool, {3}},
      {"n", SafetensorsDtype::kI64, {1}},
      {"brain", SafetensorsDtype::kBF16, {1}},
  };
  const SafetensorsMetadata metadata{{"format", "pt"}};
  const auto plan = PlanSafetensors(specs, &metadata);
  const std::string expected =
      R"({"__metadata__":{"format":"pt"},"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
      R"("a)"
      "\u00e9"
      R"(\n\"\\\u0001":{"dtype":"F32","shape":[0,3],"data_offsets":[8,8]},)"
      R"("b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},"z":{"dtype":"F32","shape":[],"data_offsets":[12,16]},)"
      R"("brain":{"dtype":"BF16","shape":[1],"data_offsets":[16,18]},"half":{"dtype":"F16","shape":[2],"data_offsets":[18,22]},)"
      R"("flag":{"dtype":"BOOL","shape":[3],"data_offsets":[22,25]}})";
  CHECK_EQ(plan.prefix.substr(8, expected.size()), expected);
  CHECK_EQ(plan.prefix.size() % 8, 0u);
  CHECK_EQ(plan.data_size, 25u);
  CHECK_EQ(plan.order[0], 5u);
  CHECK_EQ(PlanSafetensors({}, nullptr).prefix, std::string("\x08\0\0\0\0\0\0\0{}      ", 16));

  const auto header = Header(plan.prefix.substr(8), 25);
  CHECK_EQ(header.entries.size(), specs.size());
  const std::vector<SafetensorsSpec> twice{{"a", SafetensorsDtype::kU8, {}},
                                           {"a", SafetensorsDtype::kU8, {}}};
  CHECK_THROWS(SafetensorsError, PlanSafetensors(twice, nullptr), "occurs twice");
  const std::vector<SafetensorsSpec> reserved{{"__metadata__", SafetensorsDtype::kU8, {}}};
  CHECK_THROWS(SafetensorsError, PlanSafetensors(reserved, nullptr), "keeps this name");
}

TEST("file: the refused checkpoints") {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(bad_folder)) {
    if (!entry.path().filename().string().starts_with("safetensors-")) continue;
    ++count;
    for (const auto& file : fs::directory_iterator(entry)) {
      if (file.path().extension() != ".safetensors") continue;
      CHECK_THROWS(SafetensorsError, OpenSafetensorsFile(file.path()), file.path().string());
    }
  }
  CHECK(count >= 16);
}

TEST("file: opened, kept by its last user, and counted") {
  const fs::path path = scratch / "one.safetensors";
  const auto plan =
      PlanSafetensors(std::vector<SafetensorsSpec>{{"w", SafetensorsDtype::kI32, {2}}}, nullptr);
  WriteAll(path, plan.prefix + std::string("\1\0\0\0\2\0\0\0", 8));
  const uint64_t before = MappedBytes();
  auto file = OpenSafetensorsFile(path);
  CHECK_EQ(MappedBytes() - before, fs::file_size(path));
  const auto mapping = file.mapping;
  auto* values = reinterpret_cast<int32_t*>(file.data(file.header.entries[0]));
  file = {};
  fs::remove(path);
  CHECK_EQ(values[1], 2);
  CHECK(mapping->writable());
  values[1] = 7;  // private to us
  CHECK_EQ(values[1], 7);
  CHECK_EQ(mapping.use_count(), 1);
}

TEST("file: what cannot be opened") {
  CHECK_THROWS(FileError, OpenSafetensorsFile(scratch / "absent"), "No such file");
  CHECK_THROWS(FileError, OpenSafetensorsFile(scratch), "Is a directory");
  CHECK_THROWS(FileError, OpenSafetensorsFile("/dev/null"), "cannot map");
}

TEST("mapping: a file that shrinks") {
  const fs::path path = scratch / "shrinks";
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  WriteAll(path, std::string(8 * page, 'x'));
  auto shrunk = MappedFile::Open(path);
  WriteAll(scratch / "whole", std::string(page, 'y'));
  const auto whole = MappedFile::Open(scratch / "whole");
  fs::resize_file(path, 2 * page);

  const volatile uint8_t* bytes = shrunk->bytes().data();
  CheckMappingFaults();
  CHECK_EQ(bytes[page], 'x');
  // From several threads at once, as a parallel region would.
  std::vector<std::thread> threads;
  std::array<int, 4> seen{-1, -1, -1, -1};
  for (size_t i = 0; i < seen.size(); ++i)
    threads.emplace_back([&, i] { seen[i] = bytes[(2 + i) * page + 5]; });
  for (auto& thread : threads) thread.join();
  for (const int value : seen) CHECK_EQ(value, 0);

  CHECK_THROWS(MappingFault, CheckMappingFaults(), path.string());
  CheckMappingFaults();  // reported once
  CHECK_THROWS(MappingFault, CheckMapped(const_cast<uint8_t*>(bytes)), "became shorter");
  CheckMapped(whole->bytes().data());
  shrunk.reset();
  CheckMapped(const_cast<uint8_t*>(bytes));
}

TEST("mapping: the table grows") {
  WriteAll(scratch / "many", "abc");
  std::vector<std::shared_ptr<MappedFile>> files;
  for (int i = 0; i < 600; ++i) {
    files.push_back(MappedFile::Open(scratch / "many"));
    files.back()->CloseDescriptor();
  }
  fs::resize_file(scratch / "many", 0);
  const volatile uint8_t* last = files.back()->bytes().data();
  CHECK_EQ(*last, 0);
  CHECK_THROWS(MappingFault, CheckMappingFaults(), "many");
}

TEST("mapping: a foreign fault ends the process as before") {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);  // a sanitizer's report is expected here
    MappedFile::Open(scratch / "whole");               // installs the handler
    WriteAll(scratch / "foreign", "x");
    const int fd = ::open((scratch / "foreign").c_str(), O_RDONLY);
    auto* page = static_cast<volatile char*>(mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, fd, 0));
    fs::resize_file(scratch / "foreign", 0);
    (void)*page;
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
#if defined(__SANITIZE_ADDRESS__)
  CHECK(!WIFEXITED(status) || WEXITSTATUS(status) != 0);  // the sanitizer's own handler reports it
#else
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
#endif
}

TEST("atomic file: committed, or nothing stays") {
  const fs::path folder = scratch / "atomic";
  fs::create_directory(folder);
  const fs::path path = folder / std::string(255, 'n');
  WriteAll(path, "old");
  fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
  {
    AtomicFile file(path);
    file.Write(std::string("half"));
  }
  CHECK_EQ(ReadAll(path), "old");
  {
    AtomicFile file(path);
    file.Write(std::string("new"));
    CHECK_EQ(ReadAll(path), "old");
    file.Commit();
  }
  CHECK_EQ(ReadAll(path), "new");
  CHECK(fs::status(path).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
  CHECK_EQ(std::distance(fs::directory_iterator(folder), {}), 1);
}

TEST("atomic file: follows a link and keeps it") {
  WriteAll(scratch / "target", "old");
  fs::create_symlink(scratch / "target", scratch / "link");
  AtomicFile file(scratch / "link");
  file.Write(std::string("new"));
  file.Commit();
  CHECK(fs::is_symlink(scratch / "link"));
  CHECK_EQ(ReadAll(scratch / "target"), "new");
}

TEST("atomic file: what cannot be written") {
  CHECK_THROWS(FileError, AtomicFile(scratch / "absent" / "x"), "No such file");
  CHECK_THROWS(FileError, AtomicFile(scratch), "Is a directory");
  // A limit stands in for a full disk: the same path, another number.
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{1 << 20, before.rlim_max};
  const auto count = [] { return std::distance(fs::directory_iterator(scratch), {}); };
  const auto entries = count();
  setrlimit(RLIMIT_FSIZE, &small);
  CHECK_THROWS(
      FileError,
      [] {
        AtomicFile file(scratch / "large");
        file.Write(std::string(2 << 20, 'x'));
      }(),
      "large': File too large");
  setrlimit(RLIMIT_FSIZE, &before);
  CHECK_EQ(count(), entries);
}

TEST("atomic file: a kill leaves the old content or the new") {
  const fs::path path = scratch / "killed";
  constexpr size_t kSize = 4 << 20;
  WriteAll(path, std::string(kSize, 'a'));
  std::fflush(stdout);
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      for (char letter = 'a';; letter = static_cast<char>(letter == 'z' ? 'a' : letter + 1)) {
        AtomicFile file(path);
        const std::string content(kSize, letter);
        for (size_t i = 0; i < kSize; i += kSize / 16)
          file.Write(std::span(content).subspan(i, kSize / 16));
        file.Commit();
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 40'000));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const std::string content = ReadAll(path);
    CHECK(content == std::string(kSize, content[0]));
  }
}

TEST("atomic file: room is taken before it is filled") {
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{1 << 20, before.rlim_max};
  signal(SIGXFSZ, SIG_DFL);  // it would end the process
  setrlimit(RLIMIT_FSIZE, &small);
  CHECK_THROWS(
      FileError,
      [] {
        AtomicFile file(scratch / "reserved");
        file.Reserve(2 << 20);
      }(),
      "reserved': File too large");
  setrlimit(RLIMIT_FSIZE, &before);
  AtomicFile file(scratch / "reserved");
  file.Reserve(8);
  file.Write(std::string("12345678"));
  file.Commit();
  CHECK_EQ(ReadAll(scratch / "reserved"), "12345678");
}

TEST("folders: two change places") {
  fs::create_directories(scratch / "a");
  fs::create_directories(scratch / "b");
  WriteAll(scratch / "a" / "x", "a");
  WriteAll(scratch / "b" / "x", "b");
  CHECK(ExchangePaths(scratch / "a", scratch / "b"));
  CHECK_EQ(ReadAll(scratch / "a" / "x"), "b");
  CHECK_EQ(ReadAll(scratch / "b" / "x"), "a");
  CHECK_THROWS(FileError, ExchangePaths(scratch / "a", scratch / "absent"), "No such file");
  fs::create_directories(scratch / "a" / "below");
  CHECK(!ExchangePaths(scratch / "a", scratch / "a" / "below"));
}

TEST("folders: a lock has one holder") {
  fs::create_directories(scratch / "locked");
  const int first = LockPath(scratch / "locked");
  CHECK(first >= 0);
  CHECK_EQ(LockPath(scratch / "locked"), -1);
  close(first);
  const int second = LockPath(scratch / "locked");
  CHECK(second >= 0);
  close(second);
  CHECK_THROWS(FileError, LockPath(scratch / "absent"), "No such file");
}

TEST("mapping: the file is opened again, unless its path names another one") {
  WriteAll(scratch / "again", "first");
  const auto mapping = MappedFile::Open(scratch / "again");
  mapping->CloseDescriptor();
  const int fd = mapping->Reopen();
  CHECK(fd >= 0);
  close(fd);
  WriteAll(scratch / "other", "other");
  fs::rename(scratch / "other", scratch / "again");
  CHECK_EQ(mapping->Reopen(), -1);
  fs::remove(scratch / "again");
  CHECK_EQ(mapping->Reopen(), -1);
}

// Every element of the view is in exactly one piece, at the place that its starts say.
void CheckPieces(const View& view, uint64_t limit) {
  std::vector<uint64_t> wanted;
  std::vector<uint64_t> found;
  const auto each = [](const View& part, const auto& visit) {
    std::vector<int64_t> at(part.sizes.size(), 0);
    for (const int64_t size : part.sizes) {
      if (size == 0) return;
    }
    for (;;) {
      uint64_t element = part.offset;
      for (size_t i = 0; i < at.size(); ++i)
        element += static_cast<uint64_t>(at[i] * part.strides[i]);
      visit(element);
      size_t i = at.size();
      while (i > 0 && ++at[i - 1] == part.sizes[i - 1]) at[--i] = 0;
      if (i == 0) return;
    }
  };
  each(view, [&](uint64_t element) { wanted.push_back(element); });
  EachPiece(view, limit, [&](const Piece& piece) {
    uint64_t first = view.offset;
    for (size_t i = 0; i < piece.starts.size(); ++i)
      first += static_cast<uint64_t>(piece.starts[i] * view.strides[i]);
    CHECK_EQ(piece.view.offset, first);
    CHECK(SpanOf(piece.view) <= std::max<uint64_t>(limit, 1));
    each(piece.view, [&](uint64_t element) { found.push_back(element); });
  });
  std::sort(wanted.begin(), wanted.end());
  std::sort(found.begin(), found.end());
  CHECK(wanted == found);
}

TEST("pieces cover a view, and none is larger than allowed") {
  CheckPieces({5, {}, {}}, 1);
  CheckPieces({0, {0, 3}, {3, 1}}, 2);
  CheckPieces({0, {1, 100}, {100, 1}}, 7);
  CheckPieces({0, {2, 200'000}, {200'000, 1}}, 1000);  // rows larger than a piece
  CheckPieces({10, {4, 50}, {40'000, 1}}, 100'000);    // gaps that are skipped
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    const size_t dimensions = random() % 5;
    View view{random() % 10, {}, {}};
    int64_t stride = 1;
    for (size_t i = 0; i < dimensions; ++i) {
      const auto size = static_cast<int64_t>(1 + random() % 6);
      view.sizes.push_back(size);
      view.strides.push_back(stride);
      stride *= size + static_cast<int64_t>(random() % 3);
    }
    for (size_t i = dimensions; i > 1; --i) {  // dimensions in any order, as a transpose leaves them
      const size_t other = random() % i;
      std::swap(view.sizes[i - 1], view.sizes[other]);
      std::swap(view.strides[i - 1], view.strides[other]);
    }
    CheckPieces(view, random() % 100);
  }
}

}  // namespace

int main(int, char** argv) {
  bad_folder = argv[1];
  scratch = argv[2];
  return tf::test::RunTests();
}
