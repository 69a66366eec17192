#include "services/engine/ngram_draft.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace millrace::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(NgramDraftTest, GoesOnAsTheTextDidBefore) {
  NgramDraft draft;
  draft.Add({1, 2, 3, 4, 50, 60, 70, 80, 9, 1, 2, 3, 4});
  EXPECT_THAT(draft.Propose(7), ElementsAre(50, 60, 70));
}

TEST(NgramDraftTest, ThreeTokensBeforeAreTooFew) {
  NgramDraft draft;
  draft.Add({2, 3, 4, 50, 60, 70, 80, 9, 2, 3, 4});
  EXPECT_THAT(draft.Propose(7), IsEmpty());
}

TEST(NgramDraftTest, PrefersTheLongestMatch) {
  NgramDraft draft;
  draft.Add({7, 1, 2, 3, 4, 50, 60, 70});
  draft.Add({8, 1, 2, 3, 4, 51, 61, 71});
  draft.Add({7, 1, 2, 3, 4});
  EXPECT_THAT(draft.Propose(7), ElementsAre(50, 60, 70));
}

TEST(NgramDraftTest, AmongEqualMatchesTheLatest) {
  NgramDraft draft;
  draft.Add({7, 1, 2, 3, 4, 50, 60, 70});
  draft.Add({8, 1, 2, 3, 4, 51, 61, 71});
  draft.Add({9, 1, 2, 3, 4});
  EXPECT_THAT(draft.Propose(7), ElementsAre(51, 61, 71));
}

TEST(NgramDraftTest, ATextInCirclesGoesOnIntoItsOwnGuess) {
  NgramDraft draft;
  draft.Add({1, 2, 1, 2, 1, 2});
  draft.Learn(3, 3);  // the next one is as long as can be
  EXPECT_THAT(draft.Propose(7), ElementsAre(1, 2, 1, 2, 1, 2, 1));
}

TEST(NgramDraftTest, GuessesNothingShorterThanItWould) {
  NgramDraft draft;
  draft.Add({1, 1, 1, 1, 1, 1});
  EXPECT_THAT(draft.Propose(2), IsEmpty());
  EXPECT_THAT(draft.Propose(3), ElementsAre(1, 1, 1));
}

TEST(NgramDraftTest, WhatIsCutOffIsForgotten) {
  NgramDraft draft;
  draft.Add({1, 2, 3, 4, 50, 60, 70, 1, 2, 3, 4, 51});
  draft.RemoveLast(1);
  EXPECT_THAT(draft.Propose(3), ElementsAre(50, 60, 70));
  draft.RemoveLast(11);
  EXPECT_THAT(draft.Propose(3), IsEmpty());
  draft.Add({1, 2, 3, 4});
  draft.Clear();
  draft.Add({1, 2, 3, 4});
  EXPECT_THAT(draft.Propose(3), IsEmpty());
}

TEST(NgramDraftTest, AfterAGuessThatDidNotPayItWaitsTwiceAsLongEachTime) {
  NgramDraft draft;
  draft.Add(std::vector<int32_t>(20, 1));
  const auto tokens_until_a_guess = [&] {
    int tokens = 0;
    while (draft.Propose(7).empty()) ++tokens;
    return tokens;
  };
  std::vector<int> waited;
  for (int i = 0; i < 9; ++i) {
    waited.push_back(tokens_until_a_guess());
    draft.Learn(3, 0);
  }
  EXPECT_THAT(waited, ElementsAre(0, 8, 16, 32, 64, 128, 256, 512, 512));
}

TEST(NgramDraftTest, AGuessThatPaidHalvesTheNextWait) {
  NgramDraft draft;
  draft.Add(std::vector<int32_t>(20, 1));
  draft.Learn(3, 0);
  draft.Learn(3, 0);  // the next wait would be 32
  draft.Learn(3, 3);
  draft.Learn(7, 0);
  int tokens = 0;
  while (draft.Propose(7).empty()) ++tokens;
  EXPECT_EQ(tokens, 16);
}

TEST(NgramDraftTest, LooksBackOnABoundedWindow) {
  NgramDraft draft;
  draft.Add({1, 2, 3, 4, 50, 60, 70});
  std::vector<int32_t> others(NgramDraft::kWindow);
  std::iota(others.begin(), others.end(), 1000);
  draft.Add(others);
  draft.Add({1, 2, 3, 4});
  EXPECT_THAT(draft.Propose(3), IsEmpty());
}

TEST(NgramDraftTest, TokensOneByOneAreTokensAtOnce) {
  NgramDraft draft;
  for (int round = 0; round < 3; ++round) {
    for (int32_t id = 0; id < 4000; ++id) draft.Add({id});
  }
  draft.Add({0, 1, 2, 3});
  EXPECT_THAT(draft.Propose(3), ElementsAre(4, 5, 6));
}

}  // namespace
}  // namespace millrace::engine
