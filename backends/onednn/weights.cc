#include "backends/onednn/weights.h"

#include <cstring>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace::backends::onednn {
namespace {

// Takes tensors from the file one after the other. A first pass, without
// memory, counts bytes; a second writes. The first error stays.
class Packer {
 public:
  Packer(const ModelFile& file, uint8_t* memory)
      : file_(file), memory_(memory) {}

  const absl::Status& status() const { return status_; }
  int64_t bytes() const { return bytes_; }

  PackedMatrix Matrix(const std::string& name) {
    const TensorView tensor = Find(name);
    const int64_t stride = GroupBytes(tensor.type, tensor.cols);
    return PackAt(tensor, Take(Groups(tensor) * stride), stride);
  }

  // Two matrices that are read together: a group of one, a group of the other.
  // Float matrices stay apart, so that groups of one are consecutive rows.
  std::pair<PackedMatrix, PackedMatrix> Interleaved(const std::string& first,
                                                    const std::string& second) {
    const TensorView a = Find(first), b = Find(second);
    if (!IsQuantised(a.type) || !IsQuantised(b.type) || a.rows != b.rows) {
      PackedMatrix packed = Matrix(first);
      return {packed, Matrix(second)};
    }
    const int64_t a_bytes = GroupBytes(a.type, a.cols);
    const int64_t stride = a_bytes + GroupBytes(b.type, b.cols);
    uint8_t* const to = Take(Groups(a) * stride);
    return {PackAt(a, to, stride),
            PackAt(b, to == nullptr ? to : to + a_bytes, stride)};
  }

  // A vector of floats.
  const float* Vector(const std::string& name) {
    const TensorView tensor = Find(name);
    uint8_t* const to = Take((tensor.data.size() + 63) / 64 * 64);
    if (to != nullptr) {
      std::memcpy(to, tensor.data.data(), tensor.data.size());
    }
    return reinterpret_cast<const float*>(to);
  }

 private:
  static int64_t Groups(const TensorView& tensor) {
    return (tensor.rows + kGroupRows - 1) / kGroupRows;
  }

  TensorView Find(const std::string& name) {
    absl::StatusOr<TensorView> tensor = file_.FindTensor(name);
    if (tensor.ok()) return *std::move(tensor);
    if (status_.ok()) status_ = tensor.status();
    return {};
  }

  uint8_t* Take(int64_t bytes) {
    uint8_t* const at = memory_ == nullptr ? nullptr : memory_ + bytes_;
    bytes_ += bytes;
    return at;
  }

  PackedMatrix PackAt(const TensorView& tensor, uint8_t* to, int64_t stride) {
    if (to == nullptr) return {};
    return Pack(tensor, to, stride);
  }

  const ModelFile& file_;
  uint8_t* const memory_;
  int64_t bytes_ = 0;
  absl::Status status_;
};

LayerWeights PackLayer(Packer& packer, int layer) {
  const std::string prefix = absl::StrCat("blk.", layer, ".");
  LayerWeights weights;
  weights.attention_norm = packer.Vector(prefix + "attn_norm.weight");
  weights.query = packer.Matrix(prefix + "attn_q.weight");
  weights.key = packer.Matrix(prefix + "attn_k.weight");
  weights.value = packer.Matrix(prefix + "attn_v.weight");
  weights.attention_output = packer.Matrix(prefix + "attn_output.weight");
  weights.feed_forward_norm = packer.Vector(prefix + "ffn_norm.weight");
  std::tie(weights.gate, weights.up) =
      packer.Interleaved(prefix + "ffn_gate.weight", prefix + "ffn_up.weight");
  weights.down = packer.Matrix(prefix + "ffn_down.weight");
  return weights;
}

void PackAll(const ModelConfig& config, Packer& packer, Weights& weights) {
  for (int layer = 0; layer < config.num_layers; ++layer) {
    weights.layers.push_back(PackLayer(packer, layer));
  }
  weights.output_norm = packer.Vector("output_norm.weight");
  if (config.tied_embedding) {
    weights.output = packer.Matrix("token_embd.weight");
    weights.embedding = weights.output;
  } else {
    weights.output = packer.Matrix("output.weight");
    weights.embedding = packer.Matrix("token_embd.weight");
  }
}

}  // namespace

absl::StatusOr<Weights> LoadWeights(const ModelFile& file) {
  Packer counter(file, nullptr);
  Weights weights;
  PackAll(file.config(), counter, weights);
  if (!counter.status().ok()) return counter.status();
  absl::StatusOr<MemoryRegion> memory =
      MemoryRegion::Map(counter.bytes(), "packed weights");
  if (!memory.ok()) return memory.status();
  Packer packer(file, memory->data());
  weights = {};
  PackAll(file.config(), packer, weights);
  weights.memory = *std::move(memory);
  return weights;
}

int64_t WeightBytes(const ModelFile& file) {
  Packer counter(file, nullptr);
  Weights weights;
  PackAll(file.config(), counter, weights);
  return counter.status().ok() ? counter.bytes() : 0;
}

}  // namespace millrace::backends::onednn
