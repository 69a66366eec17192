#include "services/engine/stop_matcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/testing/fake_model.h"

namespace millrace::engine {
namespace {

// What is shown, piece by piece, and then what was found: "the |[END|END. x]".
std::string Matched(const std::vector<std::string>& stops,
                    const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  std::string out;
  for (const std::string& piece : pieces) {
    const StopMatcher::Result result = matcher.Add(piece);
    absl::StrAppend(&out, result.shown, "|");
    if (!result.found.has_value()) continue;
    return absl::StrCat(out, "[", result.found->stop, "|",
                        result.found->trimmed, "]");
  }
  return absl::StrCat(out, matcher.Flush());
}

TEST(StopMatcherTest, ShowsEverythingWithoutStops) {
  EXPECT_EQ(Matched({}, {"one ", "two"}), "one |two|");
}

TEST(StopMatcherTest, HoldsBackWhatMayBecomeAStop) {
  EXPECT_EQ(Matched({"END"}, {"the E", "ND. x"}), "the ||[END|END. x]");
  EXPECT_EQ(Matched({"END"}, {"the E", "NTER"}), "the |ENTER|");
  EXPECT_EQ(Matched({"END"}, {"the E"}), "the |E");
}

TEST(StopMatcherTest, FindsAStopWithinAPiece) {
  EXPECT_EQ(Matched({"END"}, {"theENDofit"}), "the|[END|ENDofit]");
  EXPECT_EQ(Matched({"END"}, {"END"}), "|[END|END]");
}

TEST(StopMatcherTest, FindsAStopThatBeginsWithinAFailedOne) {
  EXPECT_EQ(Matched({"aab"}, {"a", "a", "a", "b"}), "||a||[aab|aab]");
  EXPECT_EQ(Matched({"abcabd"}, {"abcabcabd"}), "abc|[abcabd|abcabd]");
}

TEST(StopMatcherTest, TakesTheOneThatIsCompleteFirst) {
  EXPECT_EQ(Matched({"bcd", "c"}, {"abcd"}), "ab|[c|cd]");
  EXPECT_EQ(Matched({"c", "bcd"}, {"ab", "cd"}), "a|b|[c|cd]");
}

TEST(StopMatcherTest, TakesTheLongestOfThoseCompleteAtOnce) {
  EXPECT_EQ(Matched({"c", "bc"}, {"abc"}), "a|[bc|bc]");
  EXPECT_EQ(Matched({"bc", "c"}, {"abc"}), "a|[bc|bc]");
}

TEST(StopMatcherTest, StartsAnewAfterAFlush) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.Add("xEN").shown, "x");
  EXPECT_EQ(matcher.Flush(), "EN");
  EXPECT_EQ(matcher.Add("D").shown, "D");
}

TEST(StopMatcherTest, HoldsWholeCharactersBack) {
  // é and è begin with the same byte.
  EXPECT_EQ(Matched({"éa"}, {"è", "é", "é", "a"}), "è||é||[éa|éa]");
}

// Random texts over two letters, random stops, random cuts.
class StopMatcherPropertyTest : public ::testing::Test {
 protected:
  uint64_t Dice(uint64_t sides) { return testing::Mix(++dice_) % sides; }

  std::string RandomText(uint64_t length) {
    std::string text;
    while (text.size() < length) text += Dice(2) == 0 ? "a" : "b";
    return text;
  }

  // The stop that is complete first, the longest of several: where it ends.
  static bool FindPlainly(const std::string& text,
                          const std::vector<std::string>& stops, size_t* begin,
                          std::string* stop) {
    for (size_t end = 1; end <= text.size(); ++end) {
      stop->clear();
      for (const std::string& s : stops) {
        if (s.size() <= end && text.compare(end - s.size(), s.size(), s) == 0 &&
            s.size() > stop->size()) {
          *stop = s;
        }
      }
      *begin = end - stop->size();
      if (!stop->empty()) return true;
    }
    return false;
  }

  uint64_t dice_ = 0;
};

TEST_F(StopMatcherPropertyTest, NothingLeaksAndNothingIsLost) {
  int found = 0;
  for (int round = 0; round < 5000; ++round) {
    const std::string text = RandomText(1 + Dice(40));
    std::vector<std::string> stops;
    for (uint64_t i = 1 + Dice(3); i > 0; --i) {
      stops.push_back(RandomText(1 + Dice(9)));
    }
    size_t begin = 0;
    std::string stop;
    const bool stops_here = FindPlainly(text, stops, &begin, &stop);
    found += stops_here;

    StopMatcher matcher(stops);
    std::string shown;
    std::optional<StopMatcher::Found> match;
    size_t at = 0;
    while (at < text.size() && !match.has_value()) {
      const size_t count = 1 + Dice(6);
      StopMatcher::Result result = matcher.Add(text.substr(at, count));
      at = std::min(text.size(), at + count);
      shown += result.shown;
      match = result.found;
      // Nothing of a stop that is still to come.
      ASSERT_LE(shown.size(), stops_here ? begin : text.size());
    }
    ASSERT_EQ(match.has_value(), stops_here) << text;
    if (stops_here) {
      EXPECT_EQ(match->stop, stop);
      EXPECT_EQ(shown + match->trimmed, text.substr(0, at));
      EXPECT_EQ(shown, text.substr(0, begin));
    } else {
      EXPECT_EQ(shown + matcher.Flush(), text);
    }
  }
  EXPECT_GT(found, 1000);
  EXPECT_LT(found, 4500);
}

}  // namespace
}  // namespace millrace::engine
