// Ops is what a backend supplies: a small set of fused operations, from which
// the one decoder (decoder/decoder.h) makes a model.
//
// One object holds a model's weights in the backend's form and the activations
// of the step that is being computed. A step is
//
//   Begin; Embed; per layer: AttentionInput, Attention, AttentionOutput,
//   FeedForwardIn, FeedForwardOut; Logits
//
// and each operation reads and writes these activations, rows in batch order:
//
//   kResidual   [rows][embedding_size]           the residual stream
//   kQuery      [rows][num_heads * head_dim]     not yet rotated
//   kAttended   [rows][num_heads * head_dim]     soft-max-weighted values
//   kHidden     [rows][feed_forward_size]        silu(gate) * up
//
// A backend keeps them in whatever form it likes (on a device, quantised for
// the next operation); Read and Write convert, for tests of single operations.
//
// The reference backend implements each operation by its plain formula; every
// other backend is held against it by tests/contract.
//
// Not thread-safe: called from the engine thread.
#ifndef MILLRACE_BACKENDS_OPS_H_
#define MILLRACE_BACKENDS_OPS_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "backends/batch.h"
#include "backends/model_file/model_config.h"
#include "cache/kv_storage.h"

namespace millrace::backends {

enum class Activation { kResidual, kQuery, kAttended, kHidden };

class Ops {
 public:
  virtual ~Ops() = default;

  virtual const ModelConfig& config() const = 0;
  virtual int max_rows() const = 0;

  // Takes up a batch: positions, rotation angles, slots. `batch` and `kv` are
  // borrowed until the next Begin.
  virtual absl::Status Begin(const Batch& batch, cache::KvStorage& kv) = 0;

  // residual = embedding rows of the token ids.
  virtual void Embed() = 0;

  // n = rms_norm(residual) * norm weight; query = Wq n; key = Wk n, rotated at
  // the row's text position; value = Wv n. Key and value are rounded once to
  // the storage's dtype and stored in the row's slot.
  virtual void AttentionInput(int layer) = 0;

  // attended = soft-max over all visible keys of all runs, of
  // rotate(query, rule.QueryPosition(t)) . key / sqrt(head_dim), times values.
  // Keys and values are read as rounded into the cache, the row's own too.
  // With view.key_positions, key i of a KV head, turned at p there, is looked
  // at as if it stood at i: query and key are p - i apart less. Then adds up
  // view.attention, where it is asked for.
  virtual void Attention(int layer) = 0;

  // residual += Wo attended.
  virtual void AttentionOutput(int layer) = 0;

  // n = rms_norm(residual) * norm weight; hidden = silu(Wgate n) * (Wup n).
  virtual void FeedForwardIn(int layer) = 0;

  // residual += Wdown hidden.
  virtual void FeedForwardOut(int layer) = 0;

  // logits = Wout (rms_norm(residual) * norm weight), of the wanted rows only:
  // [batch.logits_rows()][vocabulary_size].
  // Returns INTERNAL if the device failed at any operation since Begin.
  virtual absl::Status Logits(absl::Span<float> logits) = 0;

  // Copies an activation of all rows of the batch, as float, row-major.
  // REQUIRES: the span has rows * width values.
  virtual void Read(Activation which, absl::Span<float> out) const = 0;
  virtual void Write(Activation which, absl::Span<const float> in) = 0;
};

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_OPS_H_
