// A key is rotated once, at its text position, and stays as good as new however
// far the text goes on.

#include <cmath>
#include <cstdlib>
#include <iterator>
#include <map>
#include <memory>
#include <numbers>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/exactness/models.h"
#include "tests/testing/named_policy.h"

namespace millrace::testing {
namespace {

using cache::kBlockTokens;
using cache::KvDtype;

// Odd, as products with a power of two are exact in any arithmetic.
constexpr int64_t kFarPositions[] = {(int64_t{1} << 20) + 3, 4'000'001,
                                     (int64_t{1} << 32) + 5,
                                     (int64_t{1} << 40) + 7};

class PositionsTest : public ::testing::TestWithParam<BackendUnderTest> {
 protected:
  std::unique_ptr<ModelRunner> Runner(KvDtype dtype) {
    return NewRunner(GetParam(), RandomModel(WeightType::kF32), dtype);
  }

  // The logits of all rows of a text whose first token is at `first`, under
  // S sinks and a window of R, in one chunk.
  static Rows ReadFrom(ModelRunner& runner, int64_t first,
                       absl::Span<const int32_t> text) {
    constexpr int64_t kSinks = 4, kWindow = 20;
    std::vector<int32_t> blocks;
    for (size_t i = 0; i <= text.size() / kBlockTokens + 1; ++i) {
      blocks.push_back(static_cast<int32_t>(i));
    }
    const int slot = static_cast<int>(first % kBlockTokens);
    const cache::KvRun sinks = {.rule = {.begin = first,
                                         .end = first + kSinks,
                                         .query_cap = first + kSinks + kWindow},
                                .first_position = first,
                                .length = kSinks,
                                .first_slot = slot,
                                .blocks = blocks};
    const int64_t rest = static_cast<int64_t>(text.size()) - kSinks;
    const cache::KvRun window = {
        .rule = {.begin = first + kSinks, .window = kWindow},
        .first_position = first + kSinks,
        .length = rest,
        .first_slot = static_cast<int>((slot + kSinks) % kBlockTokens),
        .blocks = absl::MakeConstSpan(blocks).subspan((slot + kSinks) /
                                                      kBlockTokens)};
    const cache::KvView view = {{sinks, window}};
    return runner.Forward({{{.token_ids = text,
                             .first_position = first,
                             .view = &view,
                             .num_logits = static_cast<int>(text.size())}}});
  }
};

TEST_P(PositionsTest, ATextSaysTheSameWhereverItBegins) {
  const std::vector<int32_t> text = RandomText(120);
  for (const auto& [dtype, gate] : std::map<KvDtype, double>{
           {KvDtype::kF32, 1e-3}, {KvDtype::kF16, 5e-2}}) {
    const auto runner = Runner(dtype);
    const Rows from_zero = ReadFrom(*runner, 0, text);
    for (const int64_t first : kFarPositions) {
      EXPECT_LE(MaxDifference(ReadFrom(*runner, first, text), from_zero), gate)
          << "from " << first;
    }
  }
}

// What the test above must be able to see: a distance that is off by one.
TEST_P(PositionsTest, OnePositionMakesADifference) {
  const auto runner = Runner(KvDtype::kF32);
  std::vector<int32_t> text = RandomText(120);
  const Rows rows = ReadFrom(*runner, 0, text);
  text.erase(text.begin() + 60);
  const Rows without = ReadFrom(*runner, 0, text);
  EXPECT_GE(MaxDifference({rows.back()}, {without.back()}), 1e-2);
}

// The first layer's key of a token depends on its id and position alone.
std::vector<float> StoredKey(ModelRunner& runner, int64_t position) {
  const std::vector<int32_t> text = {7};
  const std::vector<int32_t> blocks = {0};
  const cache::KvView view = {
      {{.rule = {.begin = position},
        .first_position = position,
        .length = 1,
        .first_slot = static_cast<int>(position % kBlockTokens),
        .blocks = blocks}}};
  runner.Forward({{{.token_ids = text,
                    .first_position = position,
                    .view = &view,
                    .num_logits = 1}}});
  const cache::KvSpec& spec = runner.storage().spec();
  std::vector<float> block(cache::CanonicalBlockValues(spec));
  EXPECT_TRUE(runner.storage().ReadBlocks({0}, absl::MakeSpan(block)).ok());
  const int64_t heads = int64_t{spec.num_kv_heads} * spec.head_dim;
  const auto key = block.begin() + position % kBlockTokens * heads;
  return {key, key + heads};
}

// Rotates pairs of each head to a text position.
std::vector<double> Rotated(const std::vector<float>& key, int head_dim,
                            double base, int64_t position) {
  std::vector<double> rotated(key.size());
  for (size_t d = 0; d < key.size(); d += 2) {
    const long double turns =
        std::pow(static_cast<long double>(base),
                 -static_cast<long double>(d % head_dim) / head_dim) *
        position / (2 * std::numbers::pi_v<long double>);
    const long double angle =
        (turns - std::floor(turns)) * 2 * std::numbers::pi_v<long double>;
    const double c = std::cos(angle), s = std::sin(angle);
    rotated[d] = key[d] * c - key[d + 1] * s;
    rotated[d + 1] = key[d] * s + key[d + 1] * c;
  }
  return rotated;
}

// The largest score that some query of length 1 can be off by, for keys of
// length 1.
double WorstScore(const std::vector<float>& key,
                  const std::vector<double>& exact) {
  double off = 0, length = 0;
  for (size_t d = 0; d < key.size(); ++d) {
    off += (key[d] - exact[d]) * (key[d] - exact[d]);
    length += exact[d] * exact[d];
  }
  return std::sqrt(off / length);
}

TEST_P(PositionsTest, KeysAreRotatedExactlyAtAnyPosition) {
  const auto exact = Runner(KvDtype::kF32);
  const auto stored = Runner(KvDtype::kF16);
  const std::vector<float> key = StoredKey(*exact, 0);  // not rotated
  const int head_dim = exact->config().head_dim;
  const double base = exact->config().rope_base;
  for (const int64_t position : kFarPositions) {
    EXPECT_LE(WorstScore(StoredKey(*stored, position),
                         Rotated(key, head_dim, base, position)),
              1e-3)
        << position;
    EXPECT_GE(WorstScore(StoredKey(*stored, position),
                         Rotated(key, head_dim, base, position + 1)),
              1e-1)
        << position;
  }
}

// Every key that is still there has the bytes that were first written.
TEST_P(PositionsTest, AKeyIsNeverRewritten) {
  const int64_t evictions = std::getenv("MILLRACE_FULL") ? 1'000'000 : 20'000;
  const auto runner = Runner(KvDtype::kF16);
  cache::CacheManager& manager = runner->manager();
  const cache::SequenceId id =
      runner->Open(NamedPolicy("sinks:sink_tokens=4,window_tokens=300"));
  const int64_t values = cache::CanonicalBlockValues(runner->storage().spec());
  // By text position of the block, as it was when it was full.
  std::map<int64_t, std::vector<float>> written;
  int64_t compared = 0;
  const std::vector<int32_t> text = RandomText(128);
  while (manager.stats().evicted_tokens < evictions) {
    runner->Step({{.id = id, .ids = text, .num_logits = 0}});
    for (const cache::KvRun& run : manager.View(id).runs) {
      const int64_t first = run.first_position - run.first_slot;
      for (size_t b = 0; b < run.blocks.size(); ++b) {
        const int64_t position = first + static_cast<int64_t>(b) * kBlockTokens;
        if (position + kBlockTokens > manager.Length(id)) continue;
        std::vector<float> now(values);
        ASSERT_TRUE(runner->storage()
                        .ReadBlocks({run.BlockAt(b)}, absl::MakeSpan(now))
                        .ok());
        const auto [entry, is_new] = written.try_emplace(position, now);
        compared += !is_new;
        ASSERT_EQ(entry->second, now) << "tokens from " << position;
      }
    }
    // The block of the sinks is compared for ever.
    while (written.size() > 100) written.erase(std::next(written.begin()));
  }
  EXPECT_GT(compared, evictions / 128);
}

INSTANTIATE_TEST_SUITE_P(Backends, PositionsTest,
                         ::testing::ValuesIn(BackendsAsChosen()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace millrace::testing
