#include "backends/cuda/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "backends/quant/blocks.h"
#include "backends/quant/half.h"

namespace millrace::backends::cuda {
namespace {

constexpr int64_t kAlignment = 256;

int64_t Aligned(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

Matrix ShapeOf(const TensorView& tensor) {
  return {.type = tensor.type,
          .outputs = static_cast<int>(tensor.rows),
          .inputs = static_cast<int>(tensor.cols)};
}

// One output's 32 weights of a quantised block, as the file has them.
void PackBlock(WeightType type, const uint8_t* block, int output,
               uint8_t* tile) {
  const int64_t head = type == WeightType::kQ4_1 ? 4 : 2;
  std::memcpy(tile + ScaleByte(type, output), block, 2);
  if (type == WeightType::kQ4_1) {
    std::memcpy(tile + MinimumByte(type, output), block + 2, 2);
  }
  const uint8_t* const from = block + head;
  for (int i = 0; i < kTileInputs; ++i) {
    const TilePlace place = PlaceInTile(output, i);
    uint8_t& to = tile[TileByte(type, place)];
    if (type == WeightType::kQ8_0) {
      to = from[i];
      continue;
    }
    const int nibble = i < 16 ? from[i] & 15 : from[i - 16] >> 4;
    to |= static_cast<uint8_t>(nibble << (IsHighNibble(place) ? 4 : 0));
  }
}

// One output's weights of a tile, of float types.
void PackFloats(WeightType type, const uint8_t* row, int count, int output,
                uint8_t* tile) {
  const auto bytes = static_cast<int>(BlockBytes(type));
  for (int i = 0; i < count; ++i) {
    std::memcpy(tile + TileByte(type, PlaceInTile(output, i)), row + i * bytes,
                bytes);
  }
}

// Whether no weight of a float type is beyond the numbers of half precision.
// Those of bfloat16 are compared by their bits.
bool FitsHalf(const TensorView& tensor) {
  constexpr float kLargest = 65504;
  const auto* const data = tensor.data.data();
  const auto bytes = static_cast<int64_t>(tensor.data.size());
  bool fits = true;
  if (tensor.type == WeightType::kF32) {
    for (int64_t i = 0; i < bytes; i += 4) {
      float x;
      std::memcpy(&x, data + i, sizeof(x));
      fits &= std::abs(x) <= kLargest;
    }
  } else if (tensor.type == WeightType::kBF16) {
    const uint16_t largest = FloatToBfloat16(65280);  // the last below kLargest
    for (int64_t i = 0; i < bytes; i += 2) {
      uint16_t x;
      std::memcpy(&x, data + i, sizeof(x));
      fits &= (x & 0x7fff) <= largest;
    }
  }
  return fits;
}

// Takes tensors from the file one after the other. A first pass, without a
// device, counts bytes; a second uploads. The first error stays.
class Loader {
 public:
  explicit Loader(const ModelFile& file) : file_(file) {}
  Loader(const ModelFile& file, Device* device, uint8_t* memory)
      : file_(file), device_(device), memory_(memory) {}

  const absl::Status& status() const { return status_; }
  int64_t bytes() const { return bytes_; }

  Matrix LoadMatrix(const std::string& name) {
    const TensorView tensor = Find(name);
    Matrix matrix = ShapeOf(tensor);
    uint8_t* const to = Take(matrix.bytes());
    if (to == nullptr) return matrix;
    matrix.fits_half = FitsHalf(tensor);
    packed_.assign(matrix.bytes(), 0);
    PackTiles(tensor, absl::MakeSpan(packed_));
    Upload(to);
    matrix.tiles = to;
    return matrix;
  }

  const float* LoadVector(const std::string& name) {
    const TensorView tensor = Find(name);
    const int64_t values =
        (tensor.cols + kTileInputs - 1) / kTileInputs * kTileInputs;
    uint8_t* const to = Take(values * int64_t{sizeof(float)});
    if (to == nullptr) return nullptr;
    packed_.assign(values * sizeof(float), 0);
    std::copy(tensor.data.begin(), tensor.data.end(), packed_.begin());
    Upload(to);
    return reinterpret_cast<const float*>(to);
  }

 private:
  TensorView Find(const std::string& name) {
    absl::StatusOr<TensorView> tensor = file_.FindTensor(name);
    if (tensor.ok()) return *std::move(tensor);
    if (status_.ok()) status_ = tensor.status();
    return {};
  }

  uint8_t* Take(int64_t bytes) {
    uint8_t* const at = memory_ == nullptr ? nullptr : memory_ + bytes_;
    bytes_ += Aligned(bytes);
    return status_.ok() ? at : nullptr;
  }

  // `packed_` is free for the next tensor afterwards.
  void Upload(uint8_t* to) {
    device_->Copy(to, packed_.data(), static_cast<int64_t>(packed_.size()));
    const absl::Status copied = device_->Synchronize();
    if (status_.ok()) status_ = copied;
  }

  const ModelFile& file_;
  Device* const device_ = nullptr;
  uint8_t* const memory_ = nullptr;
  int64_t bytes_ = 0;
  std::vector<uint8_t> packed_;
  absl::Status status_;
};

LayerWeights LoadLayer(Loader& loader, int layer) {
  const auto name = [&](const char* part) {
    return absl::StrCat("blk.", layer, ".", part, ".weight");
  };
  LayerWeights weights;
  weights.attention_norm = loader.LoadVector(name("attn_norm"));
  weights.query = loader.LoadMatrix(name("attn_q"));
  weights.key = loader.LoadMatrix(name("attn_k"));
  weights.value = loader.LoadMatrix(name("attn_v"));
  weights.attention_output = loader.LoadMatrix(name("attn_output"));
  weights.feed_forward_norm = loader.LoadVector(name("ffn_norm"));
  weights.gate = loader.LoadMatrix(name("ffn_gate"));
  weights.up = loader.LoadMatrix(name("ffn_up"));
  weights.down = loader.LoadMatrix(name("ffn_down"));
  return weights;
}

Weights LoadAll(const ModelConfig& config, Loader& loader) {
  Weights weights;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    weights.layers.push_back(LoadLayer(loader, layer));
  }
  weights.output_norm = loader.LoadVector("output_norm.weight");
  weights.embedding = loader.LoadMatrix("token_embd.weight");
  weights.output = config.tied_embedding ? weights.embedding
                                         : loader.LoadMatrix("output.weight");
  return weights;
}

}  // namespace

void PackTiles(const TensorView& tensor, absl::Span<uint8_t> tiles) {
  const Matrix shape = ShapeOf(tensor);
  const int64_t tile_bytes = TileBytes(tensor.type);
  const bool quantised = BlockElements(tensor.type) > 1;
  for (int64_t output = 0; output < tensor.rows; ++output) {
    const uint8_t* const row = tensor.Row(output);
    uint8_t* const group =
        &tiles[output / kTileOutputs * shape.blocks() * tile_bytes];
    const int in_tile = static_cast<int>(output % kTileOutputs);
    for (int block = 0; block < shape.blocks(); ++block) {
      uint8_t* const tile = group + block * tile_bytes;
      if (quantised) {
        PackBlock(tensor.type, row + block * BlockBytes(tensor.type), in_tile,
                  tile);
      } else {
        PackFloats(tensor.type,
                   row + int64_t{block} * kTileInputs * BlockBytes(tensor.type),
                   std::min(kTileInputs, shape.inputs - block * kTileInputs),
                   in_tile, tile);
      }
    }
  }
}

absl::StatusOr<Weights> LoadWeights(const ModelFile& file, Device& device) {
  Loader counter(file);
  LoadAll(file.config(), counter);
  if (!counter.status().ok()) return counter.status();
  absl::StatusOr<Memory> memory = device.Allocate(counter.bytes(), "weights");
  if (!memory.ok()) return memory.status();
  Loader loader(file, &device, memory->get());
  Weights weights = LoadAll(file.config(), loader);
  if (!loader.status().ok()) return loader.status();
  weights.memory = *std::move(memory);
  return weights;
}

int64_t WeightBytes(const ModelFile& file) {
  Loader counter(file);
  LoadAll(file.config(), counter);
  return counter.bytes();
}

}  // namespace millrace::backends::cuda
