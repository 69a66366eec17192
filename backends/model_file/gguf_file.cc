#include "backends/model_file/gguf_file.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "backends/model_file/gguf_header.h"
#include "backends/model_file/gguf_llama.h"
#include "backends/model_file/gguf_metadata.h"
#include "backends/model_file/gguf_tokenizer.h"
#include "backends/model_file/invalid_file.h"
#include "backends/model_file/tensor_layout.h"
#include "backends/quant/finite.h"

namespace millrace::backends {
namespace {

class GgufFile final : public ModelFile {
 public:
  GgufFile(std::unique_ptr<FileBytes> file, ModelConfig config,
           TokenizerMetadata tokenizer, ModelFileInfo info,
           std::vector<TensorView> tensors)
      : file_(std::move(file)),
        config_(std::move(config)),
        tokenizer_(std::move(tokenizer)),
        info_(std::move(info)),
        tensors_(std::move(tensors)) {
    for (const TensorView& tensor : tensors_) by_name_[tensor.name] = &tensor;
  }

  const ModelConfig& config() const override { return config_; }
  const TokenizerMetadata& tokenizer() const override { return tokenizer_; }
  const ModelFileInfo& info() const override { return info_; }

  absl::StatusOr<TensorView> FindTensor(absl::string_view name) const override {
    const auto found = by_name_.find(name);
    if (found != by_name_.end()) return *found->second;
    return absl::NotFoundError(
        absl::StrCat("the model file has no tensor '", name, "'"));
  }

  std::vector<std::string> TensorNames() const override {
    std::vector<std::string> names;
    for (const TensorView& tensor : tensors_) names.push_back(tensor.name);
    return names;
  }

 private:
  const std::unique_ptr<FileBytes> file_;
  const ModelConfig config_;
  const TokenizerMetadata tokenizer_;
  const ModelFileInfo info_;
  const std::vector<TensorView> tensors_;  // in the order of the file
  absl::flat_hash_map<absl::string_view, const TensorView*> by_name_;
};

std::string Field(const GgufTensor& tensor) {
  return absl::StrCat("tensor '", Printable(tensor.name), "'");
}

bool HasTensor(const GgufHeader& header, absl::string_view name) {
  return std::any_of(
      header.tensors.begin(), header.tensors.end(),
      [name](const GgufTensor& tensor) { return tensor.name == name; });
}

absl::Status CheckTensor(const GgufTensor& tensor, const TensorShape& shape) {
  const auto& size = tensor.dimensions;
  if (size[0] != static_cast<uint64_t>(shape.cols) ||
      size[1] != static_cast<uint64_t>(shape.rows) || size[2] != 1 ||
      size[3] != 1) {
    return InvalidFile(
        tensor.record, Field(tensor),
        absl::StrCat("has the shape [", absl::StrJoin(size, ", "),
                     "]; by the file's keys it must be [", shape.cols, ", ",
                     shape.rows, "]"));
  }
  if (shape.is_norm && tensor.type != WeightType::kF32) {
    return InvalidFile(tensor.record, Field(tensor),
                       absl::StrCat("is of type ", WeightTypeName(tensor.type),
                                    "; weights of a norm must be F32"));
  }
  return absl::OkStatus();
}

// Whether the file's tensors are those of the model, each with its shape.
absl::Status CheckTensors(const GgufHeader& header, const ModelConfig& config) {
  const std::vector<TensorShape> layout = TensorLayout(config);
  absl::flat_hash_map<absl::string_view, const TensorShape*> wanted;
  for (const TensorShape& shape : layout) wanted[shape.name] = &shape;
  for (const GgufTensor& tensor : header.tensors) {
    const auto shape = wanted.find(tensor.name);
    if (shape == wanted.end()) {
      return InvalidFile(tensor.record, Field(tensor),
                         absl::StrCat("is no part of a 'llama' model of ",
                                      config.num_layers, " layers"));
    }
    absl::Status status = CheckTensor(tensor, *shape->second);
    if (!status.ok()) return status;
    wanted.erase(shape);
  }
  for (const TensorShape& shape : layout) {  // names the first, in order
    if (!wanted.contains(shape.name)) continue;
    return InvalidFile(0, absl::StrCat("tensor '", shape.name, "'"),
                       "is missing");
  }
  return absl::OkStatus();
}

absl::Status CheckValues(const GgufTensor& tensor,
                         absl::Span<const uint8_t> data) {
  const int64_t block = FirstNonFiniteBlock(tensor.type, data);
  if (block < 0) return absl::OkStatus();
  return InvalidFile(
      tensor.offset + block * BlockBytes(tensor.type), Field(tensor),
      absl::StrCat("has a ",
                   BlockElements(tensor.type) == 1 ? "weight" : "scale",
                   " that is not a finite number"));
}

absl::StatusOr<std::vector<TensorView>> ViewTensors(
    const GgufHeader& header, absl::Span<const uint8_t> bytes) {
  std::vector<TensorView> views;
  for (const GgufTensor& tensor : header.tensors) {
    TensorView view;
    view.name = std::string(tensor.name);
    view.type = tensor.type;
    view.rows = tensor.dimensions[1];
    view.cols = tensor.dimensions[0];
    view.data = bytes.subspan(tensor.offset, tensor.bytes);
    absl::Status status = CheckValues(tensor, view.data);
    if (!status.ok()) return status;
    views.push_back(std::move(view));
  }
  return views;
}

// "Q4_1 69%, Q8_0 31%"
std::string DescribeWeightTypes(const std::vector<TensorView>& tensors) {
  absl::flat_hash_map<absl::string_view, uint64_t> bytes_of;
  uint64_t total = 0;
  for (const TensorView& tensor : tensors) {
    bytes_of[WeightTypeName(tensor.type)] += tensor.data.size();
    total += tensor.data.size();
  }
  std::vector<std::pair<uint64_t, absl::string_view>> parts;
  for (const auto& [name, bytes] : bytes_of) parts.push_back({bytes, name});
  std::sort(parts.rbegin(), parts.rend());
  return absl::StrJoin(parts, ", ", [total](std::string* out, const auto& p) {
    absl::StrAppend(out, p.second, " ", (100 * p.first + total / 2) / total,
                    "%");
  });
}

ModelFileInfo Describe(const GgufHeader& header, const FileBytes& file,
                       const std::string& path,
                       const std::vector<TensorView>& tensors) {
  ModelFileInfo info;
  info.path = path;
  info.format = absl::StrCat("GGUF version ", header.version);
  info.file_bytes = file.size();
  info.sha256 = file.sha256();
  info.weight_types = DescribeWeightTypes(tensors);
  info.num_tensors = tensors.size();
  for (const TensorView& tensor : tensors) {
    info.num_parameters += tensor.rows * tensor.cols;
  }
  return info;
}

}  // namespace

bool IsGguf(absl::Span<const uint8_t> bytes) {
  return bytes.size() >= 4 && bytes[0] == 'G' && bytes[1] == 'G' &&
         bytes[2] == 'U' && bytes[3] == 'F';
}

absl::StatusOr<std::unique_ptr<const ModelFile>> ReadGguf(
    std::unique_ptr<FileBytes> file, const std::string& path) {
  const absl::StatusOr<GgufHeader> header = ReadGgufHeader(*file);
  if (!header.ok()) return header.status();

  GgufMetadata metadata(*header);
  absl::StatusOr<ModelConfig> config = ReadLlamaConfig(metadata);
  if (!config.ok()) return config.status();
  config->tied_embedding = !HasTensor(*header, "output.weight");
  absl::Status status = CheckTensors(*header, *config);
  if (!status.ok()) return status;
  absl::StatusOr<TokenizerMetadata> tokenizer = ReadTokenizer(metadata);
  if (!tokenizer.ok()) return tokenizer.status();

  const absl::StatusOr<absl::Span<const uint8_t>> bytes = file->LoadAll();
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<std::vector<TensorView>> tensors =
      ViewTensors(*header, *bytes);
  if (!tensors.ok()) return tensors.status();
  ModelFileInfo info = Describe(*header, *file, path, *tensors);
  return std::make_unique<GgufFile>(std::move(file), *std::move(config),
                                    *std::move(tokenizer), std::move(info),
                                    *std::move(tensors));
}

}  // namespace millrace::backends
