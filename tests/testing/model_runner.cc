#include "tests/testing/model_runner.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "backends/registry.h"
#include "tests/testing/gguf_writer.h"

namespace millrace::testing {
namespace {

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::abort();
}

template <typename T>
T ValueOf(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::Create(
    const backends::ModelFile& file, const ModelRunnerOptions& options) {
  auto backend =
      options.new_backend != nullptr
          ? options.new_backend(options.backend_options)
          : backends::NewBackend(options.backend, options.backend_options);
  if (!backend.ok()) return backend.status();
  const backends::ModelConfig& config = file.config();
  const cache::KvSpec spec{.num_layers = config.num_layers,
                           .num_kv_heads = config.num_kv_heads,
                           .head_dim = config.head_dim,
                           .dtype = options.kv_dtype};
  return std::unique_ptr<ModelRunner>(new ModelRunner(
      options, spec,
      ValueOf((*backend)->LoadModel(file, {.max_rows = options.max_rows})),
      ValueOf((*backend)->CreateKvStorage(spec, options.num_blocks))));
}

ModelRunner::ModelRunner(const ModelRunnerOptions& options,
                         const cache::KvSpec& spec,
                         std::unique_ptr<backends::Model> model,
                         std::unique_ptr<cache::KvStorage> storage)
    : options_(options),
      model_(std::move(model)),
      storage_(std::move(storage)),
      manager_(spec, options.num_blocks, storage_.get()) {}

cache::SequenceId ModelRunner::Open(
    std::shared_ptr<const cache::CachePolicy> policy, int64_t rollback_tokens) {
  return ValueOf(manager_.Open({.policy = std::move(policy),
                                .max_chunk_tokens = options_.max_rows,
                                .rollback_tokens = rollback_tokens}));
}

Rows ModelRunner::Read(cache::SequenceId id, absl::Span<const int32_t> ids,
                       int chunk) {
  Rows rows;
  Read(id, ids, chunk, [&](int64_t, absl::Span<const float> logits) {
    rows.emplace_back(logits.begin(), logits.end());
  });
  return rows;
}

void ModelRunner::Read(cache::SequenceId id, absl::Span<const int32_t> ids,
                       int chunk, OnRow on_row) {
  std::vector<int32_t>& text = texts_[id];
  text.resize(manager_.Length(id));
  int64_t next = manager_.Length(id);
  text.insert(text.end(), ids.begin(), ids.end());
  const int64_t end = static_cast<int64_t>(text.size());
  while (next < end) {
    const int64_t begin = manager_.Rebuild(id, next);
    const int64_t rows =
        std::min({int64_t{chunk}, manager_.MaxChunk(id), end - begin});
    const auto first = text.begin() + begin;
    const int64_t anew = std::min(rows, next - begin);  // computed once more
    const Rows logits =
        Step({{.id = id,
               .ids = {first, first + rows},
               .num_logits = static_cast<int>(rows - anew)}})[0];
    for (const std::vector<float>& row : logits) on_row(next++, row);
  }
}

absl::Span<const float> ModelRunner::Advance(const std::vector<Part>& parts) {
  std::vector<cache::KvView> views;
  for (const Part& part : parts) {
    views.push_back(ValueOf(manager_.Reserve(part.id, part.ids.size())));
  }
  backends::Batch batch;
  for (size_t i = 0; i < parts.size(); ++i) {
    const int rows = static_cast<int>(parts[i].ids.size());
    batch.chunks.push_back(
        {.token_ids = parts[i].ids,
         .first_position = manager_.Length(parts[i].id),
         .view = &views[i],
         .num_logits = parts[i].num_logits < 0 ? rows : parts[i].num_logits});
  }
  const absl::Span<const float> logits = Compute(batch);
  for (const Part& part : parts) manager_.Commit(part.id);
  return logits;
}

std::vector<Rows> ModelRunner::Step(const std::vector<Part>& parts) {
  const Rows rows = AsRows(Advance(parts));
  std::vector<Rows> out;
  auto next = rows.begin();
  for (const Part& part : parts) {
    const int wanted = part.num_logits < 0 ? static_cast<int>(part.ids.size())
                                           : part.num_logits;
    out.emplace_back(next, next + wanted);
    next += wanted;
  }
  return out;
}

Rows ModelRunner::Forward(const backends::Batch& batch) {
  return AsRows(Compute(batch));
}

absl::Span<const float> ModelRunner::Compute(const backends::Batch& batch) {
  const size_t size = size_t(batch.logits_rows()) * config().vocabulary_size;
  logits_.resize(std::max(logits_.size(), size));
  const absl::Span<float> logits = absl::MakeSpan(logits_).first(size);
  Check(model_->Forward(batch, *storage_, logits));
  return logits;
}

Rows ModelRunner::AsRows(absl::Span<const float> logits) const {
  const size_t width = config().vocabulary_size;
  Rows rows;
  for (; !logits.empty(); logits.remove_prefix(width)) {
    rows.emplace_back(logits.begin(), logits.begin() + width);
  }
  return rows;
}

std::vector<int32_t> RandomIds(int count, int vocabulary_size, uint64_t seed) {
  RandomValues random(seed);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = random.Bits() % vocabulary_size;
  return ids;
}

double MaxDifference(const Rows& a, const Rows& b) {
  if (a.size() != b.size()) return INFINITY;
  double largest = 0;
  for (size_t row = 0; row < a.size(); ++row) {
    for (size_t i = 0; i < a[row].size(); ++i) {
      const double difference = std::abs(double{a[row][i]} - b[row][i]);
      // NaN is the largest difference of all.
      largest = difference <= largest ? largest : difference;
      if (std::isnan(difference)) return INFINITY;
    }
  }
  return largest;
}

}  // namespace millrace::testing
