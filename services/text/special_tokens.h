// SpecialTokenFinder finds the special tokens that a text spells: the leftmost
// first, and the longest of those that begin at one place.
//
// Thread-safe: immutable after construction.
#ifndef MILLRACE_SERVICES_TEXT_SPECIAL_TOKENS_H_
#define MILLRACE_SERVICES_TEXT_SPECIAL_TOKENS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/text/tokenizer.h"

namespace millrace::text {

class SpecialTokenFinder {
 public:
  using Found = Tokenizer::SpecialMatch;

  // REQUIRES: not empty.
  void Add(absl::string_view spelling, int32_t id);

  std::optional<Found> First(absl::string_view text, size_t from = 0) const;

  std::optional<int32_t> Id(absl::string_view spelling) const;

  // Where the end of the text could be the beginning of a special token.
  size_t UnfinishedAt(absl::string_view text) const;

 private:
  std::map<std::string, int32_t, std::less<>> by_spelling_;
  size_t longest_ = 0;
  bool begins_[256] = {};  // whether some spelling begins with the byte
};

}  // namespace millrace::text

#endif  // MILLRACE_SERVICES_TEXT_SPECIAL_TOKENS_H_
