#include "services/engine/turn.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/engine/sampling/philox.h"
#include "tests/services/engine/engine_harness.h"
#include "tests/testing/fake_model.h"
#include "tests/testing/fake_tokenizer.h"

namespace millrace::engine {
namespace {

constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";

// Pieces by id: letters, a few words, the two bytes of é, and <end>, <tool>.
enum Id : int32_t { kA, kB, kThe, kEn, kD, kDot, kC3, kA9, kEnd, kTool };

// A turn that is told token by token what the model says.
class TurnTest : public ::testing::Test {
 protected:
  TurnTest()
      : tokenizer_({"a", "b", "the ", "EN", "D", ". x", "\xC3", "\xA9"},
                   {"<end>", "<tool>"}) {
    options_.sampling.temperature = 0;
  }

  // The text of each token, and in the end why the turn stopped. The model says
  // `ids`, and <end> for ever after.
  std::string Written(const std::vector<int32_t>& ids) {
    std::string out;
    for (size_t i = 0;; ++i) {
      last_ = Say(i < ids.size() ? ids[i] : kEnd);
      absl::StrAppend(&out, last_.text, "|");
      if (last_.finished.has_value()) return out;
    }
  }

  TurnStep Say(int32_t id) {
    if (turn_ == nullptr) Start();
    std::vector<float> logits(10);
    testing::Force(id, absl::MakeSpan(logits));
    return turn_->Next({.logits = logits}, now_);
  }

  void Start() {
    turn_ = std::make_unique<Turn>(options_,
                                   Turn::Context{.turn = 1,
                                                 .tokenizer = &tokenizer_,
                                                 .recent = &recent_,
                                                 .started = absl::UnixEpoch()});
  }

  const testing::FakeTokenizer tokenizer_;
  GenerationOptions options_;
  RecentTokens recent_;
  absl::Time now_ = absl::UnixEpoch();
  std::unique_ptr<Turn> turn_;
  TurnStep last_;
};

TEST_F(TurnTest, EndsAtTheEndOfTheTurn) {
  EXPECT_EQ(Written({kThe, kA}), "the |a||");
  EXPECT_EQ(last_.finished, FinishReason::kEndOfTurn);
  EXPECT_EQ(last_.token_id, kEnd);
  EXPECT_EQ(turn_->generated_tokens(), 3u);
}

TEST_F(TurnTest, NeverShowsSpecialTokens) {
  EXPECT_EQ(Written({kA, kTool, kB}), "a||b||");
}

TEST_F(TurnTest, ShowsWholeCharacters) {
  EXPECT_EQ(Written({kA, kC3, kA9, kB}), "a||é|b||");
}

TEST_F(TurnTest, ReplacesWhatNeverBecomesACharacter) {
  EXPECT_EQ(Written({kC3, kA, kC3}),
            absl::StrCat("|", kReplacement, "a||", kReplacement, "|"));
}

TEST_F(TurnTest, KnowsWhereACharacterEnds) {
  Say(kA);
  EXPECT_TRUE(turn_->AtCharacterBoundary());
  Say(kC3);
  EXPECT_FALSE(turn_->AtCharacterBoundary());
  Say(kA9);
  EXPECT_TRUE(turn_->AtCharacterBoundary());
}

TEST_F(TurnTest, StopsAtAStringAcrossTokens) {
  options_.stopping.stop_strings = {"END"};
  EXPECT_EQ(Written({kThe, kEn, kD}), "the |||");
  EXPECT_EQ(last_.finished, FinishReason::kStop);
  EXPECT_EQ(last_.stop_match->text, "END");
  EXPECT_EQ(last_.stop_match->trimmed_text, "END");
  EXPECT_EQ(last_.stop_match->token_id, -1);
}

TEST_F(TurnTest, SaysWhatAStopLeftOut) {
  options_.stopping.stop_strings = {"D."};
  EXPECT_EQ(Written({kEn, kD, kDot}), "EN|||");
  EXPECT_EQ(last_.stop_match->text, "D.");
  EXPECT_EQ(last_.stop_match->trimmed_text, "D. x");
}

TEST_F(TurnTest, ShowsInTheEndWhatWasNoStopAfterAll) {
  options_.stopping.stop_strings = {"END"};
  EXPECT_EQ(Written({kThe, kEn}), "the ||EN|");
  EXPECT_EQ(last_.finished, FinishReason::kEndOfTurn);
}

TEST_F(TurnTest, StopsAtATokenAndLeavesItsTextOut) {
  options_.stopping.stop_strings = {"END"};
  options_.stopping.stop_token_ids = {kB, kTool};
  EXPECT_EQ(Written({kEn, kB}), "|EN|");
  EXPECT_EQ(last_.finished, FinishReason::kStop);
  EXPECT_EQ(last_.stop_match->token_id, kB);
  EXPECT_EQ(last_.stop_match->text, "");
  EXPECT_EQ(last_.stop_match->trimmed_text, "b");
}

TEST_F(TurnTest, StopsAtASpecialToken) {
  options_.stopping.stop_token_ids = {kTool};
  EXPECT_EQ(Written({kA, kTool}), "a||");
  EXPECT_EQ(last_.stop_match->token_id, kTool);
  EXPECT_EQ(last_.stop_match->trimmed_text, "");
}

TEST_F(TurnTest, KeepsToItsBudget) {
  options_.stopping.max_tokens = 3;
  options_.stopping.stop_strings = {"END"};
  EXPECT_EQ(Written({kA, kB, kEn, kD}), "a|b|EN|");
  EXPECT_EQ(last_.finished, FinishReason::kMaxTokens);
}

TEST_F(TurnTest, AStopOnTheLastTokenIsAStop) {
  options_.stopping.max_tokens = 2;
  options_.stopping.stop_strings = {"END"};
  Written({kEn, kD});
  EXPECT_EQ(last_.finished, FinishReason::kStop);
}

TEST_F(TurnTest, IsUnlimitedWithoutABudget) {
  options_.stopping.max_tokens = std::nullopt;
  options_.stopping.repetition_guard = 0;
  Written(std::vector<int32_t>(5000, kA));
  EXPECT_EQ(turn_->generated_tokens(), 5001u);
}

TEST_F(TurnTest, KeepsToItsTime) {
  options_.stopping.time_limit = absl::Seconds(10);
  now_ += absl::Seconds(9.9);
  EXPECT_EQ(Say(kA).finished, std::nullopt);
  now_ += absl::Seconds(0.1);
  const TurnStep step = Say(kB);
  EXPECT_EQ(step.finished, FinishReason::kTimeLimit);
  EXPECT_EQ(step.text, "b");
}

TEST_F(TurnTest, DoesNotEndBeforeItsMinimum) {
  options_.stopping.min_tokens = 3;
  std::vector<float> logits(10, -5);
  logits[kEnd] = 5;
  logits[kB] = 4;
  Start();
  for (int i = 0; i < 3; ++i) {
    const TurnStep step = turn_->Next({.logits = logits}, now_);
    EXPECT_EQ(step.token_id, kB);
    EXPECT_EQ(step.finished, std::nullopt);
  }
  EXPECT_EQ(turn_->Next({.logits = logits}, now_).finished,
            FinishReason::kEndOfTurn);
}

TEST_F(TurnTest, MayIgnoreTheEndOfTheTurn) {
  options_.stopping.ignore_end_of_turn = true;
  options_.stopping.max_tokens = 20;
  Written({});
  EXPECT_EQ(last_.finished, FinishReason::kMaxTokens);
  for (int64_t age = 0; age < 20; ++age) EXPECT_NE(recent_.Last(age), kEnd);
}

TEST_F(TurnTest, NoticesThatItGoesRoundInCircles) {
  options_.stopping.repetition_guard = 8;
  EXPECT_EQ(Written(std::vector<int32_t>(100, kA)), "a|a|a|a|a|a|a|a|");
  EXPECT_EQ(last_.finished, FinishReason::kRepetition);
}

TEST_F(TurnTest, InputBreaksACircle) {
  options_.stopping.repetition_guard = 8;
  for (int i = 0; i < 7; ++i) EXPECT_EQ(Say(kA).finished, std::nullopt);
  turn_->OnInput();
  recent_.Add({kB});
  for (int i = 0; i < 7; ++i) EXPECT_EQ(Say(kA).finished, std::nullopt);
  EXPECT_EQ(Say(kA).finished, FinishReason::kRepetition);
}

TEST_F(TurnTest, InputFlushesTextAndStartsMatchingAnew) {
  options_.stopping.stop_strings = {"END"};
  EXPECT_EQ(Say(kEn).text, "");
  EXPECT_EQ(turn_->OnInput(), "EN");
  EXPECT_EQ(Say(kD).text, "D");
  EXPECT_EQ(Say(kEn).text, "");
  EXPECT_EQ(Say(kD).finished, FinishReason::kStop);
}

TEST_F(TurnTest, GivesUpItsTextWhenItIsInterrupted) {
  options_.stopping.stop_strings = {"END"};
  Say(kEn);
  EXPECT_EQ(turn_->Flush(), "EN");
  EXPECT_EQ(turn_->Flush(), "");
}

TEST_F(TurnTest, NonfiniteLogitsAreAnError) {
  options_.stopping.stop_strings = {"END"};
  Say(kEn);
  std::vector<float> logits(10);
  logits[3] = NAN;
  const TurnStep step = turn_->Next({.logits = logits}, now_);
  EXPECT_EQ(step.finished, FinishReason::kError);
  EXPECT_EQ(step.token_id, -1);
  EXPECT_EQ(step.text, "EN");
  EXPECT_EQ(turn_->generated_tokens(), 1u);
  EXPECT_EQ(recent_.total(), 1);
}

TEST_F(TurnTest, GivesLogprobsOfRawLogits) {
  options_.response.logprobs = 2;
  options_.sampling.logit_bias = {{kB, 100.0f}};
  Start();
  const std::vector<float> logits(10, 1.0f);
  const TurnStep step = turn_->Next({.logits = logits}, now_);
  EXPECT_EQ(step.token_id, kB);
  ASSERT_TRUE(step.logprobs.has_value());
  EXPECT_EQ(step.logprobs->token_id, kB);
  EXPECT_NEAR(step.logprobs->logprob, std::log(0.1), 1e-5);
  ASSERT_EQ(step.logprobs->top.size(), 2u);
  EXPECT_EQ(step.logprobs->top[0].first, kA);
}

TEST_F(TurnTest, GivesNoLogprobsUnlessAsked) {
  EXPECT_FALSE(Say(kA).logprobs.has_value());
}

TEST_F(TurnTest, GivesNoTextUnlessAsked) {
  options_.response.text = false;
  options_.stopping.stop_strings = {"END"};
  EXPECT_EQ(Written({kThe, kEn, kD}), "|||");
  EXPECT_EQ(last_.finished, FinishReason::kStop);
}

TEST_F(TurnTest, PenaltiesReachBackBeyondTheTurn) {
  options_.sampling.presence_penalty = 2;
  recent_.Grow(4);
  recent_.Add({kA});
  Start();
  std::vector<float> logits(10, -5);
  logits[kA] = 1;
  logits[kB] = 0;
  EXPECT_EQ(turn_->Next({.logits = logits}, now_).token_id, kB);
}

// A turn that is sampled; every second one with penalties.
GenerationOptions SampledOptions(uint64_t seed) {
  GenerationOptions options;
  options.sampling.temperature = 1;
  options.sampling.seed = seed;
  options.stopping.max_tokens = 50;
  if (seed % 2 == 1) {
    options.sampling.repetition_penalty = 1.2f;
    options.sampling.frequency_penalty = 0.9f;
    options.sampling.penalty_window_tokens = 9;
  }
  return options;
}

// Its tokens over fixed logits.
std::vector<int32_t> Sampled(uint64_t seed, uint64_t turn_number) {
  const testing::FakeTokenizer tokenizer(std::vector<std::string>(97, "x"), {});
  RecentTokens recent;
  Turn turn(SampledOptions(seed), {.turn = turn_number,
                                   .tokenizer = &tokenizer,
                                   .recent = &recent,
                                   .started = absl::UnixEpoch()});
  testing::FakeOracle oracle({}, Full());
  oracle.Append({1});
  std::vector<int32_t> ids;
  for (int i = 0; i < 50; ++i) {
    ids.push_back(
        turn.Next({.logits = oracle.Logits(i)}, absl::UnixEpoch()).token_id);
    oracle.Append({ids.back()});
  }
  return ids;
}

std::optional<backends::RowSampling> HowToPick(const GenerationOptions& options,
                                               int unknown_tokens = 0) {
  const testing::FakeTokenizer tokenizer(std::vector<std::string>(12, "x"),
                                         {"<end>"});
  RecentTokens recent(300);
  for (int32_t id = 0; id < 300; ++id) recent.Add(id);
  return Turn(options, {.turn = 1,
                        .tokenizer = &tokenizer,
                        .recent = &recent,
                        .started = absl::UnixEpoch()})
      .HowToPick(unknown_tokens);
}

TEST(HowToPickTest, TellsAllThatTheSamplerIsTold) {
  GenerationOptions options;
  options.sampling = {.temperature = 0.5f,
                      .top_k = 7,
                      .top_p = 0.8f,
                      .min_p = 0.1f,
                      .presence_penalty = 2,
                      .penalty_window_tokens = 2,
                      .seed = 3};
  options.stopping.min_tokens = 1;
  const auto sampling = HowToPick(options);
  ASSERT_TRUE(sampling.has_value());
  EXPECT_EQ(sampling->temperature, 0.5f);
  EXPECT_EQ(sampling->top_k, 7);
  EXPECT_EQ(sampling->top_p, 0.8f);
  EXPECT_EQ(sampling->min_p, 0.1f);
  EXPECT_EQ(sampling->uniform, UniformOf(3, 1, 0));
  ASSERT_EQ(sampling->adjustments.size(), 3u);
  EXPECT_TRUE(sampling->adjustments[0].suppressed);  // the end of the turn
  EXPECT_EQ(sampling->adjustments[1].id, 298);
  EXPECT_EQ(sampling->adjustments[2].presence_penalty, 2);
}

TEST(HowToPickTest, LogprobsNeedTheLogits) {
  GenerationOptions options;
  options.response.logprobs = 0;
  EXPECT_FALSE(HowToPick(options).has_value());
}

TEST(HowToPickTest, ATokenAheadHasTheNextNumberOfTheSeed) {
  GenerationOptions options;
  options.sampling = {.temperature = 1, .seed = 3};
  options.stopping.min_tokens = 1;
  EXPECT_EQ(HowToPick(options, 0)->uniform, UniformOf(3, 1, 0));
  EXPECT_EQ(HowToPick(options, 0)->adjustments.size(), 1u);
  EXPECT_EQ(HowToPick(options, 1)->uniform, UniformOf(3, 1, 1));
  EXPECT_EQ(HowToPick(options, 1)->adjustments.size(), 0u);  // it may end now
}

TEST(HowToPickTest, ATokenThatIsNotKnownPushesOneOutOfTheWindow) {
  GenerationOptions options;
  options.sampling = {.frequency_penalty = 0.5f, .penalty_window_tokens = 2};
  const auto known = HowToPick(options, 0), unknown = HowToPick(options, 1);
  EXPECT_EQ(known->adjustments.size(), 2u);
  EXPECT_EQ(known->of_unknown.frequency, 0);
  ASSERT_EQ(unknown->adjustments.size(), 1u);
  EXPECT_EQ(unknown->adjustments[0].id, 299);
  EXPECT_EQ(unknown->adjustments[0].frequency_penalty, 0.5f);
  EXPECT_EQ(unknown->adjustments[0].frequency_once_more, 1);
  EXPECT_EQ(unknown->of_unknown.frequency, 0.5f);
}

TEST(HowToPickTest, ThereIsALimitToAdjustments) {
  GenerationOptions options;
  for (int32_t id = 0; id < backends::RowSampling::kMaxAdjustments; ++id) {
    options.sampling.logit_bias.push_back({id, 1.0f});
  }
  EXPECT_TRUE(HowToPick(options).has_value());
  options.sampling.logit_bias.push_back({1000, 1.0f});
  EXPECT_FALSE(HowToPick(options).has_value());
}

TEST(SeedTest, SameSeedSameTokens) {
  EXPECT_EQ(Sampled(1, 1), Sampled(1, 1));
  EXPECT_NE(Sampled(1, 1), Sampled(2, 1));
  EXPECT_NE(Sampled(1, 1), Sampled(1, 2));
}

// A writer that samples.
class Sampler : public Writer {
 public:
  explicit Sampler(uint64_t seed)
      : tokenizer_(std::vector<std::string>(97, "x"), {}) {
    turn_ = std::make_unique<Turn>(SampledOptions(seed),
                                   Turn::Context{.turn = 1,
                                                 .tokenizer = &tokenizer_,
                                                 .recent = &recent_,
                                                 .started = absl::UnixEpoch()});
  }

  void OnRows(int64_t, int64_t, absl::Span<const float> logits) override {
    Take({.logits = logits});
  }
  std::optional<backends::RowSampling> HowToPick(int unknown_tokens) override {
    return turn_->HowToPick(unknown_tokens);
  }
  void OnPicked(int64_t, int64_t, int32_t id) override { Take({.picked = id}); }

  absl::Notification done;

 private:
  void Take(const NextToken& next) {
    if (next.empty()) return;
    const TurnStep step = turn_->Next(next, absl::UnixEpoch());
    written.push_back(step.token_id);
    if (!step.finished.has_value()) return sequence->Append({step.token_id});
    sequence->WantLogits(Logits::kNone);
    done.Notify();
  }

  const testing::FakeTokenizer tokenizer_;
  RecentTokens recent_;
  std::unique_ptr<Turn> turn_;
};

// Twelve that share the engine.
void ExpectSampledTokens(EngineHarness& harness) {
  std::vector<std::unique_ptr<Sampler>> samplers;
  for (uint64_t i = 0; i < 12; ++i) {
    samplers.push_back(std::make_unique<Sampler>(i));
  }
  harness.Do([&] {
    for (const auto& sampler : samplers) {
      sampler->Open(&harness.engine, Full());
      sampler->sequence->WantLogits(Logits::kLast);
      sampler->Read({1});
    }
  });
  for (const auto& sampler : samplers) sampler->done.WaitForNotification();
  harness.engine.Stop();
  for (uint64_t i = 0; i < samplers.size(); ++i) {
    EXPECT_EQ(samplers[i]->written, Sampled(i, 1)) << i;
  }
}

constexpr EngineOptions kFewRows = {.max_decode_rows = 3,
                                    .prefill_chunk_tokens = 16};

TEST(SeedTest, SameSeedSameTokensWhateverElseRuns) {
  EngineHarness harness(kFewRows);
  ExpectSampledTokens(harness);
}

TEST(SeedTest, SameSeedSameTokensWhereTheModelPicks) {
  int rows_of_logits = 0;
  const testing::FakeModelHooks hooks = {
      .before =
          [&](uint64_t, const backends::Batch& batch) {
            rows_of_logits += batch.logits_rows();
            return absl::OkStatus();
          },
      .edit_logits = {}};
  EngineHarness harness(
      std::make_unique<testing::FakeModel>(
          testing::FakeModelOptions{.picks_tokens = true}, &hooks),
      std::make_unique<testing::FakeKvStorage>(20'000), kFewRows);
  ExpectSampledTokens(harness);
  EXPECT_EQ(rows_of_logits, 0);
}

// Texts that are cut into tokens anyhow: what a turn shows has no stop string
// in it, no part of one at its end, and loses nothing.
TEST(TurnPropertyTest, StopStringsNeverLeakHoweverTokensLie) {
  const std::vector<std::string> pieces = {
      "a", "b", "ab", "ba", "aab", "bba", "é", "\xC3", "\xA9", "abé", " "};
  const testing::FakeTokenizer tokenizer(pieces, {"<end>"});
  int stopped = 0;
  for (uint64_t round = 0; round < 3000; ++round) {
    GenerationOptions options;
    options.sampling.temperature = 0;
    options.stopping.stop_strings = {round % 3 == 0   ? "abéa"
                                     : round % 3 == 1 ? "bab"
                                                      : "aabbaa",
                                     "é é"};
    RecentTokens recent;
    Turn turn(options, {.turn = 1,
                        .tokenizer = &tokenizer,
                        .recent = &recent,
                        .started = absl::UnixEpoch()});
    std::string shown, trimmed;
    std::vector<int32_t> ids;
    std::optional<FinishReason> finished;
    for (uint64_t i = 0; !finished.has_value(); ++i) {
      const uint64_t dice = testing::Mix(testing::Mix(round) + i);
      const int32_t id = static_cast<int32_t>(i == 20 ? 11 : dice % 11);
      std::vector<float> logits(12);
      testing::Force(id, absl::MakeSpan(logits));
      const TurnStep step = turn.Next({.logits = logits}, absl::UnixEpoch());
      ids.push_back(step.token_id);
      shown += step.text;
      finished = step.finished;
      if (step.stop_match.has_value()) trimmed = step.stop_match->trimmed_text;
    }
    for (const std::string& stop : options.stopping.stop_strings) {
      ASSERT_EQ(shown.find(stop), std::string::npos);
      if (!trimmed.empty()) continue;
      ASSERT_EQ(tokenizer.Decode(ids, text::SpecialTokens::kAsText).find(stop),
                std::string::npos);
    }
    stopped += finished == FinishReason::kStop;
    ASSERT_EQ(shown + trimmed,
              tokenizer.Decode(ids, text::SpecialTokens::kAsText));
  }
  EXPECT_GT(stopped, 500);
  EXPECT_LT(stopped, 2900);
}

}  // namespace
}  // namespace millrace::engine
