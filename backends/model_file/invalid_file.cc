#include "backends/model_file/invalid_file.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace millrace::backends {
namespace {

constexpr size_t kLongestName = 80;

}  // namespace

std::string Printable(absl::string_view bytes) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (const unsigned char c : bytes.substr(0, kLongestName)) {
    if (c >= 0x20 && c < 0x7f) {
      out += c;
    } else {
      out += {'\\', 'x', kHex[c >> 4], kHex[c & 15]};
    }
  }
  if (bytes.size() > kLongestName) out += "...";
  return out;
}

absl::Status WithModelFileReason(absl::Status status) {
  if (!status.ok()) {
    status.SetPayload(kReasonTypeUrl, absl::Cord(kModelFileInvalid));
  }
  return status;
}

absl::Status InvalidFile(uint64_t offset, absl::string_view field,
                         absl::string_view problem) {
  return WithModelFileReason(absl::InvalidArgumentError(
      absl::StrCat("byte ", offset, ": ", field, " ", problem)));
}

}  // namespace millrace::backends
