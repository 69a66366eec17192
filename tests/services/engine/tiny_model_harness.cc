#include "tests/services/engine/tiny_model_harness.h"

#include "backends/reference/backend.h"

namespace millrace::engine {

std::unique_ptr<EngineHarness> NewTinyModelHarness(
    const testing::TinyLlamaOptions& model, cache::KvDtype dtype,
    const EngineOptions& options, backends::Backend& backend) {
  const auto file = testing::OpenTinyLlama(model);
  const backends::ModelConfig& config = file->config();
  const cache::KvSpec spec{.num_layers = config.num_layers,
                           .num_kv_heads = config.num_kv_heads,
                           .head_dim = config.head_dim,
                           .dtype = dtype};
  return std::make_unique<EngineHarness>(
      *backend.LoadModel(*file, {.max_rows = 96}),
      *backend.CreateKvStorage(spec, /*num_blocks=*/600), options);
}

std::unique_ptr<EngineHarness> NewTinyModelHarness(
    const testing::TinyLlamaOptions& model, cache::KvDtype dtype,
    const EngineOptions& options) {
  return NewTinyModelHarness(
      model, dtype, options,
      **backends::NewReferenceBackend({.num_threads = 1}));
}

}  // namespace millrace::engine
