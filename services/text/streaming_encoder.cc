#include "services/text/streaming_encoder.h"

#include <algorithm>

namespace millrace::text {
namespace {

// A single word longer than this is cut, so that memory stays bounded; its ids
// may then differ from those of the whole.
constexpr size_t kMaxHeldBytes = 64 << 10;

// The largest offset up to `at` that begins a character.
size_t CharacterStart(absl::string_view text, size_t at) {
  while (at > 0 && at < text.size() && (text[at] & 0xC0) == 0x80) --at;
  return at;
}

}  // namespace

std::vector<int32_t> StreamingEncoder::Add(absl::string_view piece) {
  held_.append(piece.data(), piece.size());
  size_t cut = tokenizer_->LastSafeCut(held_, special_);
  if (held_.size() - cut > kMaxHeldBytes) {
    cut = CharacterStart(held_, held_.size() - 4);
  }
  if (cut == 0) return {};
  std::vector<int32_t> ids =
      tokenizer_->Encode(absl::string_view(held_).substr(0, cut), special_);
  held_.erase(0, cut);
  return ids;
}

std::vector<int32_t> StreamingEncoder::Finish() {
  std::vector<int32_t> ids = tokenizer_->Encode(held_, special_);
  held_.clear();
  return ids;
}

}  // namespace millrace::text
