// An engine over a real transformer, tiny and random.
#ifndef MILLRACE_TESTS_SERVICES_ENGINE_TINY_MODEL_HARNESS_H_
#define MILLRACE_TESTS_SERVICES_ENGINE_TINY_MODEL_HARNESS_H_

#include <memory>

#include "backends/backend.h"
#include "cache/kv_spec.h"
#include "services/engine/engine.h"
#include "tests/services/engine/engine_harness.h"
#include "tests/testing/gguf_writer.h"

namespace millrace::engine {

std::unique_ptr<EngineHarness> NewTinyModelHarness(
    const testing::TinyLlamaOptions& model, cache::KvDtype dtype,
    const EngineOptions& options, backends::Backend& backend);
// On the reference backend.
std::unique_ptr<EngineHarness> NewTinyModelHarness(
    const testing::TinyLlamaOptions& model, cache::KvDtype dtype,
    const EngineOptions& options);

}  // namespace millrace::engine

#endif  // MILLRACE_TESTS_SERVICES_ENGINE_TINY_MODEL_HARNESS_H_
