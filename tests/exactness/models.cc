#include "tests/exactness/models.h"

#include <cstring>
#include <map>
#include <string>
#include <utility>

#include "backends/model_file/registry.h"
#include "backends/registry.h"

namespace millrace::testing {
namespace {

// Makes the model's logits smaller. Where activations are rounded to 8 bits,
// another order of a sum turns some of them the other way, and after a few
// layers results differ by about the rounding itself: 1/100 of the logits, of
// which the gate allows 0.05.
void ScaleLogits(float factor, GgufImage& image) {
  std::string& data = image.FindTensor("output_norm.weight").data;
  for (size_t i = 0; i < data.size(); i += sizeof(float)) {
    float value;
    std::memcpy(&value, &data[i], sizeof(value));
    value *= factor;
    std::memcpy(&data[i], &value, sizeof(value));
  }
}

std::unique_ptr<const backends::ModelFile> MakeModel(WeightType type) {
  TinyLlamaOptions options;
  options.num_layers = 3;
  options.matrices = options.embeddings = type;
  GgufImage image = TinyLlama(options);
  if (backends::BlockElements(type) > 1) ScaleLogits(0.25f, image);
  return backends::OpenModelFile(WriteTestFile(image.Serialize()), {}).value();
}

}  // namespace

const backends::ModelFile& RandomModel(WeightType type) {
  static auto* files =
      new std::map<WeightType, std::unique_ptr<const backends::ModelFile>>;
  auto& file = (*files)[type];
  if (file == nullptr) file = MakeModel(type);
  return *file;
}

const backends::ModelFile& RandomModelWithHeads(int num_heads,
                                                int num_kv_heads) {
  static auto* files = new std::map<std::pair<int, int>,
                                    std::unique_ptr<const backends::ModelFile>>;
  auto& file = (*files)[{num_heads, num_kv_heads}];
  if (file == nullptr) {
    file = OpenTinyLlama({.num_layers = 3,
                          .num_heads = num_heads,
                          .num_kv_heads = num_kv_heads});
  }
  return *file;
}

std::vector<BackendUnderTest> BackendsWithScores() {
  std::vector<BackendUnderTest> with;
  for (const BackendUnderTest& backend : BackendsAsChosenAndSlow()) {
    const auto made = backend.New(backend.Options(1)).value();
    if (made->capabilities().attention_scores) with.push_back(backend);
  }
  return with;
}

std::unique_ptr<ModelRunner> NewRunner(const BackendUnderTest& backend,
                                       const backends::ModelFile& file,
                                       cache::KvDtype dtype, int max_rows) {
  backends::BackendOptions options = backend.Options(2);
  // As it is served; but tensor cores round more than the gates allow.
  options.deterministic = backend.backend == "cuda";
  return ModelRunner::Create(file, {.backend = backend.backend,
                                    .new_backend = backend.new_backend,
                                    .backend_options = options,
                                    .kv_dtype = dtype,
                                    .max_rows = max_rows,
                                    .num_blocks = 1024})
      .value();
}

std::vector<int32_t> RandomText(int count, uint64_t seed) {
  return RandomIds(count, TinyLlamaOptions().vocabulary_size, seed);
}

}  // namespace millrace::testing
