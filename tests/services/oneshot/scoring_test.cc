#include "services/oneshot/scoring.h"

#include <gtest/gtest.h>

#include <cmath>

#include "services/errors/errors.h"
#include "tests/services/oneshot/harness.h"

namespace millrace::oneshot {
namespace {

std::vector<int32_t> Text(int tokens) {
  std::vector<int32_t> ids;
  for (int i = 0; i < tokens; ++i) ids.push_back((i * 11 + i / 7) % 96);
  return ids;
}

// Scores a text given in pieces, reading as it comes.
class Scorer {
 public:
  explicit Scorer(Harness& harness) : harness_(harness) {}

  void Run(const std::string& policy, const std::vector<int32_t>& text,
           size_t piece, bool per_token = true) {
    const auto scoring = Scoring::Start(
        harness_.deps, {"s", Harness::Policy(policy), per_token, 256},
        outcome.callback());
    scoring->SetCallbacks([this] { Wake(); }, [this] { Wake(); });
    ASSERT_TRUE(outcome.Wait().ok());
    size_t sent = 0;
    bool input_finished = false;
    while (!finished) {
      while (sent < text.size() && scoring->HasRoom()) {
        const size_t n = std::min(piece, text.size() - sent);
        scoring->Add({text.begin() + sent, text.begin() + sent + n});
        sent += n;
      }
      if (sent == text.size() && !std::exchange(input_finished, true)) {
        scoring->FinishInput();
      }
      while (auto event = scoring->Take()) Read(*event);
      if (finished) return;
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&woken_));
      woken_ = false;
    }
  }

  Outcome outcome;
  std::vector<float> values;
  uint64_t evicted = 0;
  std::optional<ScoreFinished> finished;

 private:
  void Wake() {
    absl::MutexLock lock(&mutex_);
    woken_ = true;
  }
  void Read(const ScoreEvent& event) {
    if (const auto* chunk = std::get_if<ScoreChunk>(&event)) {
      EXPECT_EQ(chunk->first_position, values.size() + 1);
      values.insert(values.end(), chunk->log_likelihoods.begin(),
                    chunk->log_likelihoods.end());
    } else if (const auto* update =
                   std::get_if<session::CacheUpdated>(&event)) {
      for (const auto& range : update->evicted) evicted += range.size();
    } else if (const auto* end = std::get_if<ScoreFinished>(&event)) {
      finished = *end;
    }
  }

  Harness& harness_;
  absl::Mutex mutex_;
  bool woken_ = false;
};

// Of tokens 1 .. n - 1, from the policy's definition, without a cache.
std::vector<float> Expected(const std::string& policy,
                            const std::vector<int32_t>& text) {
  testing::FakeOracle oracle({}, Harness::Policy(policy).policy);
  oracle.Append(text);
  std::vector<float> values;
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    values.push_back(LogLikelihood(oracle.Logits(i), text[i + 1]));
  }
  return values;
}

TEST(LogLikelihood, IsTheLogarithmOfTheSoftMax) {
  const std::vector<float> logits = {0, std::log(2.0f), std::log(5.0f)};
  EXPECT_NEAR(LogLikelihood(logits, 0), std::log(1 / 8.0), 1e-6);
  EXPECT_NEAR(LogLikelihood(logits, 2), std::log(5 / 8.0), 1e-6);
}

TEST(LogLikelihood, HugeLogitsDoNotOverflow) {
  const std::vector<float> logits = {10000, 0};
  EXPECT_NEAR(LogLikelihood(logits, 0), 0, 1e-6);
  EXPECT_NEAR(LogLikelihood(logits, 1), -10000, 1e-2);
}

TEST(Scoring, ValuesAreThoseOfTheDefinition) {
  const std::string policy = "sinks:sink_tokens=4,window_tokens=30";
  Harness harness;
  Scorer scorer(harness);
  scorer.Run(policy, Text(300), 300);
  EXPECT_EQ(scorer.values, Expected(policy, Text(300)));
  EXPECT_EQ(scorer.finished->tokens, 300u);
  EXPECT_EQ(scorer.evicted, 300u - 35);
  double sum = 0;
  for (float value : scorer.values) sum += value;
  EXPECT_NEAR(scorer.finished->sum, sum, 1e-6);
  EXPECT_EQ(harness.CacheAtRest().used_blocks, 0);
}

TEST(Scoring, PiecesDoNotMatter) {
  const std::string policy = "window:window_tokens=30";
  for (size_t piece : {1, 2, 63, 64, 65}) {
    Harness harness;
    Scorer scorer(harness);
    scorer.Run(policy, Text(200), piece);
    EXPECT_EQ(scorer.values, Expected(policy, Text(200))) << piece;
  }
}

TEST(Scoring, LongTextsAreReadInBoundedMemory) {
  Harness harness;
  Scorer scorer(harness);
  scorer.Run("sinks:sink_tokens=4,window_tokens=30", Text(30'000), 5000);
  EXPECT_EQ(scorer.finished->tokens, 30'000u);
  EXPECT_EQ(scorer.values.size(), 29'999u);
  EXPECT_LE(scorer.finished->usage.peak_resident_tokens, 4u + 30 + 64 + 2);
}

TEST(Scoring, OnlySumsIfSoAsked) {
  Harness harness;
  Scorer scorer(harness);
  scorer.Run("full:max_tokens=100", Text(50), 50, /*per_token=*/false);
  EXPECT_TRUE(scorer.values.empty());
  EXPECT_LT(scorer.finished->sum, 0);
}

TEST(Scoring, TextOfOneTokenOrNoneHasNoValues) {
  for (int tokens : {0, 1}) {
    Harness harness;
    Scorer scorer(harness);
    scorer.Run("full:max_tokens=100", Text(tokens), 1);
    EXPECT_TRUE(scorer.values.empty());
    EXPECT_EQ(scorer.finished->tokens, static_cast<uint64_t>(tokens));
    EXPECT_EQ(scorer.finished->sum, 0);
  }
}

TEST(Scoring, FullRefusesWhatDoesNotFit) {
  Harness harness;
  Scorer scorer(harness);
  scorer.Run("full:max_tokens=100", Text(101), 50);
  EXPECT_TRUE(
      errors::HasReason(scorer.finished->error, errors::Reason::kCacheFull));
  EXPECT_TRUE(absl::IsFailedPrecondition(scorer.finished->error));
}

TEST(Scoring, NonfiniteLogitsAreAnError) {
  testing::FakeModelHooks hooks;
  hooks.edit_logits = [](int64_t position, int32_t, absl::Span<float> logits) {
    if (position == 7) logits[3] = std::nanf("");
  };
  Harness harness(200, {}, &hooks);
  Scorer scorer(harness);
  scorer.Run("full:max_tokens=100", Text(50), 50);
  EXPECT_TRUE(errors::HasReason(scorer.finished->error,
                                errors::Reason::kNonfiniteLogits));
}

TEST(Scoring, CancelGivesTheMemoryBack) {
  Harness harness;
  Outcome outcome;
  const auto scoring = Scoring::Start(
      harness.deps, {"s", Harness::Policy("full:max_tokens=100"), true, 256},
      outcome.callback());
  ASSERT_TRUE(outcome.Wait().ok());
  scoring->Add(Text(50));
  scoring->Cancel();
  EXPECT_EQ(harness.CacheAtRest().sequences, 0);
}

}  // namespace
}  // namespace millrace::oneshot
