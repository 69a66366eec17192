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

// Not thread-safe: owned by the engine thread, which is also the first of the
// model's compute threads.
class Model {
 public:
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;

  // The most rows of one batch.
  virtual int max_rows() const = 0;

  // Whether chunks may ask for tokens instead of logits: where logits would
  // have to come from a device.
  virtual bool picks_tokens() const { return false; }

  // Computes the batch: writes keys and values of its tokens into `kv`, at the
  // slots of the chunks' views, the wanted logits into `logits`,
  // [batch.logits_rows()][vocabulary_size], in the order of chunks and rows,
  // and tokens where chunks say. INTERNAL on a device error; the contents of
  // the new slots are then unknown and nothing else is touched.
  // REQUIRES: 1 <= batch.rows() <= max_rows(); `kv` is of the same backend, of
  // this model's shape.
  virtual absl::Status Forward(const Batch& batch, cache::KvStorage& kv,
                               absl::Span<float> logits) = 0;

  // How long all calls of Forward have taken, by phase; zeros if the model does
  // not say.
  virtual PhaseTimes phase_times() const { return {}; }
};

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_H_
