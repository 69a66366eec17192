// The default model against values that were computed independently, in fp32,
// without a cache (tests/testdata/README.md). Skipped where it is not.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backends/model_file/registry.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/exactness/models.h"
#include "tests/exactness/streaming_policies.h"
#include "tests/testing/test_files.h"

namespace millrace::testing {
namespace {

using cache::KvDtype;

// Opened once; null where there is no model.
const backends::ModelFile* TheModel() {
  static const auto* const file = []() -> const backends::ModelFile* {
    const std::string path = DefaultModelPath();
    if (path.empty()) return nullptr;
    return backends::OpenModelFile(path, {}).value().release();
  }();
  return file;
}

// How near a backend comes: `reference` computes in fp32, `onednn` rounds
// activations to 8 bits.
struct Gates {
  double nll = 2e-3;          // largest difference of a token, in nats
  double mean_nll = 1e-3;     // part of the mean
  double sure_margin = 1e-3;  // above it the first choice must be the same
};

class RealModelTest : public ::testing::TestWithParam<BackendUnderTest> {
 protected:
  void SetUp() override {
    if (TheModel() == nullptr) GTEST_SKIP() << "the default model is not here";
    // The model is loaded once for all tests of a backend.
    static std::string loaded;
    static std::unique_ptr<ModelRunner> runner;
    if (loaded != GetParam().name) {
      loaded = GetParam().name;
      runner = nullptr;
      runner = NewRunner(GetParam(), *TheModel(), KvDtype::kF32, 128);
    }
    runner_ = runner.get();
    if (GetParam().int8_activations) gates_ = {1.5, 5e-3, 0.5};
  }

  // Negative log-likelihoods of tokens 1, 2, ... of the text, in nats.
  std::vector<double> Nlls(const std::string& policy,
                           const std::vector<int32_t>& ids) {
    std::vector<double> nlls;
    const cache::SequenceId id = runner_->Open(NamedPolicy(policy));
    runner_->Read(id, ids, 128,
                  [&](int64_t position, absl::Span<const float> logits) {
                    if (position + 1 == int64_t(ids.size())) return;
                    nlls.push_back(Nll(logits, ids[position + 1]));
                  });
    runner_->manager().Close(id);
    return nlls;
  }

  static double Nll(absl::Span<const float> logits, int32_t token) {
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) sum += std::exp(logit - largest);
    return largest + std::log(sum) - logits[token];
  }

  void ExpectNlls(const std::string& policy, const std::string& file) {
    std::vector<float> expected =
        TestFloats(absl::StrCat("reference/", file, ".f32le"));
    // Rounding noise of 8 bits moves the mean of 511 tokens by 0.4 % of itself
    // (they are known by heart, and their mean is small): a gate of 0.5 % needs
    // all 4,096, which such a backend reads in seconds.
    if (!FullTests() && !GetParam().int8_activations) expected.resize(511);
    std::vector<int32_t> ids =
        TestIds("reference/war_and_peace.4096.ids.u16le");
    ids.resize(expected.size() + 1);

    const std::vector<double> nlls = Nlls(policy, ids);
    ASSERT_EQ(nlls.size(), expected.size());
    double worst = 0;
    for (size_t i = 0; i < nlls.size(); ++i) {
      worst = std::max(worst, std::abs(nlls[i] - expected[i]));
    }
    EXPECT_LE(worst, gates_.nll);
    EXPECT_LE(std::abs(Mean(nlls) - Mean(expected)),
              gates_.mean_nll * Mean(expected));
    std::printf(
        "%s, %zu tokens: largest difference %.2g nats, mean %.5f "
        "against %.5f\n",
        policy.c_str(), ids.size(), worst, Mean(nlls), Mean(expected));
  }

  template <typename T>
  static double Mean(const std::vector<T>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / values.size();
  }

  Gates gates_;
  ModelRunner* runner_ = nullptr;
};

TEST_P(RealModelTest, LikelihoodsUnderFull) { ExpectNlls("full", "nll_full"); }

TEST_P(RealModelTest, LikelihoodsUnderAWindow) {
  ExpectNlls("window:window_tokens=256", "nll_window_256");
}

TEST_P(RealModelTest, LikelihoodsUnderSinks) {
  ExpectNlls("sinks:sink_tokens=4,window_tokens=252", "nll_sinks_4_252");
}

TEST_P(RealModelTest, LikelihoodsUnderOneSink) {
  ExpectNlls("sinks:sink_tokens=1,window_tokens=63", "nll_sinks_1_63");
}

// Each step is given the reference's choices so far.
TEST_P(RealModelTest, GreedyChoices) {
  const auto cases = nlohmann::json::parse(TestData("reference/greedy.json"));
  int compared = 0;
  for (const auto& prompt : cases) {
    const std::vector<int32_t> chosen = prompt["greedy_ids"];
    const std::vector<double> margins = prompt["margin_to_second"];
    std::vector<int32_t> ids = prompt["prompt_ids"];
    const size_t first = ids.size() - 1;
    ids.insert(ids.end(), chosen.begin(), chosen.end() - 1);
    const cache::SequenceId id = runner_->Open(NamedPolicy("full"));
    const Rows rows = runner_->Read(id, ids, 128);
    runner_->manager().Close(id);
    for (size_t i = 0; i < chosen.size(); ++i) {
      if (margins[i] <= gates_.sure_margin) continue;
      const std::vector<float>& row = rows[first + i];
      EXPECT_EQ(std::max_element(row.begin(), row.end()) - row.begin(),
                chosen[i])
          << "step " << i << ", margin " << margins[i];
      ++compared;
    }
  }
  std::printf("%d choices compared\n", compared);
  EXPECT_GE(compared, GetParam().int8_activations ? 50 : 100);
}

TEST_P(RealModelTest, LogitsAfter64Tokens) {
  const std::vector<float> expected =
      TestFloats("reference/logits_after_64.f32le");
  std::vector<int32_t> ids = TestIds("reference/war_and_peace.4096.ids.u16le");
  ids.resize(64);
  const cache::SequenceId id = runner_->Open(NamedPolicy("full"));
  const Rows rows = runner_->Read(id, ids, 64);
  runner_->manager().Close(id);
  const double off = MaxDifference({rows.back()}, Rows{expected});
  EXPECT_LE(off, GetParam().int8_activations ? 1.5 : 2e-3);
  std::printf("largest difference of 49,152 logits: %.2g\n", off);
}

// Controls: in fp32 the suite tells definitions apart that are off by one.
TEST_P(RealModelTest, PoliciesOffByOneAreToldApart) {
  if (GetParam().int8_activations) {
    GTEST_SKIP() << "rounding to 8 bits is as large as one token";
  }
  std::vector<int32_t> ids = TestIds("reference/war_and_peace.4096.ids.u16le");
  ids.resize(128);
  const std::vector<float> expected =
      TestFloats("reference/nll_sinks_1_63.f32le");
  const auto worst = [&](const char* policy) {
    const std::vector<double> nlls = Nlls(policy, ids);
    double off = 0;
    for (size_t i = 0; i < nlls.size(); ++i) {
      off = std::max(off, std::abs(nlls[i] - expected[i]));
    }
    return off;
  };
  EXPECT_GE(worst("sinks:sink_tokens=1,window_tokens=62"), 10 * gates_.nll);
  EXPECT_GE(worst("sinks:sink_tokens=1,window_tokens=64"), 10 * gates_.nll);
  EXPECT_GE(worst("sinks:sink_tokens=2,window_tokens=63"), 10 * gates_.nll);
}

TEST_P(RealModelTest, NeitherCutsNorAFullCacheMatter) {
  std::vector<int32_t> ids = TestIds("reference/war_and_peace.4096.ids.u16le");
  ids.resize(80);
  const auto read = [&](const char* policy, int chunk) {
    const cache::SequenceId id = runner_->Open(NamedPolicy(policy));
    Rows rows = runner_->Read(id, ids, chunk);
    runner_->manager().Close(id);
    return rows;
  };
  const char* const sinks = "sinks:sink_tokens=4,window_tokens=60";
  const Rows streamed = read(sinks, 80);
  EXPECT_EQ(read(sinks, 7), streamed);
  // Two runs are summed in another order than one, and that is enough to turn
  // activations that are rounded to 8 bits.
  if (GetParam().int8_activations) return;
  // S + R + 1 = 65 rows see everything; the 66th does not.
  const Rows full = read("full", 80);
  const auto first = [](const Rows& rows, int n) {
    return Rows(rows.begin(), rows.begin() + n);
  };
  EXPECT_LE(MaxDifference(first(streamed, 65), first(full, 65)), 1e-4);
  EXPECT_GE(MaxDifference(first(streamed, 66), first(full, 66)), 1e-3);
}

// The whole model in double precision, to eight times its cache.
TEST_P(RealModelTest, StreamingEqualsOneMaskedPass) {
  if (GetParam().int8_activations) {
    GTEST_SKIP() << "its activations are not those of the double precision";
  }
  const StreamingPolicy policy = FullTests() ? Sinks(4, 12) : Sinks(1, 3);
  std::vector<int32_t> ids = TestIds("reference/war_and_peace.4096.ids.u16le");
  ids.resize(8 * policy.cache);
  const DenseOracle oracle(*TheModel());
  const cache::SequenceId id = runner_->Open(policy.policy());
  const Rows rows = runner_->Read(id, ids, 19);
  runner_->manager().Close(id);
  const double off = MaxDifference(rows, oracle.Read(ids, policy.visibility));
  EXPECT_LE(off, 1e-3);
  std::printf("largest difference of a logit: %.2g\n", off);
}

INSTANTIATE_TEST_SUITE_P(Backends, RealModelTest,
                         ::testing::ValuesIn(BackendsAsChosen()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace millrace::testing
