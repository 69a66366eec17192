// Policies that choose by attention choose what the definition says, read what
// it says, and are told apart from definitions that are wrong by one.

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/exactness/models.h"
#include "tests/exactness/scored_policies.h"
#include "tests/exactness/scored_stream.h"

namespace millrace::testing {
namespace {

using cache::KvDtype;

// What an f16 cache and the oracle that rounds as it does have in common.
constexpr int kF16Bits = 11;

struct Precision {
  KvDtype dtype;
  int kv_bits;
  double gate;  // of logits
  // How far the sums of attention may be off, as a part of them.
  double sum_gate;
};
constexpr Precision kF32{KvDtype::kF32, 0, 1e-3, 1e-5};
constexpr Precision kF16{KvDtype::kF16, kF16Bits, 5e-2, 2e-3};

// As a part of the oracle's; what is next to nothing counts for nothing.
double SumsOff(const ByHead<float>& streamed, const ByHead<double>& exact) {
  double largest = 0;
  for (size_t layer = 0; layer < exact.size(); ++layer) {
    for (size_t head = 0; head < exact[layer].size(); ++head) {
      for (size_t i = 0; i < exact[layer][head].size(); ++i) {
        const double expected = exact[layer][head][i];
        const double off =
            std::abs(streamed[layer][head][i] - expected) / (expected + 1e-6);
        if (!(off <= largest)) largest = off;
      }
    }
  }
  return largest;
}

class ScoredTest : public ::testing::TestWithParam<
                       std::tuple<BackendUnderTest, ScoredPolicyCase>> {
 protected:
  const BackendUnderTest& backend() { return std::get<0>(GetParam()); }
  const ScoredPolicyCase& policy() { return std::get<1>(GetParam()); }

  const backends::ModelFile& Model() {
    return RandomModelWithHeads(policy().num_heads, policy().num_kv_heads);
  }
  std::vector<int32_t> Text(const Precision& precision) {
    return RandomText(static_cast<int>(policy().tokens()),
                      precision.dtype == KvDtype::kF32 ? policy().f32_seed
                                                       : policy().f16_seed);
  }
  ScoredStream Stream(const Precision& precision, int chunk = 53) {
    const auto runner = NewRunner(backend(), Model(), precision.dtype);
    return ReadScored(*runner, runner->Open(policy().policy()), Text(precision),
                      policy().inputs(), chunk);
  }

  // Each definition is computed once for all backends.
  const ScoredReading& Oracle(const Precision& precision,
                              const ScoredControl& control) {
    static auto* known = new std::map<std::string, ScoredReading>;
    const auto [entry, is_new] = known->try_emplace(
        absl::StrCat(policy().name, precision.kv_bits, control.name));
    if (is_new) {
      const ScoredOracle oracle(Model(), control.definition,
                                {.kv_bits = precision.kv_bits});
      entry->second = oracle.Read(Text(precision), policy().inputs());
    }
    return entry->second;
  }

  void ExpectEqualCuts(const ScoredStream& streamed, const ScoredReading& exact,
                       const Precision& precision) {
    ASSERT_EQ(streamed.cuts.size(), exact.cuts.size());
    double off = 0;
    for (size_t i = 0; i < exact.cuts.size(); ++i) {
      const StreamedCut& cut = streamed.cuts[i];
      ASSERT_EQ(cut.length, exact.cuts[i].length);
      off = std::max(off, SumsOff(cut.sums, exact.cuts[i].sums));
      if (!policy().definition.text_distances) {
        ASSERT_EQ(cut.kept, exact.cuts[i].kept) << "after " << cut.length;
      }
    }
    EXPECT_LE(off, precision.sum_gate);
    // Else equal choices would be luck.
    EXPECT_GT(exact.margin(), 2 * off)
        << "a near tie in this text: choose another seed";
    RecordProperty(absl::StrCat("sums_off_", KvDtypeName(precision.dtype)),
                   absl::StrCat(off));
  }

  void ExpectExact(const Precision& precision) {
    const ScoredReading& exact = Oracle(precision, {"", policy().definition});
    ASSERT_GE(exact.cuts.size(), 3u);
    const ScoredStream streamed = Stream(precision);
    ExpectEqualCuts(streamed, exact, precision);
    const double off = MaxDifference(streamed.logits, exact.logits);
    EXPECT_LE(off, precision.gate);
    RecordProperty(absl::StrCat("off_", KvDtypeName(precision.dtype)),
                   absl::StrCat(off));
    RecordProperty(absl::StrCat("margin_", KvDtypeName(precision.dtype)),
                   absl::StrCat(exact.margin()));
    for (const ScoredControl& control : policy().controls()) {
      EXPECT_GE(
          MaxDifference(streamed.logits, Oracle(precision, control).logits),
          10 * precision.gate)
          << "cannot be told from " << control.name;
    }
  }
};

TEST_P(ScoredTest, F32Cache) { ExpectExact(kF32); }

TEST_P(ScoredTest, F16Cache) { ExpectExact(kF16); }

TEST_P(ScoredTest, DistancesStayWithinTheCache) {
  const ScoredDefinition& d = policy().definition;
  EXPECT_EQ(Stream(kF32).farthest, d.budget + d.stride - 1);
}

INSTANTIATE_TEST_SUITE_P(
    Backends, ScoredTest,
    ::testing::Combine(::testing::ValuesIn(BackendsWithScores()),
                       ::testing::ValuesIn(ScoredPolicyCases())),
    [](const auto& info) {
      return absl::StrCat(std::get<0>(info.param).name, "_",
                          std::get<1>(info.param).name);
    });

}  // namespace
}  // namespace millrace::testing
