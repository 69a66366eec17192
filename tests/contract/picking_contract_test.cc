// Models that pick tokens pick what the host's sampler does from their logits.

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "services/engine/sampling/adjust.h"
#include "services/engine/sampling/choose.h"
#include "tests/contract/contract_fixture.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/model_runner.h"
#include "tests/testing/named_policy.h"

namespace millrace::testing {
namespace {

using backends::RowSampling;

// A chunk that asks for the logits of its last rows, or for tokens.
struct Asked {
  cache::SequenceId id;
  std::vector<int32_t> ids;
  std::vector<RowSampling> sampling;
  std::vector<int32_t> picked = {};
};

class PickingContract : public ContractTest {
 protected:
  std::unique_ptr<ModelRunner> NewRunner() {
    return ModelRunner::Create(*file_,
                               {.backend = GetParam().backend,
                                .new_backend = GetParam().new_backend,
                                .backend_options = GetParam().Options(1),
                                .kv_dtype = cache::KvDtype::kF16,
                                .num_blocks = 256})
        .value();
  }

  // One step; the logits that are wanted. With `picks` tokens are picked where
  // that is asked for, else logits are computed there, too.
  static Rows Step(ModelRunner& runner, std::vector<Asked>& asked, bool picks) {
    std::vector<cache::KvView> views;
    for (const Asked& one : asked) {
      views.push_back(*runner.manager().Reserve(one.id, one.ids.size()));
    }
    backends::Batch batch;
    for (size_t i = 0; i < asked.size(); ++i) {
      batch.chunks.push_back(
          {.token_ids = asked[i].ids,
           .first_position = runner.manager().Length(asked[i].id),
           .view = &views[i],
           .num_logits = static_cast<int>(asked[i].sampling.size())});
      if (!picks || i % 2 == 0) continue;
      asked[i].picked.assign(asked[i].sampling.size(), -7);
      batch.chunks.back().sampling = asked[i].sampling;
      batch.chunks.back().picked = absl::MakeSpan(asked[i].picked);
    }
    Rows rows = runner.Forward(batch);
    for (const Asked& one : asked) runner.manager().Commit(one.id);
    return rows;
  }

  // Four chunks of different lengths; of the second and the fourth tokens are
  // picked.
  std::vector<Asked> Chunks(ModelRunner& runner, const RowSampling& sampling) {
    std::vector<Asked> asked;
    for (const int rows : {1, 3, 2, 1}) {
      const int wanted = rows == 1 ? 1 : rows - 1;
      asked.push_back(
          {runner.Open(NamedPolicy("full:max_tokens=300")),
           RandomIds(rows, runner.config().vocabulary_size, asked.size() + 1),
           std::vector<RowSampling>(wanted, sampling)});
    }
    return asked;
  }

  // What is picked, and what the host picks from the same rows.
  std::pair<std::vector<int32_t>, std::vector<int32_t>> Compare(
      const RowSampling& sampling) {
    const auto runner = NewRunner(), other = NewRunner();
    std::vector<Asked> asked = Chunks(*runner, sampling);
    std::vector<Asked> same = Chunks(*other, sampling);
    const Rows some = Step(*runner, asked, /*picks=*/true);
    const Rows all = Step(*other, same, /*picks=*/false);
    // Rows 0, 1 2, 3, 4: chunks 0, 1, 2 and 3.
    EXPECT_EQ(some, (Rows{all[0], all[3]}));
    std::vector<int32_t> picked = asked[1].picked, expected;
    picked.push_back(asked[3].picked[0]);
    for (const size_t row : {1, 2, 4}) {
      std::vector<float> logits = all[row];
      engine::AdjustLogits(sampling.adjustments, absl::MakeSpan(logits));
      expected.push_back(engine::Choose(sampling, logits));
    }
    return {picked, expected};
  }

  const std::unique_ptr<const backends::ModelFile> file_ = OpenTinyLlama(
      {.embeddings = WeightType::kQ8_0, .matrices = WeightType::kQ4_1});
};

TEST_P(PickingContract, GreedyTokensAreTheLargestLogits) {
  const auto [picked, expected] = Compare({});
  EXPECT_EQ(picked, expected);
}

TEST_P(PickingContract, AdjustedOnesToo) {
  const auto [first, ignored] = Compare({});
  const auto [picked, expected] =
      Compare({.adjustments = {{.id = first[0], .suppressed = true}}});
  EXPECT_EQ(picked, expected);
  EXPECT_NE(picked[0], first[0]);
}

TEST_P(PickingContract, SampledTokensAreThoseOfTheRandomNumber) {
  for (const double uniform : {0.03, 0.31, 0.5, 0.77, 0.98}) {
    const auto [picked, expected] = Compare({.temperature = 0.8f,
                                             .top_k = 60,
                                             .top_p = 0.95f,
                                             .min_p = 0.01f,
                                             .uniform = uniform});
    EXPECT_EQ(picked, expected) << uniform;
  }
}

// Steps of two sequences that write, under a policy that evicts. `are_queued`:
// each is begun before the one before it has ended, else after that.
class StepQueueContract : public PickingContract {
 protected:
  static constexpr int kSteps = 40;

  void Open() {
    runner_ = NewRunner();
    for (auto& [id, written] : sequences_) {
      id = runner_->Open(NamedPolicy("sinks:sink_tokens=4,window_tokens=20"));
      written.clear();
    }
  }

  using Written = std::vector<std::vector<int32_t>>;
  Written Write(bool are_queued) {
    Open();
    std::optional<OneStep> before;
    for (int i = 0; i < kSteps; ++i) {
      OneStep step(i % 3 == 1);  // the order of the chunks
      Prepare(step, before, are_queued);
      EXPECT_TRUE(queue().Begin(step.batch, runner_->storage()).ok());
      if (are_queued && before) End(*before);
      if (!are_queued) End(step);
      for (const auto& sequence : sequences_) {
        runner_->manager().Commit(sequence.id);
      }
      before = std::move(step);
    }
    if (are_queued) End(*before);
    return {sequences_[0].written, sequences_[1].written};
  }

 private:
  struct Sequence {
    cache::SequenceId id;
    std::vector<int32_t> written;
  };
  struct OneStep {
    explicit OneStep(bool is_reversed)
        : order(is_reversed ? std::vector<int>{1, 0} : std::vector<int>{0, 1}) {
    }

    std::vector<int> order;  // numbers of sequences
    std::vector<std::vector<int32_t>> ids = {{}, {}};
    std::vector<cache::KvView> views = {{}, {}};
    std::vector<RowSampling> sampling =
        std::vector<RowSampling>(2, {.temperature = 1, .uniform = 0.4});
    std::vector<int32_t> picked = {-7, -7};
    backends::Batch batch;
  };

  backends::StepQueue& queue() { return *runner_->model().step_queue(); }

  void Prepare(OneStep& step, const std::optional<OneStep>& before,
               bool are_queued) {
    for (int i = 0; i < 2; ++i) {
      const int number = step.order[i];
      const auto& [id, written] = sequences_[number];
      step.ids[i] = {0};
      int picked_before = -1;
      if (!before) {
        step.ids[i] =
            RandomIds(5 + 20 * i, runner_->config().vocabulary_size, number);
      } else if (are_queued) {
        picked_before = before->order[0] == number ? 0 : 1;
        step.sampling[i].of_unknown = {.presence = kPresence};
      } else {
        step.ids[i] = {written.back()};
        step.sampling[i].adjustments = {
            {.id = written.back(), .presence_penalty = kPresence}};
      }
      step.views[i] = *runner_->manager().Reserve(id, step.ids[i].size());
      step.batch.chunks.push_back(
          {.token_ids = step.ids[i],
           .first_position = runner_->manager().Length(id),
           .view = &step.views[i],
           .num_logits = 1,
           .sampling = {&step.sampling[i], 1},
           .picked = {&step.picked[i], 1},
           .picked_before = picked_before});
    }
  }

  void End(OneStep& step) {
    EXPECT_TRUE(queue().End({}).ok());
    for (int i = 0; i < 2; ++i) {
      sequences_[step.order[i]].written.push_back(step.picked[i]);
    }
  }

  static constexpr float kPresence = 3;

  std::unique_ptr<ModelRunner> runner_;
  std::vector<Sequence> sequences_ = std::vector<Sequence>(2);
};

TEST_P(StepQueueContract, ATokenThatIsStillBeingPickedIsReadAllTheSame) {
  const Written one_by_one = Write(/*are_queued=*/false);
  EXPECT_EQ(Write(/*are_queued=*/true), one_by_one);
  EXPECT_EQ(one_by_one[0].size(), static_cast<size_t>(kSteps));
  EXPECT_NE(one_by_one[0], one_by_one[1]);
  for (const int32_t id : one_by_one[0]) EXPECT_GE(id, 0);
}

std::vector<BackendUnderTest> BackendsThatPick() {
  std::vector<BackendUnderTest> those;
  for (const BackendUnderTest& backend : BackendsUnderTest()) {
    if (backend.picks_tokens) those.push_back(backend);
  }
  return those;
}

INSTANTIATE_TEST_SUITE_P(Backends, PickingContract,
                         ::testing::ValuesIn(BackendsThatPick()),
                         BackendName());
INSTANTIATE_TEST_SUITE_P(Backends, StepQueueContract,
                         ::testing::ValuesIn(BackendsThatPick()),
                         BackendName());

}  // namespace
}  // namespace millrace::testing
