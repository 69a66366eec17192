// A model without arithmetic, for tests of the engine and of sessions: what it
// writes depends on every token that a row sees, and on nothing else.
//
// The storage keeps, per token, its id, its text position and a state: a hash
// of the id, of the distances and states of all tokens that the row saw. The
// logits of a row are hashes of its state. So a wrong view, a stale slot, a
// token evicted too early or cut off too late gives other tokens, then and for
// ever after, as in a transformer of many layers. FakeOracle computes the same
// from a plain list of ids and the policy's definition, without any cache.
//
//   FakeModelHooks hooks;                       // set before the engine starts
//   auto model = std::make_unique<FakeModel>(FakeModelOptions{}, &hooks);
//   auto storage = std::make_unique<FakeKvStorage>(1000);   // blocks
#ifndef MILLRACE_TESTS_TESTING_FAKE_MODEL_H_
#define MILLRACE_TESTS_TESTING_FAKE_MODEL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "backends/model.h"
#include "cache/cache_policy.h"
#include "cache/kv_storage.h"

namespace millrace::testing {

struct FakeModelOptions {
  int vocabulary_size = 97;
  int max_rows = 128;
  int64_t trained_context = 8192;
  // It has a queue, and picks tokens by the host's sampler where it is asked
  // to. A step is computed when it ends: nothing of it is there before.
  bool picks_tokens = false;
};

// What a test wants to see or to break. Called on the engine thread; a hook
// may block to hold the engine in the midst of a step.
struct FakeModelHooks {
  // Before call `call` (1, 2, ...) of Forward, or of StepQueue::End; a status
  // fails the call.
  std::function<absl::Status(uint64_t call, const backends::Batch&)> before;
  // Each wanted row: the token at text position `position` was `token_id`.
  std::function<void(int64_t position, int32_t token_id,
                     absl::Span<float> logits)>
      edit_logits;
  // Before StepQueue::Begin; a status fails it.
  std::function<absl::Status(const backends::Batch&)> before_begin = {};
};

// 64 bits, well mixed (Steele et al., "Fast splittable pseudorandom number
// generators", 2014: the finaliser of SplitMix64).
uint64_t Mix(uint64_t x);

// Makes `token_id` the choice of every sampler.
void Force(int32_t token_id, absl::Span<float> logits);

// Host memory in the canonical form of cache/kv_storage.h. One layer, one head,
// keys {id, text position}, values {low, high 24 bits of the state}.
class FakeKvStorage final : public cache::KvStorage {
 public:
  explicit FakeKvStorage(int32_t num_blocks);

  const cache::KvSpec& spec() const override { return spec_; }
  int32_t num_blocks() const override { return num_blocks_; }
  absl::Status ReadBlocks(absl::Span<const cache::KvBlock> blocks,
                          absl::Span<float> out) const override;
  absl::Status WriteBlocks(absl::Span<const cache::KvBlock> blocks,
                           absl::Span<const float> in) override;

  struct Token {
    int32_t id = 0;
    int64_t position = 0;
    uint64_t state = 0;  // 48 bits
  };
  void Store(cache::KvView::Slot slot, const Token& token);
  Token Load(cache::KvView::Slot slot) const;

 private:
  float* At(cache::KvView::Slot slot, int part);
  const float* At(cache::KvView::Slot slot, int part) const;

  const cache::KvSpec spec_;
  const int32_t num_blocks_;
  std::vector<float> memory_;
};

class FakeModel final : public backends::Model, private backends::StepQueue {
 public:
  // `hooks` may be null; borrowed, outlives the model.
  explicit FakeModel(const FakeModelOptions& options,
                     const FakeModelHooks* hooks = nullptr);

  const backends::ModelConfig& config() const override { return config_; }
  int max_rows() const override { return options_.max_rows; }
  // A slot that holds another text position than its run says is INTERNAL.
  absl::Status Forward(const backends::Batch& batch, cache::KvStorage& kv,
                       absl::Span<float> logits) override;
  backends::StepQueue* step_queue() override {
    return options_.picks_tokens ? this : nullptr;
  }

 private:
  absl::Status Begin(const backends::Batch& batch,
                     cache::KvStorage& kv) override;
  absl::Status End(absl::Span<float> logits) override;
  // The chunk's ids, now that they are known.
  std::vector<int32_t> IdsOf(const backends::Chunk& chunk) const;
  absl::Status ComputeRow(const backends::Chunk& chunk, int row,
                          FakeKvStorage& kv, uint64_t* state) const;

  void ComputeLogits(const backends::Chunk& chunk, int row, uint64_t state,
                     absl::Span<float> logits) const;

  const FakeModelOptions options_;
  const FakeModelHooks* const hooks_;
  backends::ModelConfig config_;
  uint64_t calls_ = 0;
  // As it was when it was begun.
  struct BegunStep {
    BegunStep(const backends::Batch& b, cache::KvStorage& kv);

    backends::Batch batch;
    cache::KvStorage* storage;
    std::deque<cache::KvView> views;
    std::deque<std::vector<int32_t>> ids, blocks;
  };
  std::deque<BegunStep> begun_;
  std::vector<int32_t> picked_;  // of the last step
};

// What the fake model says of a text that is read whole, under a policy.
class FakeOracle {
 public:
  FakeOracle(const FakeModelOptions& options,
             std::shared_ptr<const cache::CachePolicy> policy)
      : options_(options), policy_(std::move(policy)) {}

  void Append(absl::Span<const int32_t> ids);
  // Forgets all but the first `length` tokens.
  void Truncate(int64_t length);
  int64_t length() const { return static_cast<int64_t>(ids_.size()); }
  // Of the row at text position `position`.
  std::vector<float> Logits(int64_t position) const;
  // Appends the likeliest token `count` times; returns those tokens.
  std::vector<int32_t> DecodeGreedily(int count);

 private:
  const FakeModelOptions options_;
  const std::shared_ptr<const cache::CachePolicy> policy_;
  // The state of a token at position `t` under `rules`.
  uint64_t StateAt(absl::Span<const cache::RunRule> rules, int64_t t) const;
  // Computes anew what row `t` wants anew.
  void Recompute(int64_t t);

  std::vector<int32_t> ids_;
  std::vector<uint64_t> states_;
  int64_t built_from_ = 0;
};

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_FAKE_MODEL_H_
