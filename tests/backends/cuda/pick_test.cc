// Tokens that the device picks, against the host's sampler on the same logits.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "backends/cuda/kernels/kernels.h"
#include "gtest/gtest.h"
#include "services/engine/sampling/adjust.h"
#include "services/engine/sampling/choose.h"
#include "services/engine/sampling/philox.h"
#include "tests/testing/cuda_emulator/emulated_device.h"
#include "tests/testing/cuda_emulator/fiber_order.h"
#include "tests/testing/gguf_writer.h"

namespace millrace::backends::cuda {
namespace {

using engine::SamplingOptions;

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Rows of logits and how a token is picked of each: the step image of a batch
// in which nothing else is.
class Picks {
 public:
  explicit Picks(int vocabulary_size) : vocabulary_size_(vocabulary_size) {}

  // `picked_before`: among those of `before`.
  void Add(const std::vector<float>& logits, const RowSampling& sampling,
           int picked_before = -1) {
    picks_.push_back(
        {.uniform = sampling.uniform,
         .logits_row = static_cast<int32_t>(picks_.size()),
         .adjustments_begin = static_cast<int32_t>(adjustments_.size()),
         .adjustments_end = static_cast<int32_t>(adjustments_.size() +
                                                 sampling.adjustments.size()),
         .top_k = sampling.top_k,
         .temperature = sampling.temperature,
         .top_p = sampling.top_p,
         .min_p = sampling.min_p,
         .of_unknown = sampling.of_unknown,
         .picked_before = picked_before,
         .unused = 0});
    adjustments_.insert(adjustments_.end(), sampling.adjustments.begin(),
                        sampling.adjustments.end());
    logits_.insert(logits_.end(), logits.begin(), logits.end());
  }

  // With more blocks than rows, as launches are rounded up.
  std::vector<int32_t> Run(const std::vector<int32_t>& before = {}) {
    const auto device = NewEmulatedDevice();
    const std::vector<uint64_t> image = Image();
    std::vector<int32_t> ids(picks_.size() + 1, -7);
    device->kernels().pick(
        device->stream(),
        {.step = reinterpret_cast<const StepHeader*>(image.data()),
         .max_picks = static_cast<int>(ids.size()),
         .logits = {logits_.data(), vocabulary_size_},
         .vocabulary_size = vocabulary_size_,
         .before = before.data(),
         .ids = ids.data()});
    EXPECT_TRUE(device->Synchronize().ok());
    EXPECT_EQ(ids.back(), -7);
    ids.pop_back();
    return ids;
  }

 private:
  std::vector<uint64_t> Image() const {
    StepHeader header = {};
    header.num_picks = static_cast<int32_t>(picks_.size());
    header.picks = sizeof(header);
    header.adjustments = header.picks + Bytes(picks_);
    std::vector<uint64_t> image((header.adjustments + Bytes(adjustments_)) / 8 +
                                1);
    auto* const to = reinterpret_cast<uint8_t*>(image.data());
    std::memcpy(to, &header, sizeof(header));
    std::memcpy(to + header.picks, picks_.data(), Bytes(picks_));
    if (adjustments_.empty()) return image;
    std::memcpy(to + header.adjustments, adjustments_.data(),
                Bytes(adjustments_));
    return image;
  }
  template <class T>
  static int64_t Bytes(const std::vector<T>& values) {
    return static_cast<int64_t>(values.size() * sizeof(T));
  }

  const int vocabulary_size_;
  std::vector<StepPick> picks_;
  std::vector<LogitAdjustment> adjustments_;
  std::vector<float> logits_;
};

std::vector<float> RandomLogits(int size, uint64_t seed, float spread) {
  testing::RandomValues random(seed);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = spread * random.Value();
  return logits;
}

int32_t PickOne(const std::vector<float>& logits, const RowSampling& sampling) {
  Picks picks(static_cast<int>(logits.size()));
  picks.Add(logits, sampling);
  return picks.Run()[0];
}

TEST(PickTest, GreedyTakesTheLargestWhereverItIs) {
  for (const int size : {1, 31, 1024, 1025, 49152}) {
    Picks picks(size);
    std::vector<int32_t> expected;
    for (int i = 0; i < 8; ++i) {
      const std::vector<float> logits = RandomLogits(size, i, 20);
      picks.Add(logits, {});
      expected.push_back(engine::Greedy(logits));
    }
    EXPECT_EQ(picks.Run(), expected);
  }
}

TEST(PickTest, OfEqualLogitsTheLowestIdComesFirst) {
  EXPECT_EQ(PickOne({-1, 3, 2, 3}, {}), 1);
  EXPECT_EQ(PickOne({-0.0f, 0.0f, -1}, {}), 0);
  std::vector<float> equal(3000, 2.5f);
  EXPECT_EQ(PickOne(equal, {}), 0);
  EXPECT_EQ(PickOne(equal, {.temperature = 1, .uniform = 0.5}), 1500);
  EXPECT_EQ(PickOne(equal, {.temperature = 1, .top_k = 10, .uniform = 0.99}),
            9);
}

TEST(PickTest, RowsThatAreNotFiniteSaySo) {
  for (const float bad : {NAN, -NAN, -kNever, kNever}) {
    for (const size_t at : {0, 1023, 1999}) {
      std::vector<float> logits(2000, 1.0f);
      logits[at] = bad;
      EXPECT_EQ(PickOne(logits, {.temperature = 1}), -1) << bad << " at " << at;
    }
  }
}

TEST(PickTest, AdjustmentsComeFirst) {
  const std::vector<float> logits = {4, 1, 3, 0};
  EXPECT_EQ(PickOne(logits, {.adjustments = {{.id = 3, .bias = 9}}}), 3);
  EXPECT_EQ(PickOne(logits, {.adjustments = {{.id = 0, .suppressed = true}}}),
            2);
  EXPECT_EQ(
      PickOne(logits, {.adjustments = {{.id = 0, .repetition_penalty = 2},
                                       {.id = 2, .presence_penalty = 2.5f}}}),
      0);
  // Nothing is left: the first of equal ones, as of the host's sampler.
  const RowSampling none = {.temperature = 1,
                            .adjustments = {{.id = 0, .suppressed = true},
                                            {.id = 1, .suppressed = true}}};
  EXPECT_EQ(PickOne({1, 2}, none), 0);
}

TEST(PickTest, AdjustedRowsAreTheHostsBitByBit) {
  engine::RecentTokens recent(300);
  testing::RandomValues random(4);
  for (int i = 0; i < 300; ++i) {
    recent.Add(static_cast<int32_t>(random.Bits() % 100));
  }
  const SamplingOptions options = {.temperature = 0,
                                   .repetition_penalty = 1.3f,
                                   .presence_penalty = 0.2f,
                                   .frequency_penalty = 0.1f,
                                   .logit_bias = {{3, 2.0f}, {150, 1.5f}}};
  const auto adjustments = engine::AdjustmentsOf(options, recent, {7, 8});
  Picks picks(200);
  std::vector<int32_t> expected;
  for (int i = 0; i < 20; ++i) {
    std::vector<float> logits = RandomLogits(200, 40 + i, 5);
    picks.Add(logits, {.adjustments = adjustments});
    engine::AdjustLogits(adjustments, absl::MakeSpan(logits));
    expected.push_back(engine::Greedy(logits));
  }
  EXPECT_EQ(picks.Run(), expected);
}

// Row i follows token i % 100, which the host has not seen yet: it is among the
// recent ones, or only has a bias, or is suppressed, or is none of these.
TEST(PickTest, ATokenThatTheHostDidNotKnowIsPenalisedAllTheSame) {
  engine::RecentTokens recent(64);
  for (int i = 0; i < 64; ++i) recent.Add(i % 40);
  SamplingOptions options = {.temperature = 0,
                             .repetition_penalty = 1.3f,
                             .presence_penalty = 0.2f,
                             .frequency_penalty = 0.7f,
                             .penalty_window_tokens = 64,
                             .logit_bias = {{3, 2.0f}, {50, 1.5f}}};
  for (const int window : {64, 30, 1, 0}) {
    options.penalty_window_tokens = window;
    Picks picks(100);
    std::vector<int32_t> expected, before;
    for (int i = 0; i < 100; ++i) {
      std::vector<float> logits = RandomLogits(100, 7 + i, 0.5f);
      logits[i] += 2;  // the one that would win
      picks.Add(logits,
                {.adjustments = engine::AdjustmentsOf(options, recent, {60},
                                                      /*unknown_tokens=*/1),
                 .of_unknown = engine::PenaltiesOf(options)},
                /*picked_before=*/i);
      before.push_back(i);
      engine::RecentTokens known = recent;
      known.Add(i);
      engine::AdjustLogits(engine::AdjustmentsOf(options, known, {60}),
                           absl::MakeSpan(logits));
      expected.push_back(engine::Greedy(logits));
    }
    EXPECT_EQ(picks.Run(before), expected) << window;
    EXPECT_EQ(expected == before, false);
  }
}

TEST(PickTest, NoTokenBeforeIsNoPenalty) {
  Picks picks(3);
  picks.Add({1, 3, 2}, {.of_unknown = {.presence = 5}}, /*picked_before=*/1);
  EXPECT_EQ(picks.Run({1, -1}), (std::vector<int32_t>{1}));
}

// Each filter alone, and together.
std::vector<SamplingOptions> Filters() {
  return {
      {.temperature = 0.7f, .top_p = 1, .min_p = 0},
      {.temperature = 3, .top_p = 1, .min_p = 0},
      {.temperature = 1, .top_k = 5, .top_p = 1, .min_p = 0},
      {.temperature = 1, .top_p = 0.6f, .min_p = 0},
      {.temperature = 1, .top_p = 1, .min_p = 0.2f},
      {.temperature = 1.5f, .top_k = 40, .top_p = 0.9f, .min_p = 0.02f},
      {.temperature = 1e-6f, .top_p = 0.95f, .min_p = 0.05f},
  };
}

RowSampling Sampling(const SamplingOptions& options, double uniform) {
  return {.temperature = options.temperature,
          .top_k = options.top_k,
          .top_p = options.top_p,
          .min_p = options.min_p,
          .uniform = uniform};
}

// The same number picks the same token, but where it falls within rounding of
// a border between two.
TEST(PickTest, ChoosesAsTheHostDoesForEachRandomNumber) {
  constexpr int kNumbers = 60;
  for (const SamplingOptions& options : Filters()) {
    for (const int size : {7, 300, 5000}) {
      const std::vector<float> logits = RandomLogits(size, size, 6);
      Picks picks(size);
      std::vector<int32_t> expected;
      for (int i = 0; i < kNumbers; ++i) {
        const double uniform = (i + 0.5) / kNumbers;
        picks.Add(logits, Sampling(options, uniform));
        expected.push_back(engine::Choose(options, logits, uniform));
      }
      const std::vector<int32_t> ids = picks.Run();
      int others = 0;
      for (int i = 0; i < kNumbers; ++i) others += ids[i] != expected[i];
      EXPECT_LE(others, 1) << size << " tokens, temperature "
                           << options.temperature << ", top_k " << options.top_k
                           << ", top_p " << options.top_p << ", min_p "
                           << options.min_p;
    }
  }
}

// Pearson's test over random numbers as sessions draw them: the sum of squared
// deviations over what is expected is beyond 45.3 in one of 1,000 such samples
// of 20 degrees of freedom.
TEST(PickTest, ChoosesWithTheProbabilitiesOfTheLogits) {
  constexpr int kTokens = 21, kDraws = 2000;
  std::vector<float> logits = RandomLogits(kTokens, 9, 1.5f);
  double total = 0;
  for (const float logit : logits) total += std::exp(logit / 0.8);
  Picks picks(kTokens);
  for (int i = 0; i < kDraws; ++i) {
    picks.Add(logits, {.temperature = 0.8f,
                       .uniform = engine::UniformOf(/*seed=*/5, 1, i)});
  }
  std::vector<int> drawn(kTokens);
  for (const int32_t id : picks.Run()) ++drawn.at(id);
  double deviation = 0;
  for (int id = 0; id < kTokens; ++id) {
    const double expected = kDraws * std::exp(logits[id] / 0.8) / total;
    deviation += std::pow(drawn[id] - expected, 2) / expected;
  }
  EXPECT_LT(deviation, 45.3);
}

TEST(PickTest, TheLargestRandomNumberIsStillAToken) {
  const std::vector<float> logits = RandomLogits(5000, 3, 0.01f);
  const double most = 1 - std::numeric_limits<double>::epsilon() / 2;
  const int32_t id = PickOne(logits, {.temperature = 1, .uniform = most});
  const auto least = std::min_element(logits.begin(), logits.end());
  EXPECT_EQ(id, least - logits.begin());
}

TEST(PickTest, TheOrderOfThreadsDoesNotMatter) {
  std::vector<std::vector<int32_t>> ids;
  for (const auto order :
       {emulated::FiberOrder::kAscending, emulated::FiberOrder::kDescending}) {
    emulated::SetFiberOrder(order);
    Picks picks(3000);
    for (int i = 0; i < 20; ++i) {
      picks.Add(RandomLogits(3000, i, 2), {.temperature = 1,
                                           .top_k = 900,
                                           .top_p = 0.9f,
                                           .min_p = 0.01f,
                                           .uniform = i / 20.0});
    }
    ids.push_back(picks.Run());
  }
  emulated::SetFiberOrder(emulated::FiberOrder::kAscending);
  EXPECT_EQ(ids[0], ids[1]);
}

}  // namespace
}  // namespace millrace::backends::cuda
