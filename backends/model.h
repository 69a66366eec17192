// A loaded model: batches of tokens in, logits out.
#ifndef MILLRACE_BACKENDS_MODEL_H_
#define MILLRACE_BACKENDS_MODEL_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "backends/batch.h"
#include "backends/model_file/model_config.h"
#include "backends/phase.h"
#include "cache/kv_storage.h"

namespace millrace::backends {

// Steps of a device that works by itself: the next is begun before the one
// before it has ended, so that the device never waits for the host.
//
//   queue.Begin(first, kv);
//   queue.Begin(second, kv);  // its tokens may be those that `first` picks
//   queue.End({});            // `first` has picked them
//
// Steps are done, and end, in the order in which they are begun.
class StepQueue {
 public:
  virtual ~StepQueue() = default;

  // Puts the batch into the queue. All that it borrows stays until End, but for
  // ids and the blocks of views: these are read before this returns, since the
  // next Reserve of a sequence changes them. After an error there is nothing to
  // end.
  // REQUIRES: as Model::Forward; at most one step is begun and not ended; if
  // there is one, both only pick tokens: no logits, no sums of attention.
  virtual absl::Status Begin(const Batch& batch, cache::KvStorage& kv) = 0;

  // Waits for the oldest step that is begun; logits, tokens and errors are
  // those of Model::Forward.
  virtual absl::Status End(absl::Span<float> logits) = 0;
};

// Not thread-safe: owned by the engine thread, which is also the first of the
// model's compute threads.
class Model {
 public:
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;

  // The most rows of one batch.
  virtual int max_rows() const = 0;

  // Computes the batch: writes keys and values of its tokens into `kv`, at the
  // slots of the chunks' views, the wanted logits into `logits`,
  // [batch.logits_rows()][vocabulary_size], in the order of chunks and rows,
  // and tokens where chunks say. INTERNAL on a device error; the contents of
  // the new slots are then unknown and nothing else is touched.
  // REQUIRES: 1 <= batch.rows() <= max_rows(); `kv` is of the same backend, of
  // this model's shape.
  virtual absl::Status Forward(const Batch& batch, cache::KvStorage& kv,
                               absl::Span<float> logits) = 0;

  // Where the logits are in the memory of a device: Forward in two halves, and
  // chunks may ask for tokens instead of logits. Else null.
  virtual StepQueue* step_queue() { return nullptr; }

  // How long all calls of Forward have taken, by phase; zeros if the model does
  // not say.
  virtual PhaseTimes phase_times() const { return {}; }
};

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_H_
