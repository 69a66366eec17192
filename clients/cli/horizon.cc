#include "clients/cli/horizon.h"

#include <algorithm>

#include "clients/cli/pieces.h"

namespace millrace::cli {
namespace {

constexpr size_t kWordsBytes = 32;

}  // namespace

void Horizon::Add(uint64_t position, absl::string_view text) {
  if (!text.empty()) pieces_.emplace_back(position, std::string(text));
}

void Horizon::Forget(uint64_t before) {
  while (!pieces_.empty() && pieces_.front().first < before) {
    pieces_.pop_front();
  }
  moved_ = true;
}

void Horizon::Clear() {
  pieces_.clear();
  moved_ = false;
}

std::string Horizon::Words() const {
  std::string words;
  for (const auto& [position, text] : pieces_) {
    words += text;
    if (words.size() >= kWordsBytes) break;
  }
  std::string piece(FirstPiece(words, kWordsBytes));
  std::replace(piece.begin(), piece.end(), '\n', ' ');
  return piece;
}

}  // namespace millrace::cli
