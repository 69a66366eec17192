#include "services/text/special_tokens.h"

#include <algorithm>

#include "absl/strings/match.h"

namespace millrace::text {

void SpecialTokenFinder::Add(absl::string_view spelling, int32_t id) {
  by_spelling_.emplace(std::string(spelling), id);
  longest_ = std::max(longest_, spelling.size());
  begins_[static_cast<uint8_t>(spelling[0])] = true;
}

std::optional<SpecialTokenFinder::Found> SpecialTokenFinder::First(
    absl::string_view text, size_t from) const {
  for (size_t at = from; at < text.size(); ++at) {
    if (!begins_[static_cast<uint8_t>(text[at])]) continue;
    const absl::string_view rest = text.substr(at, longest_);
    for (size_t size = rest.size(); size > 0; --size) {
      const auto id = Id(rest.substr(0, size));
      if (id.has_value()) return Found{at, at + size, *id};
    }
  }
  return std::nullopt;
}

std::optional<int32_t> SpecialTokenFinder::Id(
    absl::string_view spelling) const {
  const auto found = by_spelling_.find(spelling);
  if (found == by_spelling_.end()) return std::nullopt;
  return found->second;
}

size_t SpecialTokenFinder::UnfinishedAt(absl::string_view text) const {
  const size_t from = text.size() - std::min(text.size(), longest_);
  for (size_t at = from; at < text.size(); ++at) {
    const absl::string_view tail = text.substr(at);
    const auto next = by_spelling_.lower_bound(tail);
    if (next != by_spelling_.end() && absl::StartsWith(next->first, tail)) {
      return at;
    }
  }
  return text.size();
}

}  // namespace millrace::text
