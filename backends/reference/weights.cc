#include "backends/reference/weights.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "backends/quant/dequantize.h"

namespace millrace::backends::reference {
namespace {

// Reads tensors until one is missing; status() then says which.
class Loader {
 public:
  explicit Loader(const ModelFile& file) : file_(file) {}

  Matrix LoadMatrix(absl::string_view name) {
    const absl::StatusOr<TensorView> tensor =
        file_.FindTensor(absl::StrCat(name, ".weight"));
    if (!tensor.ok()) {
      status_.Update(tensor.status());
      return {};
    }
    Matrix matrix;
    matrix.outputs = static_cast<int>(tensor->rows);
    matrix.inputs = static_cast<int>(tensor->cols);
    matrix.values.resize(tensor->rows * tensor->cols);
    for (int64_t row = 0; row < tensor->rows; ++row) {
      DequantizeRow(tensor->type, tensor->Row(row),
                    &matrix.values[row * tensor->cols], tensor->cols);
    }
    return matrix;
  }

  std::vector<float> LoadVector(absl::string_view name) {
    return LoadMatrix(name).values;
  }

  LayerWeights LoadLayer(int layer) {
    const std::string prefix = absl::StrCat("blk.", layer, ".");
    const auto matrix = [&](absl::string_view part) {
      return LoadMatrix(absl::StrCat(prefix, part));
    };
    LayerWeights out;
    out.attention_norm = LoadVector(absl::StrCat(prefix, "attn_norm"));
    out.query = matrix("attn_q");
    out.key = matrix("attn_k");
    out.value = matrix("attn_v");
    out.attention_output = matrix("attn_output");
    out.feed_forward_norm = LoadVector(absl::StrCat(prefix, "ffn_norm"));
    out.gate = matrix("ffn_gate");
    out.up = matrix("ffn_up");
    out.down = matrix("ffn_down");
    return out;
  }

  const absl::Status& status() const { return status_; }

 private:
  const ModelFile& file_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<Weights> LoadWeights(const ModelFile& file) {
  const ModelConfig& config = file.config();
  Loader loader(file);
  Weights weights;
  weights.embedding = loader.LoadMatrix("token_embd");
  for (int layer = 0; layer < config.num_layers; ++layer) {
    weights.layers.push_back(loader.LoadLayer(layer));
  }
  weights.output_norm = loader.LoadVector("output_norm");
  if (!config.tied_embedding) {
    weights.untied_output = loader.LoadMatrix("output");
  }
  if (!loader.status().ok()) return loader.status();
  return weights;
}

}  // namespace millrace::backends::reference
