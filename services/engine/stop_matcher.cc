#include "services/engine/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace::engine {

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) {
    // A pattern run over its own text finds its fallbacks.
    Pattern pattern{.text = stop, .fallback = {0}};
    for (size_t i = 1; i < stop.size(); ++i) {
      Advance(stop[i], &pattern);
      pattern.fallback.push_back(pattern.matched);
    }
    pattern.matched = 0;
    patterns_.push_back(std::move(pattern));
  }
}

bool StopMatcher::Advance(char c, Pattern* pattern) {
  size_t& matched = pattern->matched;
  while (matched > 0 && pattern->text[matched] != c) {
    matched = pattern->fallback[matched - 1];
  }
  if (pattern->text[matched] == c) ++matched;
  return matched == pattern->text.size();
}

const StopMatcher::Pattern* StopMatcher::AdvanceAll(char c) {
  const Pattern* longest = nullptr;
  for (Pattern& pattern : patterns_) {
    if (!Advance(c, &pattern)) continue;
    if (longest == nullptr || pattern.text.size() > longest->text.size()) {
      longest = &pattern;
    }
  }
  return longest;
}

size_t StopMatcher::LongestMatch() const {
  size_t longest = 0;
  for (const Pattern& pattern : patterns_) {
    longest = std::max(longest, pattern.matched);
  }
  return longest;
}

StopMatcher::Result StopMatcher::Add(absl::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const Pattern* const complete = AdvanceAll(text[i]);
    if (complete == nullptr) continue;
    const std::string all = absl::StrCat(held_, text);
    const size_t begin = held_.size() + i + 1 - complete->text.size();
    Found found{.stop = complete->text, .trimmed = all.substr(begin)};
    Flush();
    return {.shown = all.substr(0, begin), .found = std::move(found)};
  }
  held_.append(text.data(), text.size());
  const size_t shown = held_.size() - LongestMatch();
  Result result{.shown = held_.substr(0, shown), .found = std::nullopt};
  held_.erase(0, shown);
  return result;
}

std::string StopMatcher::Flush() {
  for (Pattern& pattern : patterns_) pattern.matched = 0;
  return std::exchange(held_, "");
}

}  // namespace millrace::engine
