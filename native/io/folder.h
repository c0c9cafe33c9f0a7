// What a save of a whole folder needs beyond what Node offers. Knows no libtorch and no Node.
#pragma once

#include <string>

namespace tf::io {

// Lets two paths change places in one step: whoever looks sees both before or both after. False
// where the system or the file system cannot (then nothing has happened); throws FileError for all
// else.
bool ExchangePaths(const std::string& a, const std::string& b);

// Locks a file or folder for this process, without waiting: a descriptor that holds the lock until
// it is closed or the process ends, or -1 when another one has it. Throws FileError.
int LockPath(const std::string& path);

// Reads ahead into the page cache, without waiting for the disk where the system allows it.
void ReadAhead(int fd, size_t begin, size_t end);

}  // namespace tf::io
