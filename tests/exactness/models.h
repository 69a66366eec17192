// The random models that exactness is tested with, and backends to run them.
#ifndef MILLRACE_TESTS_EXACTNESS_MODELS_H_
#define MILLRACE_TESTS_EXACTNESS_MODELS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "backends/model_file/model_file.h"
#include "tests/testing/backends_under_test.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/model_runner.h"

namespace millrace::testing {

// Three layers, so that what a token saw long ago still matters. Made once.
const backends::ModelFile& RandomModel(WeightType type);

// The same of float weights, with so many query and KV heads.
const backends::ModelFile& RandomModelWithHeads(int num_heads,
                                                int num_kv_heads);

// Those of BackendsAsChosenAndSlow that tell how much attention tokens get.
std::vector<BackendUnderTest> BackendsWithScores();

std::unique_ptr<ModelRunner> NewRunner(const BackendUnderTest& backend,
                                       const backends::ModelFile& file,
                                       cache::KvDtype dtype,
                                       int max_rows = 256);

std::vector<int32_t> RandomText(int count, uint64_t seed = 1);

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_EXACTNESS_MODELS_H_
