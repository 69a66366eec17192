#include "services/session/secrets.h"

#include <sys/random.h>

#include <cstdlib>

#include "absl/strings/escaping.h"

namespace millrace::session {

std::string RandomHex(int bytes) {
  std::string random(static_cast<size_t>(bytes), '\0');
  // Up to 256 bytes come whole or not at all.
  if (getrandom(random.data(), random.size(), 0) != bytes) std::abort();
  return absl::BytesToHexString(random);
}

bool EqualInConstantTime(absl::string_view a, absl::string_view b) {
  unsigned char difference = a.size() != b.size();
  for (size_t i = 0; i < b.size(); ++i) {
    difference |= static_cast<unsigned char>((i < a.size() ? a[i] : 0) ^ b[i]);
  }
  return difference == 0;
}

}  // namespace millrace::session
