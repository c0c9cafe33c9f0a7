// Included before every file (CMakeLists.txt). Keeps the addon loadable with libstdc++ of GCC 11
// (GLIBCXX_3.4.29): GCC 12 gave this function a new version, which differs only in being
// `noexcept`.
#pragma once

#if defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
__asm__(
    ".symver _ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE,"
    "_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE@GLIBCXX_3.4.11");
#endif
