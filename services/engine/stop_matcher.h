// StopMatcher finds stop strings in a text that arrives in pieces, and lets no
// part of one through.
//
//   StopMatcher matcher({"END"});
//   matcher.Add("the E");   // shows "the ", holds back "E"
//   matcher.Add("ND. x");   // matched: "END" was it, "END. x" is left out
//
// What is found does not depend on how the text is cut: the stop string that is
// complete first; of several at the same place, the longest. Each byte costs
// time in the number of stop strings, whatever they are (Knuth, Morris, Pratt,
// "Fast pattern matching in strings", 1977).
//
// Not thread-safe.
#ifndef MILLRACE_SERVICES_ENGINE_STOP_MATCHER_H_
#define MILLRACE_SERVICES_ENGINE_STOP_MATCHER_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace millrace::engine {

class StopMatcher {
 public:
  struct Found {
    std::string stop;     // the stop string
    std::string trimmed;  // it, and what came after it
  };
  struct Result {
    std::string shown;  // can be no part of a stop string any more
    std::optional<Found> found;
  };

  // `stops` are valid UTF-8, none empty.
  explicit StopMatcher(const std::vector<std::string>& stops);

  // Takes whole characters. REQUIRES: nothing was found yet.
  Result Add(absl::string_view text);

  // Returns what is held back; matching starts anew.
  std::string Flush();

 private:
  struct Pattern {
    std::string text;
    // For each first part of `text`, 1 .. size bytes long, the longest shorter
    // first part that it ends with.
    std::vector<size_t> fallback;
    size_t matched = 0;  // bytes of `text` that the input ends with
  };
  // Takes one byte; returns whether the pattern is complete.
  static bool Advance(char c, Pattern* pattern);
  // The longest pattern that is complete with `c`, or null.
  const Pattern* AdvanceAll(char c);
  size_t LongestMatch() const;

  std::vector<Pattern> patterns_;
  std::string held_;  // the input's last LongestMatch() bytes
};

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_STOP_MATCHER_H_
