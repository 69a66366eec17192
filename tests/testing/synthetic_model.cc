#include "tests/testing/synthetic_model.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "backends/model_file/tensor_layout.h"
#include "backends/model_file/tokenizer_metadata.h"
#include "tests/testing/gguf_writer.h"

namespace millrace::testing {
namespace {

using backends::ModelConfig;
using backends::RowBytes;
using backends::TensorShape;
using backends::TensorView;

// Different numbers: whole blocks, and no divisor of common row lengths.
constexpr int64_t kPattern = 32 * 1021;

std::vector<float> Pattern(float scale, float offset) {
  RandomValues random(1);
  std::vector<float> values(kPattern);
  for (float& value : values) value = offset + scale * random.Value();
  return values;
}

class SyntheticFile final : public backends::ModelFile {
 public:
  SyntheticFile(const ModelConfig& config, WeightType matrices,
                WeightType embeddings)
      : config_(config) {
    info_.path = info_.format = info_.sha256 = "synthetic";
    std::map<WeightType, int64_t> largest;
    int64_t widest = 0;
    for (const TensorShape& shape : backends::TensorLayout(config)) {
      const WeightType type = shape.is_norm ? WeightType::kF32
                              : absl::StartsWith(shape.name, "blk.")
                                  ? matrices
                                  : embeddings;
      tensors_.push_back({.name = shape.name,
                          .type = type,
                          .rows = shape.rows,
                          .cols = shape.cols,
                          .data = {}});
      const int64_t bytes = shape.rows * RowBytes(type, shape.cols);
      info_.file_bytes += bytes;
      info_.num_parameters += shape.rows * shape.cols;
      if (shape.is_norm) {
        widest = std::max(widest, bytes);
      } else {
        largest[type] = std::max(largest[type], bytes);
      }
    }
    info_.num_tensors = static_cast<int64_t>(tensors_.size());
    norms_ = Repeated(WeightType::kF32, Pattern(0.2f, 1), widest);
    // A matrix keeps the size of what it is applied to.
    const float scale =
        std::sqrt(3.0f / static_cast<float>(config.embedding_size));
    for (const auto& [type, bytes] : largest) {
      matrices_[type] = Repeated(type, Pattern(scale, 0), bytes);
    }
  }

  const ModelConfig& config() const override { return config_; }
  const backends::TokenizerMetadata& tokenizer() const override {
    return tokenizer_;
  }
  const backends::ModelFileInfo& info() const override { return info_; }

  absl::StatusOr<TensorView> FindTensor(absl::string_view name) const override {
    for (TensorView tensor : tensors_) {
      if (tensor.name != name) continue;
      const bool is_norm = absl::EndsWith(name, "norm.weight");
      const std::string& from = is_norm ? norms_ : matrices_.at(tensor.type);
      tensor.data = {reinterpret_cast<const uint8_t*>(from.data()),
                     static_cast<size_t>(tensor.rows * tensor.row_bytes())};
      return tensor;
    }
    return absl::NotFoundError(absl::StrCat("find tensor: no '", name, "'"));
  }

  std::vector<std::string> TensorNames() const override {
    std::vector<std::string> names;
    for (const TensorView& tensor : tensors_) names.push_back(tensor.name);
    return names;
  }

 private:
  static std::string Repeated(WeightType type, const std::vector<float>& values,
                              int64_t bytes) {
    const std::string pattern = Quantize(type, values);
    std::string out;
    out.reserve(bytes + pattern.size());
    while (static_cast<int64_t>(out.size()) < bytes) out += pattern;
    return out;
  }

  const ModelConfig config_;
  const backends::TokenizerMetadata tokenizer_;
  backends::ModelFileInfo info_;
  std::vector<TensorView> tensors_;  // without data
  std::string norms_;
  std::map<WeightType, std::string> matrices_;
};

}  // namespace

std::unique_ptr<const backends::ModelFile> SyntheticModel(
    const ModelConfig& config, WeightType matrices, WeightType embeddings) {
  return std::make_unique<SyntheticFile>(config, matrices, embeddings);
}

}  // namespace millrace::testing
