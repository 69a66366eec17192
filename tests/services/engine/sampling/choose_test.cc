#include "services/engine/sampling/choose.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/engine/sampling/philox.h"

namespace millrace::engine {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Everything that is off.
SamplingOptions Plain() {
  return {.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0};
}

std::vector<float> LogOf(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) {
    logits.push_back(static_cast<float>(std::log(p)));
  }
  return logits;
}

// The ids that can be chosen, in the order in which random numbers pick them.
std::string Kept(const SamplingOptions& options,
                 const std::vector<float>& logits) {
  std::string kept;
  int32_t last = -1;
  for (int i = 0; i < 10'000; ++i) {
    const int32_t id = Choose(options, logits, (i + 0.5) / 10'000);
    if (id != last) absl::StrAppend(&kept, last < 0 ? "" : " ", id);
    last = id;
  }
  return kept;
}

// How often each id is chosen by `draws` random numbers.
std::vector<double> Frequencies(const SamplingOptions& options,
                                const std::vector<float>& logits, int draws) {
  std::vector<double> frequencies(logits.size());
  for (int i = 0; i < draws; ++i) {
    const double u = UniformOf(7, 1, static_cast<uint64_t>(i));
    frequencies[static_cast<size_t>(Choose(options, logits, u))] += 1.0 / draws;
  }
  return frequencies;
}

const std::vector<float>& Four() {
  static const auto* const logits =
      new std::vector<float>(LogOf({0.1, 0.4, 0.2, 0.3}));
  return *logits;
}

TEST(ChooseTest, GreedyTakesTheLargestAndTheLowestIdOfEqualOnes) {
  EXPECT_EQ(Greedy({1, 3, 2, 3}), 1);
  EXPECT_EQ(Greedy({kNever, -5}), 1);
}

TEST(ChooseTest, TakesTokensInFallingOrder) {
  EXPECT_EQ(Kept(Plain(), Four()), "1 3 2 0");
  EXPECT_EQ(Kept(Plain(), {2, 2, 3}), "2 0 1");
}

TEST(ChooseTest, BordersLieWhereTheProbabilitiesSay) {
  EXPECT_EQ(Choose(Plain(), Four(), 0.0), 1);
  EXPECT_EQ(Choose(Plain(), Four(), 0.399), 1);
  EXPECT_EQ(Choose(Plain(), Four(), 0.401), 3);
  EXPECT_EQ(Choose(Plain(), Four(), 0.699), 3);
  EXPECT_EQ(Choose(Plain(), Four(), 0.701), 2);
  EXPECT_EQ(Choose(Plain(), Four(), 0.899), 2);
  EXPECT_EQ(Choose(Plain(), Four(), 0.901), 0);
  EXPECT_EQ(Choose(Plain(), Four(), std::nextafter(1.0, 0.0)), 0);
}

TEST(ChooseTest, TopKKeepsK) {
  SamplingOptions options = Plain();
  const std::vector<std::string> kept = {"1", "1 3", "1 3 2", "1 3 2 0",
                                         "1 3 2 0"};
  for (int k = 1; k <= 5; ++k) {
    options.top_k = k;
    EXPECT_EQ(Kept(options, Four()), kept[static_cast<size_t>(k - 1)]);
  }
}

TEST(ChooseTest, TopPKeepsTheFewestThatAreEnough) {
  SamplingOptions options = Plain();
  const auto kept = [&](float p) {
    options.top_p = p;
    return Kept(options, Four());
  };
  EXPECT_EQ(kept(0.01f), "1");
  EXPECT_EQ(kept(0.39f), "1");
  EXPECT_EQ(kept(0.41f), "1 3");
  EXPECT_EQ(kept(0.69f), "1 3");
  EXPECT_EQ(kept(0.71f), "1 3 2");
  EXPECT_EQ(kept(0.91f), "1 3 2 0");
}

TEST(ChooseTest, TopPCountsWhatTopKKept) {
  SamplingOptions options = Plain();
  options.top_k = 2;  // 4/7 and 3/7
  options.top_p = 0.56f;
  EXPECT_EQ(Kept(options, Four()), "1");
  options.top_p = 0.58f;
  EXPECT_EQ(Kept(options, Four()), "1 3");
}

TEST(ChooseTest, TopPCountsWhatMinPDrops) {
  SamplingOptions options = Plain();
  options.top_k = 3;     // 4/9, 3/9 and 2/9
  options.top_p = 0.5f;  // 4/9 is not enough
  options.min_p = 0.6f;  // drops the third
  EXPECT_EQ(Kept(options, Four()), "1 3");
}

TEST(ChooseTest, MinPComparesWithTheLikeliest) {
  SamplingOptions options = Plain();
  const auto kept = [&](float p) {
    options.min_p = p;
    return Kept(options, Four());
  };
  EXPECT_EQ(kept(0.24f), "1 3 2 0");
  EXPECT_EQ(kept(0.26f), "1 3 2");
  EXPECT_EQ(kept(0.51f), "1 3");
  EXPECT_EQ(kept(1.0f), "1");
}

TEST(ChooseTest, TemperatureComesBeforeTheFilters) {
  SamplingOptions options = Plain();
  options.temperature = 0.5f;  // 16 : 9 : 4 : 1
  options.min_p = 0.3f;
  EXPECT_EQ(Kept(options, Four()), "1 3");
  options.temperature = 2;  // 2 : 1.73 : 1.41 : 1
  EXPECT_EQ(Kept(options, Four()), "1 3 2 0");
}

TEST(ChooseTest, AColdModelIsGreedy) {
  SamplingOptions options = Plain();
  options.temperature = 1e-30f;
  EXPECT_EQ(Kept(options, Four()), "1");
}

TEST(ChooseTest, AHotModelIsEven) {
  SamplingOptions options = Plain();
  options.temperature = 1e30f;
  for (const double f : Frequencies(options, Four(), 10'000)) {
    EXPECT_NEAR(f, 0.25, 0.02);
  }
}

TEST(ChooseTest, NeverTakesWhatIsSuppressed) {
  EXPECT_EQ(Kept(Plain(), {kNever, 1, kNever, 1}), "1 3");
  SamplingOptions options = Plain();
  options.top_k = 3;
  EXPECT_EQ(Kept(options, {kNever, 1, kNever, 1}), "1 3");
  options.top_p = 0.99f;
  EXPECT_EQ(Kept(options, {kNever, 1, kNever, 1}), "1 3");
}

// Four standard deviations of 50,000 draws are below 0.009.
TEST(ChooseTest, DrawsAsTheProbabilitiesSay) {
  const std::vector<double> drawn = Frequencies(Plain(), Four(), 50'000);
  EXPECT_NEAR(drawn[0], 0.1, 0.009);
  EXPECT_NEAR(drawn[1], 0.4, 0.009);
  EXPECT_NEAR(drawn[2], 0.2, 0.009);
  EXPECT_NEAR(drawn[3], 0.3, 0.009);
}

TEST(ChooseTest, DrawsFromWhatTheFiltersKeep) {
  SamplingOptions options = Plain();
  options.top_p = 0.6f;  // keeps 1 and 3
  const std::vector<double> drawn = Frequencies(options, Four(), 50'000);
  EXPECT_NEAR(drawn[1], 4.0 / 7, 0.009);
  EXPECT_NEAR(drawn[3], 3.0 / 7, 0.009);
  EXPECT_EQ(drawn[0] + drawn[2], 0);
}

// The definition, in the plainest form: sort, then filter one after the other.
int32_t ChoosePlainly(const SamplingOptions& options,
                      const std::vector<float>& logits, double uniform) {
  struct Token {
    double weight;
    int32_t id;
  };
  std::vector<Token> tokens;
  const float largest = logits[static_cast<size_t>(Greedy(logits))];
  for (size_t i = 0; i < logits.size(); ++i) {
    tokens.push_back({std::exp((logits[i] - largest) / options.temperature),
                      static_cast<int32_t>(i)});
  }
  std::stable_sort(
      tokens.begin(), tokens.end(),
      [](const Token& a, const Token& b) { return a.weight > b.weight; });
  const auto sum = [&] {
    double total = 0;
    for (const Token& token : tokens) total += token.weight;
    return total;
  };
  if (options.top_k > 0 && tokens.size() > size_t(options.top_k)) {
    tokens.resize(static_cast<size_t>(options.top_k));
  }
  if (options.top_p < 1) {
    const double enough = options.top_p * sum();
    double so_far = 0;
    size_t kept = 0;
    while (so_far < enough) so_far += tokens[kept++].weight;
    tokens.resize(std::max<size_t>(kept, 1));
  }
  while (tokens.back().weight < options.min_p) tokens.pop_back();
  double point = uniform * sum();
  for (const Token& token : tokens) {
    point -= token.weight;
    if (point < 0) return token.id;
  }
  return tokens.back().id;
}

const std::vector<SamplingOptions>& ManyOptions() {
  static const auto* const all = new std::vector<SamplingOptions>{
      Plain(),
      {},
      {.temperature = 1.3f, .top_k = 40, .top_p = 0.9f, .min_p = 0.02f},
      {.temperature = 1, .top_k = 0, .top_p = 0.8f, .min_p = 0},
      {.temperature = 0.8f, .top_k = 50, .top_p = 1, .min_p = 0},
      {.temperature = 1, .top_k = 3000, .top_p = 0.99f, .min_p = 0},
      {.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 1e-5f},
      {.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0.1f}};
  return *all;
}

// Among thousands of tokens that are nearly equal, rounding may choose the next
// one: their logits may differ by `tolerance`.
void ExpectThePlainDefinition(const std::vector<float>& logits,
                              float tolerance) {
  for (const SamplingOptions& options : ManyOptions()) {
    for (uint64_t i = 0; i < 100; ++i) {
      const double u = UniformOf(2, 1, i);
      const int32_t chosen = Choose(options, logits, u);
      const int32_t expected = ChoosePlainly(options, logits, u);
      EXPECT_NEAR(logits[static_cast<size_t>(chosen)],
                  logits[static_cast<size_t>(expected)], tolerance)
          << options.top_k << " " << options.top_p << " " << options.min_p;
    }
  }
}

TEST(ChooseTest, EqualsThePlainDefinitionOnALargeVocabulary) {
  std::vector<float> logits(5000);
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] =
        static_cast<float>(8 * UniformOf(1, 1, i) + 8 * UniformOf(1, 2, i) - 8);
  }
  ExpectThePlainDefinition(logits, 0);
}

// What is far less likely than the first, but is many, counts together: here a
// third of the probability, and more than half with the last ones.
TEST(ChooseTest, EqualsThePlainDefinitionBehindASinglePeak) {
  for (const float peak : {9.0f, 17.5f}) {
    std::vector<float> logits(5000);
    for (size_t i = 0; i < logits.size(); ++i) {
      logits[i] = static_cast<float>(UniformOf(1, 3, i));
    }
    logits[4321] = peak;
    ExpectThePlainDefinition(logits, 1e-3f);
  }
}

}  // namespace
}  // namespace millrace::engine
