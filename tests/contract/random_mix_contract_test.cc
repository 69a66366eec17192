// What a row computes does not depend on its company: sequences of all kinds
// share steps at random, and each gets what it gets alone, to the last bit.

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/contract/contract_fixture.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/model_runner.h"
#include "tests/testing/named_policy.h"

namespace millrace::testing {
namespace {

constexpr int kTokens = 80;  // of each text
constexpr int kMaxRows = 128;
constexpr const char* kPolicies[] = {
    "full:max_tokens=300",
    "sinks:sink_tokens=4,window_tokens=20",
    "window:window_tokens=9",
    "window:window_tokens=33",
    "sinks:sink_tokens=1,window_tokens=70",
};

struct Text {
  const char* policy;
  std::vector<int32_t> ids;
  Rows alone;
  cache::SequenceId id = {};
  size_t done = 0;  // tokens read in company
};

class RandomMixContract : public ContractTest {
 protected:
  int Below(int end) { return static_cast<int>(random_.Bits() % end); }

  std::unique_ptr<ModelRunner> NewRunner(const backends::ModelFile& file,
                                         int num_threads,
                                         cache::KvDtype dtype) {
    return ModelRunner::Create(
               file, {.backend = GetParam().backend,
                      .new_backend = GetParam().new_backend,
                      .backend_options = GetParam().Options(num_threads),
                      .kv_dtype = dtype,
                      .max_rows = kMaxRows,
                      .num_blocks = 256})
        .value();
  }

  // Texts and what they give alone, token by token on one thread.
  std::vector<Text> ReadAlone(ModelRunner& runner) {
    std::vector<Text> texts;
    for (const char* policy : kPolicies) {
      Text text = {
          policy,
          RandomIds(kTokens, runner.config().vocabulary_size, random_.Bits()),
          {}};
      const cache::SequenceId id = runner.Open(NamedPolicy(policy));
      text.alone = runner.Read(id, text.ids, /*chunk=*/1);
      runner.manager().Close(id);
      texts.push_back(text);
    }
    return texts;
  }

  // A step of some of the texts that have tokens left, in any order: one token
  // of each, or more.
  std::vector<size_t> Shared(const std::vector<Text>& texts) {
    std::vector<size_t> chosen;
    for (size_t i = 0; i < texts.size(); ++i) {
      if (texts[i].done < texts[i].ids.size() && Below(3) > 0) {
        chosen.insert(
            chosen.begin() + Below(static_cast<int>(chosen.size()) + 1), i);
      }
    }
    return chosen;
  }

  std::vector<int32_t> NextIds(const Text& text) {
    const size_t most = std::min<size_t>(text.ids.size() - text.done,
                                         kMaxRows / std::size(kPolicies));
    const size_t count = Below(2) == 0 ? 1 : 1 + Below(static_cast<int>(most));
    const auto first = text.ids.begin() + static_cast<int64_t>(text.done);
    return {first, first + static_cast<int64_t>(count)};
  }

  // Reads all texts in company; each row as it was alone.
  void ReadInCompany(ModelRunner& runner, std::vector<Text> texts) {
    for (Text& text : texts) text.id = runner.Open(NamedPolicy(text.policy));
    const auto left = [](const Text& text) {
      return text.done < text.ids.size();
    };
    while (std::any_of(texts.begin(), texts.end(), left)) {
      const std::vector<size_t> chosen = Shared(texts);
      if (chosen.empty()) continue;
      std::vector<ModelRunner::Part> parts;
      for (const size_t i : chosen) {
        parts.push_back({texts[i].id, NextIds(texts[i])});
      }
      const std::vector<Rows> rows = runner.Step(parts);
      for (size_t part = 0; part < chosen.size(); ++part) {
        Text& text = texts[chosen[part]];
        for (const std::vector<float>& row : rows[part]) {
          ASSERT_EQ(row, text.alone[text.done])
              << text.policy << ", token " << text.done;
          ++text.done;
        }
      }
    }
  }

  RandomValues random_{20};
};

TEST_P(RandomMixContract, NoBitDependsOnMatesThreadsOrChunks) {
  for (const WeightType type :
       {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ8_0}) {
    const auto file =
        OpenTinyLlama({.embeddings = WeightType::kQ8_0, .matrices = type});
    for (const cache::KvDtype dtype :
         {cache::KvDtype::kF16, cache::KvDtype::kInt8}) {
      const std::vector<Text> texts =
          ReadAlone(*NewRunner(*file, /*num_threads=*/1, dtype));
      for (const int threads : {1, 2, 5}) {
        SCOPED_TRACE(threads);
        ReadInCompany(*NewRunner(*file, threads, dtype), texts);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, RandomMixContract,
                         ::testing::ValuesIn(BackendsUnderTest()),
                         BackendName());

}  // namespace
}  // namespace millrace::testing
