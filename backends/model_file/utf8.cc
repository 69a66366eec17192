#include "backends/model_file/utf8.h"

#include <cstddef>
#include <cstdint>

namespace millrace::backends {
namespace {

// Bytes of the character that `lead` starts; 0 if none may start with it.
size_t CharacterBytes(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead < 0xe0) return 2;
  if (lead >= 0xe0 && lead < 0xf0) return 3;
  if (lead >= 0xf0 && lead < 0xf5) return 4;
  return 0;
}

// The second byte has a narrower range after some leads: it is there that
// overlong forms, surrogates and values beyond the last character show.
bool SecondByteFits(unsigned char lead, unsigned char second) {
  if (lead == 0xe0) return second >= 0xa0;
  if (lead == 0xed) return second < 0xa0;
  if (lead == 0xf0) return second >= 0x90;
  if (lead == 0xf4) return second < 0x90;
  return true;
}

}  // namespace

bool IsValidUtf8(absl::string_view bytes) {
  for (size_t i = 0; i < bytes.size();) {
    const unsigned char lead = bytes[i];
    const size_t length = CharacterBytes(lead);
    if (length == 0 || length > bytes.size() - i) return false;
    for (size_t j = 1; j < length; ++j) {
      if ((bytes[i + j] & 0xc0) != 0x80) return false;
    }
    if (length > 1 && !SecondByteFits(lead, bytes[i + 1])) return false;
    i += length;
  }
  return true;
}

}  // namespace millrace::backends
