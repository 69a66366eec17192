// Under `reprefill` a row says what the model says of its visible text alone:
// the protected prefix and the window, read anew from position 0.

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/exactness/models.h"
#include "tests/testing/dense_oracle.h"
#include "tests/testing/named_policy.h"

namespace millrace::testing {
namespace {

using cache::KvDtype;

constexpr int kTokens = 300;
constexpr int kSampled = 5;  // every so many rows

// The window's beginning, by the definition: moves on by E until R are left.
struct Window {
  int64_t window, every, kept;

  int64_t Begin(int64_t t) const {
    int64_t begin = kept;
    while (t - begin > window) begin += every;
    return begin;
  }
  std::vector<int32_t> Visible(const std::vector<int32_t>& text,
                               int64_t t) const {
    std::vector<int32_t> visible(text.begin(),
                                 text.begin() + std::min(kept, t + 1));
    if (t >= kept) {
      visible.insert(visible.end(), text.begin() + Begin(t),
                     text.begin() + t + 1);
    }
    return visible;
  }
  std::string text() const {
    return absl::StrCat("reprefill:window_tokens=", window,
                        ",rebuild_every=", every, ",pin_tokens=", kept);
  }
};

class RecomputeTest
    : public ::testing::TestWithParam<std::tuple<BackendUnderTest, Window>> {
 protected:
  const BackendUnderTest& backend() { return std::get<0>(GetParam()); }
  const Window& window() { return std::get<1>(GetParam()); }

  Rows Stream(const std::string& policy, KvDtype dtype) {
    const auto runner =
        NewRunner(backend(), RandomModel(WeightType::kF32), dtype);
    return Sample(runner->Read(runner->Open(NamedPolicy(policy)),
                               RandomText(kTokens), 29));
  }
  static Rows Sample(const Rows& rows) {
    Rows sampled;
    for (size_t t = 0; t < rows.size(); t += kSampled) {
      sampled.push_back(rows[t]);
    }
    return sampled;
  }

  static DenseOracle::Logits Anew(const Window& window) {
    const DenseOracle oracle(RandomModel(WeightType::kF32));
    const std::vector<int32_t> text = RandomText(kTokens);
    DenseOracle::Logits logits;
    for (int64_t t = 0; t < kTokens; t += kSampled) {
      const std::vector<int32_t> visible = window.Visible(text, t);
      logits.push_back(
          oracle.Read(visible, FullVisibility(), visible.size() - 1).back());
    }
    return logits;
  }
};

TEST_P(RecomputeTest, EachRowIsThatOfItsVisibleTextAlone) {
  EXPECT_LE(
      MaxDifference(Stream(window().text(), KvDtype::kF32), Anew(window())),
      1e-3);
  EXPECT_LE(
      MaxDifference(Stream(window().text(), KvDtype::kF16), Anew(window())),
      5e-2);
}

TEST_P(RecomputeTest, DefinitionsOffByOneAreToldApart) {
  const Rows streamed = Stream(window().text(), KvDtype::kF32);
  Window longer = window(), later = window(), more = window();
  ++longer.window;
  ++later.every;
  ++more.kept;
  for (const Window& wrong : {longer, later, more}) {
    EXPECT_GE(MaxDifference(streamed, Anew(wrong)), 1e-2) << wrong.text();
  }
}

// The keys and values of `sinks` remember what has left.
TEST_P(RecomputeTest, KeysThatAreKeptAreToldApart) {
  const std::string kept =
      absl::StrCat("shift:context_tokens=", window().kept + window().window + 1,
                   ",n_keep=", window().kept, ",n_discard=", window().every);
  EXPECT_GE(MaxDifference(Stream(kept, KvDtype::kF32), Anew(window())), 1e-2);
}

INSTANTIATE_TEST_SUITE_P(
    Backends, RecomputeTest,
    ::testing::Combine(::testing::ValuesIn(BackendsAsChosenAndSlow()),
                       ::testing::Values(Window{24, 1, 0}, Window{30, 15, 4},
                                         Window{20, 7, 17})),
    [](const auto& info) {
      const Window& w = std::get<1>(info.param);
      return absl::StrCat(std::get<0>(info.param).name, "_Window", w.window,
                          "Every", w.every, "Kept", w.kept);
    });

}  // namespace
}  // namespace millrace::testing
