// A number of bytes as a flag: "1048576", "1MiB", "1.5GiB". Units are powers of
// 1,024: KiB, MiB, GiB, TiB.
#ifndef MILLRACE_SERVICES_SERVER_BYTE_SIZE_H_
#define MILLRACE_SERVICES_SERVER_BYTE_SIZE_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace millrace::server {

struct ByteSize {
  int64_t bytes = 0;
};

bool AbslParseFlag(absl::string_view text, ByteSize* size, std::string* error);
std::string AbslUnparseFlag(ByteSize size);

}  // namespace millrace::server

#endif  // MILLRACE_SERVICES_SERVER_BYTE_SIZE_H_
