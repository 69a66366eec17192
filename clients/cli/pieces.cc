#include "clients/cli/pieces.h"

#include <cstdint>

#include "absl/strings/str_cat.h"

namespace millrace::cli {
namespace {

bool IsContinuation(char byte) { return (byte & 0xC0) == 0x80; }

// Bytes of the valid character at the start of `text`; 0 if there is none.
// The table of well-formed sequences: Unicode 15, table 3-7.
size_t CharacterBytes(absl::string_view text) {
  const auto at = [&](size_t i) -> uint8_t {
    return i < text.size() ? static_cast<uint8_t>(text[i]) : 0;
  };
  const uint8_t lead = at(0);
  if (lead < 0x80) return 1;
  size_t size = 0;
  uint8_t low = 0x80, high = 0xBF;  // of the second byte
  if (lead >= 0xC2 && lead <= 0xDF) {
    size = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    size = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    size = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return 0;
  }
  if (at(1) < low || at(1) > high) return 0;
  for (size_t i = 2; i < size; ++i) {
    if (!IsContinuation(static_cast<char>(at(i)))) return 0;
  }
  return size;
}

}  // namespace

absl::string_view FirstPiece(absl::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  size_t end = max_bytes;
  while (end > 0 && IsContinuation(text[end])) --end;
  return text.substr(0, end);
}

std::optional<size_t> FindInvalidUtf8(absl::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t size = CharacterBytes(text.substr(at));
    if (size == 0) return at;
    at += size;
  }
  return std::nullopt;
}

absl::Status CheckUtf8(absl::string_view text) {
  const auto bad = FindInvalidUtf8(text);
  if (!bad.has_value()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the text is not valid UTF-8 at byte ", *bad));
}

}  // namespace millrace::cli
