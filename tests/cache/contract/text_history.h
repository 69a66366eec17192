// A random text that is read, written and cut back, and what two caches of it
// have to agree on.
#ifndef MILLRACE_TESTS_CACHE_CONTRACT_TEXT_HISTORY_H_
#define MILLRACE_TESTS_CACHE_CONTRACT_TEXT_HISTORY_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/cache/contract/properties.h"
#include "tests/cache/contract/random_case.h"
#include "tests/cache/contract/scored_cache.h"

namespace millrace::cache {

inline SequenceOptions OptionsFor(const PolicyPtr& policy,
                                  const RandomCase& random) {
  return {.policy = policy,
          .max_chunk_tokens = random.max_chunk(),
          .rollback_tokens = random.hold()};
}

inline ScoredCache::Chunks RandomChunks(RandomCase& random) {
  return [&random] { return random.Chunk(); };
}

// What was done with a text, as far as it is left.
struct Part {
  bool read;   // else written
  bool ended;  // of what is read: what follows is another input
  Names names;
};

class History {
 public:
  explicit History(RandomCase* random) : random_(*random) {}

  // The names of the next tokens.
  Names Next(int64_t tokens) const {
    Names names;
    for (int64_t i = 0; i < tokens; ++i) {
      names.push_back(NameOf(length_ + i, cuts_));
    }
    return names;
  }

  void Add(bool read, bool ended, const Names& names) {
    length_ += static_cast<int64_t>(names.size());
    const bool goes_on =
        !parts_.empty() && parts_.back().read && !parts_.back().ended && read;
    if (!goes_on) return parts_.push_back({read, ended, names});
    Part& last = parts_.back();
    last.names.insert(last.names.end(), names.begin(), names.end());
    last.ended = ended;
  }

  void End() {
    if (!parts_.empty()) parts_.back().ended = true;
  }

  void CutTo(int64_t length) {
    ++cuts_;
    while (length_ > length) {
      Names& names = parts_.back().names;
      const auto cut =
          std::min(length_ - length, static_cast<int64_t>(names.size()));
      names.resize(names.size() - static_cast<size_t>(cut));
      length_ -= cut;
      if (names.empty()) {
        parts_.pop_back();
      } else {
        parts_.back().ended = false;
      }
    }
  }

  // One or two parts more, carried out in `cache` too.
  void Grow(ScoredCache& cache) {
    const bool ended = random_.Below(3) != 0;
    const Names read = Next(1 + random_.Below(50));
    cache.Read(read, ended);
    Add(true, ended, read);
    if (random_.Below(2) == 0) return;
    End();
    Names written = Next(1 + random_.Below(20));
    written.resize(static_cast<size_t>(cache.Write(written)));
    if (!written.empty()) Add(false, true, written);
  }

  // All of it once more, in another cache.
  void Repeat(ScoredCache& cache) const {
    for (const Part& part : parts_) {
      if (part.read) {
        cache.Read(part.names, part.ended);
      } else {
        cache.Write(part.names);
      }
    }
  }

  int64_t length() const { return length_; }

 private:
  RandomCase& random_;
  int64_t length_ = 0, cuts_ = 0;
  std::vector<Part> parts_;
};

// Sums decide from row to row only where they accumulate.
inline bool SumsMatter(const CachePolicy& policy) {
  return policy.traits().scores == ScoreNeed::kAccumulated;
}

// How `a` and `b`, of equal texts, differ; empty if they do not.
inline std::string Difference(const ScoredCache& a, const ScoredCache& b,
                              bool sums) {
  if (a.text() != b.text()) return "the texts differ";
  for (size_t t = 0; t < std::min(a.rows().size(), b.rows().size()); ++t) {
    if (a.rows()[t] != b.rows()[t]) {
      return absl::StrCat("row ", t, " of ", a.text_length(),
                          " does not see what it should");
    }
  }
  if (a.Held() != b.Held()) {
    return absl::StrCat("at ", a.text_length(), " tokens others are held");
  }
  const auto x = a.Sums(), y = b.Sums();
  if (!sums || x.empty() || y.empty() || x == y) return "";
  return absl::StrCat("at ", a.text_length(), " tokens the sums are others");
}

}  // namespace millrace::cache

#endif  // MILLRACE_TESTS_CACHE_CONTRACT_TEXT_HISTORY_H_
