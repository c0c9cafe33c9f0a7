// The few lines of a test runner that the native tests need: TEST, CHECK, CHECK_EQ, CHECK_THROWS,
// RunTests.
#pragma once

#include <cstdio>
#include <exception>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

namespace tf::test {

struct Test {
  const char* name;
  std::function<void()> run;
};

inline std::vector<Test>& Tests() {
  static std::vector<Test> tests;
  return tests;
}

inline int failures = 0;  // of the test that runs

inline bool Register(const char* name, std::function<void()> run) {
  Tests().push_back({name, std::move(run)});
  return true;
}

inline void Fail(const char* file, int line, const std::string& what) {
  std::printf("    %s:%d: %s\n", file, line, what.c_str());
  ++failures;
}

template <typename A, typename B>
void CheckEqual(const A& actual, const B& expected, const char* file, int line, const char* text) {
  if (actual == expected) return;
  std::ostringstream what;
  what << text << "\n      got      " << actual << "\n      expected " << expected;
  Fail(file, line, what.str());
}

// `action` must throw E with `part` in its message.
template <typename E, typename Action>
void CheckThrows(Action&& action, const std::string& part, const char* file, int line) {
  try {
    action();
  } catch (const E& error) {
    const std::string message = error.what();
    if (message.find(part) == std::string::npos)
      Fail(file, line, "got '" + message + "', expected '" + part + "'");
    return;
  }
  Fail(file, line, "nothing was thrown, expected '" + part + "'");
}

// Runs all tests and prints "N passed, N failed"; the process's exit status.
inline int RunTests() {
  int passed = 0;
  int failed = 0;
  for (const Test& test : Tests()) {
    failures = 0;
    try {
      test.run();
    } catch (const std::exception& error) {
      Fail(test.name, 0, std::string("threw: ") + error.what());
    }
    (failures == 0 ? passed : failed) += 1;
    std::printf("%s %s\n", failures == 0 ? "  ok  " : "  FAIL", test.name);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace tf::test

#define TF_JOIN2(a, b) a##b
#define TF_JOIN(a, b) TF_JOIN2(a, b)
#define TEST(name)                                       \
  static void TF_JOIN(Test, __LINE__)();                 \
  static const bool TF_JOIN(registered, __LINE__) =      \
      tf::test::Register(name, TF_JOIN(Test, __LINE__)); \
  static void TF_JOIN(Test, __LINE__)()
#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) tf::test::Fail(__FILE__, __LINE__, #condition); \
  } while (false)
#define CHECK_EQ(actual, expected) \
  tf::test::CheckEqual((actual), (expected), __FILE__, __LINE__, #actual " == " #expected)
#define CHECK_THROWS(Type, action, part) \
  tf::test::CheckThrows<Type>([&] { (void)(action); }, part, __FILE__, __LINE__)
