// Runs the steps of an engine: plans them, has them computed, and tells
// clients.
//
//   StepRunner runner(model, storage, options, table);
//   while (runner.RunStep()) {}  // until nothing is pending
//
// Where the model has a StepQueue, the next step is begun behind the one that
// is running: its tokens may be those that the device is still picking. What
// clients do once they hear of these may be something else; then the row that
// was begun for them is dropped, like a guess that has failed, and no client
// ever hears of it.
//
// Not thread-safe: used by the engine thread.
#ifndef MILLRACE_SERVICES_ENGINE_STEP_RUNNER_H_
#define MILLRACE_SERVICES_ENGINE_STEP_RUNNER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "backends/model.h"
#include "cache/kv_storage.h"
#include "services/engine/engine.h"
#include "services/engine/engine_sequence.h"
#include "services/engine/scheduler.h"
#include "services/engine/step.h"

namespace millrace::engine {

class StepRunner {
 public:
  // All are borrowed and outlive it.
  StepRunner(backends::Model& model, cache::KvStorage& storage,
             const EngineOptions& options, SequenceTable& table);
  // Waits for the step that is running; nobody hears of it.
  ~StepRunner();

  // Called after every step, before its clients are. Set it before RunStep.
  void SetObserver(std::function<void(const StepTrace&)> observer) {
    observer_ = std::move(observer);
  }

  // Runs a step to its end. Returns whether there was anything to compute.
  bool RunStep();
  // Ends the step that was begun behind the last one, if there is one. Before
  // anybody but a client that is being told does something with a sequence.
  void Drain();

  // Of the last step.
  const absl::Status& status() const { return status_; }
  int64_t left_out() const { return left_out_; }  // had pending tokens

 private:
  using Clock = std::chrono::steady_clock;

  std::unique_ptr<Step> BeginStep();
  void Prepare(const std::vector<PlannedRows>& plan, Step& step);
  void PrepareGuess(EngineSequence& sequence, StepPart& part);
  void Begin(Step& step);
  void Finish(Step& step);

  std::unique_ptr<Step> BeginBehind(const Step& before);
  // By sequence, the number of the pick that it goes on with.
  using Picks = absl::flat_hash_map<int64_t, int>;
  Picks PicksOf(const Step& step) const;
  bool CanBeFollowed(const Step& before) const;
  std::vector<SequenceFacts> FactsWith(const Picks& picks) const;
  bool CanBeBegunBehind(const Picks& picks,
                        const std::vector<PlannedRows>& plan) const;
  bool PrepareBehind(const Picks& picks, const std::vector<PlannedRows>& plan,
                     Step& step);
  void Settle(const Step& before, Step& step);

  void Observe(const Step& step);
  void Deliver(const Step& step);
  void DeliverTo(const StepPart& part, absl::Span<const float> logits);
  void DeliverGuess(const StepPart& part, absl::Span<const float> logits);
  void Fail(int64_t id, const absl::Status& why);

  std::vector<PlannedRows> Plan(absl::Span<const SequenceFacts> facts) const;
  absl::Span<float> LogitsOf(const Step& step);
  EngineSequence* Find(int64_t id) const;  // null: it is closed
  size_t vocabulary() const {
    return static_cast<size_t>(model_.config().vocabulary_size);
  }

  backends::Model& model_;
  backends::StepQueue* const queue_;  // null: the model has none
  cache::KvStorage& storage_;
  const EngineOptions& options_;
  SequenceTable& table_;
  std::function<void(const StepTrace&)> observer_;

  std::unique_ptr<Step> running_;  // begun behind the last one
  std::vector<float> logits_;      // [rows][vocabulary], as long as ever needed
  int accepted_ = 0;               // guesses, of the last step
  int64_t left_out_ = 0;
  absl::Status status_;
  Clock::time_point last_end_;
};

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_STEP_RUNNER_H_
