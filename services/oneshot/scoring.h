// Scoring tells how likely a text is: the log-likelihood of each token given
// what the cache policy lets it see of those before. The text comes in pieces
// and may be of any length; memory is bounded.
//
//   auto scoring = Scoring::Start(deps, request, [](absl::Status) {});
//   scoring->Add(ids);      // while scoring->HasRoom()
//   scoring->FinishInput();
//   scoring->Take();        // chunks, cache updates, then ScoreFinished
//
// Add, FinishInput, Take, HasRoom, SetCallbacks, Cancel and Drain are for any
// thread; the rest runs on the engine thread.
#ifndef MILLRACE_SERVICES_ONESHOT_SCORING_H_
#define MILLRACE_SERVICES_ONESHOT_SCORING_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cache/policies/registry.h"
#include "services/oneshot/sequence_request.h"
#include "services/session/cache_reporter.h"
#include "services/session/event.h"

namespace millrace::oneshot {

struct ScoringRequest {
  std::string id;
  cache::MadePolicy policy;
  bool per_token = true;
  int cache_update_interval_tokens = 256;
};

// Values of consecutive tokens; the first position is at least 1.
struct ScoreChunk {
  uint64_t first_position = 0;
  std::vector<float> log_likelihoods;
};
struct ScoreProgress {
  uint64_t tokens = 0;
  double sum = 0;
};
// The last event. With an error the call ends with that status.
struct ScoreFinished {
  uint64_t tokens = 0;
  double sum = 0;  // of tokens 1 .. tokens - 1
  session::Usage usage;
  absl::Status error;
};
using ScoreEvent = std::variant<ScoreChunk, session::CacheUpdated,
                                ScoreProgress, ScoreFinished>;

// The natural logarithm of the soft-max of `logits` at `id`.
float LogLikelihood(absl::Span<const float> logits, int32_t id);

class Scoring final : public SequenceRequest {
 public:
  // Waits for memory. `admitted` is called once, unless Cancel comes before.
  static std::shared_ptr<Scoring> Start(const Dependencies& deps,
                                        ScoringRequest request,
                                        Admitted admitted);

  // More of the text. Once admitted; a caller keeps memory bounded by adding
  // only while HasRoom.
  void Add(std::vector<int32_t> ids);
  void FinishInput();
  bool HasRoom() const;

  // The next event for the client, if there is one.
  std::optional<ScoreEvent> Take();
  // `on_event`: there is something to take. `on_room`: there is room again.
  // Both on the engine thread; set before Start's callback has returned.
  void SetCallbacks(std::function<void()> on_event,
                    std::function<void()> on_room);

  void OnRows(int64_t first, int64_t count,
              absl::Span<const float> logits) override;
  void OnError(const absl::Status& status) override;

 private:
  Scoring(const Dependencies& deps, ScoringRequest request, Admitted admitted);

  void Begin() override;
  // With UNAVAILABLE (DRAINING).
  void FinishDrained() override;
  void Read(const std::vector<int32_t>& ids);
  void ScoreNext(absl::Span<const float> logits, int32_t id);
  void Push(ScoreEvent event);
  void Report(int64_t length, bool last);
  void MaybeFinish();
  void Finish(const absl::Status& error);

  const ScoringRequest request_;
  session::CacheReporter reporter_;

  int64_t length_ = 0;           // tokens added
  int64_t computed_ = 0;         // tokens whose row is computed
  std::deque<int32_t> ahead_;    // tokens from position computed_ on
  std::vector<float> last_row_;  // of token computed_ - 1, if it has no next
  bool input_finished_ = false;
  int64_t scored_ = 0;  // position of the last token scored
  double sum_ = 0;
  int64_t peak_resident_ = 0;
  absl::Time first_row_, last_row_time_, last_progress_;

  mutable absl::Mutex mutex_;
  std::deque<ScoreEvent> events_ ABSL_GUARDED_BY(mutex_);
  int64_t unread_values_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t waiting_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<void()> on_event_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> on_room_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace::oneshot

#endif  // MILLRACE_SERVICES_ONESHOT_SCORING_H_
