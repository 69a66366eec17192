#include "services/text/utf8_assembler.h"

#include <cstdint>
#include <utility>

namespace millrace::text {
namespace {

constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Bytes of the character that `lead` begins; 0 if none begins so.
size_t CharacterBytes(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

// Whether `byte` may follow `held`, which begins a character (The Unicode
// Standard, table 3-7): the second byte's range depends on the first.
bool Continues(absl::string_view held, uint8_t byte) {
  uint8_t least = 0x80, most = 0xBF;
  if (held.size() == 1) {
    switch (static_cast<uint8_t>(held[0])) {
      case 0xE0:
        least = 0xA0;  // no longer than needed
        break;
      case 0xED:
        most = 0x9F;  // no surrogates
        break;
      case 0xF0:
        least = 0x90;
        break;
      case 0xF4:
        most = 0x8F;  // nothing beyond U+10FFFF
        break;
    }
  }
  return byte >= least && byte <= most;
}

}  // namespace

std::string Utf8Assembler::Add(absl::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const uint8_t byte = static_cast<uint8_t>(c);
    if (!held_.empty() && !Continues(held_, byte)) text += Finish();
    if (held_.empty() && CharacterBytes(byte) == 0) {
      text.append(kReplacement.data(), kReplacement.size());
      continue;
    }
    held_ += c;
    if (held_.size() == CharacterBytes(static_cast<uint8_t>(held_[0]))) {
      text += std::exchange(held_, "");
    }
  }
  return text;
}

std::string Utf8Assembler::Finish() {
  if (held_.empty()) return "";
  held_.clear();
  return std::string(kReplacement);
}

}  // namespace millrace::text
