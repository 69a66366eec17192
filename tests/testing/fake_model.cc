#include "tests/testing/fake_model.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "services/engine/sampling/adjust.h"
#include "services/engine/sampling/choose.h"
#include "services/engine/sampling/scan.h"

namespace millrace::testing {
namespace {

constexpr uint64_t kStateMask = (uint64_t{1} << 48) - 1;

// What a row gains from one token that it sees.
uint64_t Seen(uint64_t state, int64_t distance) {
  return Mix(state ^ Mix(static_cast<uint64_t>(distance)));
}

// The state of a token: its id, and the sum of all that it saw before it.
uint64_t State(int32_t id, uint64_t seen) {
  return Mix(seen + static_cast<uint64_t>(id)) & kStateMask;
}

// Logits between -6 and 6.
void FillLogits(uint64_t state, absl::Span<float> logits) {
  for (size_t i = 0; i < logits.size(); ++i) {
    const uint64_t bits = Mix(state + (uint64_t{i + 1} << 48)) >> 40;
    logits[i] = static_cast<float>(bits) * (12.0f / (1 << 24)) - 6.0f;
  }
}

int32_t Largest(absl::Span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) -
                              logits.begin());
}

// `unknown`: the token before, if the client did not know it; else -1.
int32_t Pick(const backends::RowSampling& sampling, int32_t unknown,
             std::vector<float> logits) {
  if (engine::HasNonfinite(logits)) return -1;
  backends::LogitAdjustment of_unknown =
      backends::NotThere(unknown, sampling.of_unknown);
  for (backends::LogitAdjustment by : sampling.adjustments) {
    if (by.id == unknown) {
      of_unknown = by;
    } else {
      engine::AdjustLogits({by}, absl::MakeSpan(logits));
    }
  }
  if (unknown >= 0) {
    engine::AdjustLogits({backends::OnceMore(of_unknown, sampling.of_unknown)},
                         absl::MakeSpan(logits));
  }
  return engine::Choose(sampling, logits);
}

bool OnlyPicks(const backends::Batch& batch) {
  for (const backends::Chunk& chunk : batch.chunks) {
    if (chunk.view->attention || chunk.view->key_positions) return false;
  }
  return batch.logits_rows() == 0;
}

}  // namespace

uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

void Force(int32_t token_id, absl::Span<float> logits) {
  std::fill(logits.begin(), logits.end(), -1000.0f);
  logits[static_cast<size_t>(token_id)] = 1000.0f;
}

FakeKvStorage::FakeKvStorage(int32_t num_blocks)
    : spec_{.num_layers = 1,
            .num_kv_heads = 1,
            .head_dim = 2,
            .dtype = cache::KvDtype::kF32},
      num_blocks_(num_blocks),
      memory_(static_cast<size_t>(num_blocks) *
              cache::CanonicalBlockValues(spec_)) {}

absl::Status FakeKvStorage::ReadBlocks(absl::Span<const cache::KvBlock> blocks,
                                       absl::Span<float> out) const {
  const size_t values = cache::CanonicalBlockValues(spec_);
  for (size_t i = 0; i < blocks.size(); ++i) {
    std::memcpy(out.data() + i * values,
                memory_.data() + blocks[i].block * values,
                values * sizeof(float));
  }
  return absl::OkStatus();
}

absl::Status FakeKvStorage::WriteBlocks(absl::Span<const cache::KvBlock> blocks,
                                        absl::Span<const float> in) {
  const size_t values = cache::CanonicalBlockValues(spec_);
  for (size_t i = 0; i < blocks.size(); ++i) {
    std::memcpy(memory_.data() + blocks[i].block * values,
                in.data() + i * values, values * sizeof(float));
  }
  return absl::OkStatus();
}

const float* FakeKvStorage::At(cache::KvView::Slot slot, int part) const {
  return memory_.data() +
         static_cast<size_t>(slot.block) * cache::CanonicalBlockValues(spec_) +
         (part * cache::kBlockTokens + slot.slot) * spec_.head_dim;
}

float* FakeKvStorage::At(cache::KvView::Slot slot, int part) {
  return const_cast<float*>(std::as_const(*this).At(slot, part));
}

void FakeKvStorage::Store(cache::KvView::Slot slot, const Token& token) {
  float* const key = At(slot, 0);
  float* const value = At(slot, 1);
  key[0] = static_cast<float>(token.id);
  key[1] = static_cast<float>(token.position);
  value[0] = static_cast<float>(token.state & 0xFFFFFF);
  value[1] = static_cast<float>(token.state >> 24);
}

FakeKvStorage::Token FakeKvStorage::Load(cache::KvView::Slot slot) const {
  const float* const key = At(slot, 0);
  const float* const value = At(slot, 1);
  return {.id = static_cast<int32_t>(key[0]),
          .position = static_cast<int64_t>(key[1]),
          .state = static_cast<uint64_t>(value[0]) |
                   static_cast<uint64_t>(value[1]) << 24};
}

FakeModel::FakeModel(const FakeModelOptions& options,
                     const FakeModelHooks* hooks)
    : options_(options), hooks_(hooks) {
  config_.architecture = "fake";
  config_.name = "fake";
  config_.num_layers = config_.num_heads = config_.num_kv_heads = 1;
  config_.head_dim = 2;
  config_.embedding_size = config_.feed_forward_size = 2;
  config_.vocabulary_size = options.vocabulary_size;
  config_.trained_context = options.trained_context;
}

absl::Status FakeModel::Forward(const backends::Batch& batch,
                                cache::KvStorage& kv,
                                absl::Span<float> logits) {
  ++calls_;
  if (hooks_ != nullptr && hooks_->before) {
    absl::Status status = hooks_->before(calls_, batch);
    if (!status.ok()) return status;
  }
  const size_t width = static_cast<size_t>(options_.vocabulary_size);
  size_t offset = 0;
  std::vector<int32_t> picked;
  for (backends::Chunk chunk : batch.chunks) {
    const std::vector<int32_t> ids = IdsOf(chunk);
    chunk.token_ids = ids;
    for (int row = 0; row < chunk.rows(); ++row) {
      uint64_t state = 0;
      absl::Status status =
          ComputeRow(chunk, row, static_cast<FakeKvStorage&>(kv), &state);
      if (!status.ok()) return status;
      const int wanted = row - (chunk.rows() - chunk.num_logits);
      if (wanted < 0) continue;
      if (chunk.sampling.empty()) {
        ComputeLogits(chunk, row, state, logits.subspan(offset, width));
        offset += width;
      } else {
        std::vector<float> own(width);
        ComputeLogits(chunk, row, state, absl::MakeSpan(own));
        chunk.picked[wanted] = Pick(chunk.sampling[wanted],
                                    chunk.picked_before < 0 ? -1 : ids[0], own);
        picked.push_back(chunk.picked[wanted]);
      }
    }
  }
  picked_ = picked;
  return absl::OkStatus();
}

absl::Status FakeModel::Begin(const backends::Batch& batch,
                              cache::KvStorage& kv) {
  // The contract of StepQueue.
  const bool is_behind = !begun_.empty();
  if (begun_.size() == 2) std::abort();
  if (is_behind && !(OnlyPicks(batch) && OnlyPicks(begun_[0].batch))) {
    std::abort();
  }
  for (const backends::Chunk& chunk : batch.chunks) {
    if (chunk.picked_before >= 0 && !is_behind) std::abort();
  }
  if (hooks_ != nullptr && hooks_->before_begin) {
    const absl::Status status = hooks_->before_begin(batch);
    if (!status.ok()) return status;
  }
  begun_.emplace_back(batch, kv);
  return absl::OkStatus();
}

FakeModel::BegunStep::BegunStep(const backends::Batch& b, cache::KvStorage& kv)
    : batch(b), storage(&kv) {
  for (backends::Chunk& chunk : batch.chunks) {
    chunk.token_ids =
        ids.emplace_back(chunk.token_ids.begin(), chunk.token_ids.end());
    chunk.view = &views.emplace_back(*chunk.view);
    for (cache::KvRun& run : views.back().runs) {
      run.blocks = blocks.emplace_back(run.blocks.begin(), run.blocks.end());
    }
  }
}

absl::Status FakeModel::End(absl::Span<float> logits) {
  const absl::Status status =
      Forward(begun_.front().batch, *begun_.front().storage, logits);
  begun_.pop_front();
  return status;
}

std::vector<int32_t> FakeModel::IdsOf(const backends::Chunk& chunk) const {
  if (chunk.picked_before < 0) {
    return {chunk.token_ids.begin(), chunk.token_ids.end()};
  }
  return {std::max(0, picked_.at(chunk.picked_before))};
}

void FakeModel::ComputeLogits(const backends::Chunk& chunk, int row,
                              uint64_t state, absl::Span<float> logits) const {
  FillLogits(state, logits);
  if (hooks_ != nullptr && hooks_->edit_logits) {
    hooks_->edit_logits(chunk.first_position + row, chunk.token_ids[row],
                        logits);
  }
}

absl::Status FakeModel::ComputeRow(const backends::Chunk& chunk, int row,
                                   FakeKvStorage& kv, uint64_t* state) const {
  const int64_t t = chunk.first_position + row;
  uint64_t seen = 0;
  for (const cache::KvRun& run : chunk.view->runs) {
    const int64_t end = std::min(run.end_position(), t);
    for (int64_t p = run.rule.FirstVisible(t); p < end; ++p) {
      if (p < run.first_position) {
        return absl::InternalError(
            absl::StrCat("row ", t, " sees ", p, ", which is not resident"));
      }
      const FakeKvStorage::Token token = kv.Load(chunk.view->Find(p));
      if (token.position != p) {
        return absl::InternalError(absl::StrCat("row ", t, " reads ", p,
                                                " and finds ", token.position));
      }
      seen += Seen(token.state, run.rule.QueryPosition(t) - p);
    }
  }
  *state = State(chunk.token_ids[row], seen);
  kv.Store(chunk.view->Find(t),
           {.id = chunk.token_ids[row], .position = t, .state = *state});
  return absl::OkStatus();
}

void FakeOracle::Append(absl::Span<const int32_t> ids) {
  for (const int32_t id : ids) {
    const int64_t t = length();
    if (policy_->traits().recomputes) Recompute(t);
    ids_.push_back(id);
    states_.push_back(StateAt(policy_->Rules(t), t));
  }
}

uint64_t FakeOracle::StateAt(absl::Span<const cache::RunRule> rules,
                             int64_t t) const {
  uint64_t seen = 0;
  for (const cache::RunRule& rule : rules) {
    const int64_t end = std::min(rule.end, t);
    for (int64_t p = rule.FirstVisible(t); p < end; ++p) {
      seen += Seen(states_[static_cast<size_t>(p)], rule.QueryPosition(t) - p);
    }
  }
  return State(ids_[static_cast<size_t>(t)], seen);
}

void FakeOracle::Recompute(int64_t t) {
  const int64_t begin = policy_->Recomputes(t).begin;
  if (begin == built_from_) return;
  built_from_ = begin;
  const std::vector<cache::RunRule> rules = policy_->Rules(t);
  for (int64_t p = begin; p < t; ++p) {
    states_[static_cast<size_t>(p)] = StateAt(rules, p);
  }
}

void FakeOracle::Truncate(int64_t length) {
  ids_.resize(static_cast<size_t>(length));
  states_.resize(static_cast<size_t>(length));
  if (!policy_->traits().recomputes || length == 0) return;
  // What is left may have been computed anew for a row that is gone.
  Recompute(length - 1);
  states_.back() = StateAt(policy_->Rules(length - 1), length - 1);
}

std::vector<float> FakeOracle::Logits(int64_t position) const {
  std::vector<float> logits(static_cast<size_t>(options_.vocabulary_size));
  FillLogits(states_[static_cast<size_t>(position)], absl::MakeSpan(logits));
  return logits;
}

std::vector<int32_t> FakeOracle::DecodeGreedily(int count) {
  std::vector<int32_t> written;
  for (int i = 0; i < count; ++i) {
    written.push_back(Largest(Logits(length() - 1)));
    Append({written.back()});
  }
  return written;
}

}  // namespace millrace::testing
