#include "backends/onednn/ops.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backends/onednn/float_gemm.h"

namespace millrace::backends::onednn {
namespace {

// Groups that are multiplied at once if the weights are floats.
constexpr int kFloatGroups = 4;

// From so many rows on oneDNN multiplies float weights: README.md has figures.
constexpr int kGemmRowsF32 = 32, kGemmRows16Bits = 64;

// Pieces that a thread should find in a product; and the most bytes of one.
constexpr int kPiecesPerThread = 8;
constexpr int64_t kMaxPieceBytes = 320 << 10;

// Rows of one group are written whole if they can: the compiler then knows how
// many numbers there are.
void Copy(const float* from, int n, float* to) {
  if (n == kGroupRows) {
    std::memcpy(to, from, kGroupRows * sizeof(float));
  } else {
    std::copy_n(from, n, to);
  }
}

void AddTo(const float* from, int n, float* to) {
  if (n == kGroupRows) {
    for (int i = 0; i < kGroupRows; ++i) to[i] += from[i];
  } else {
    for (int i = 0; i < n; ++i) to[i] += from[i];
  }
}

constexpr int kNoRows = -1;

// Read beyond the last row: a head of less than 16 numbers is read as 16.
constexpr int kPadding = 16;

int MaxInputs(const ModelConfig& config) {
  return std::max({config.embedding_size, config.feed_forward_size,
                   static_cast<int>(config.query_size())});
}

int64_t TileFloats(int max_rows) {
  return int64_t{max_rows} * kFloatGroups * kGroupRows;
}

// Keys and values of the rows, before they are rounded.
int64_t StagedFloats(const ModelConfig& config, int max_rows) {
  return int64_t{2} * max_rows * config.num_kv_heads *
         RoundUp16(config.head_dim);
}

// Floats of a slice of 16-bit weights, widened for oneDNN.
int64_t WideFloats(const ModelConfig& config) {
  return int64_t{kFloatGroups} * kGroupRows * RoundUp16(MaxInputs(config));
}

}  // namespace

struct CpuOps::Worker {
  Activations own;     // the only row
  int prepared = 0;    // the phase whose row `own` holds
  int rows = kNoRows;  // index in shared_ of those it reads
  std::vector<float> sums, second, wide;
};

absl::StatusOr<std::unique_ptr<CpuOps>> CpuOps::Create(
    const ModelFile& file, const LoadOptions& load,
    const BackendOptions& options, const Kernels& kernels) {
  absl::StatusOr<Weights> weights = LoadWeights(file);
  if (!weights.ok()) return weights.status();
  std::unique_ptr<CpuOps> ops(
      new CpuOps(file.config(), load, options, kernels, *std::move(weights)));
  const absl::Status allocated = ops->AllocateActivations();
  if (!allocated.ok()) return allocated;
  return ops;
}

CpuOps::CpuOps(const ModelConfig& config, const LoadOptions& load,
               const BackendOptions& options, const Kernels& kernels,
               Weights weights)
    : config_(config),
      max_rows_(load.max_rows),
      deterministic_(options.deterministic),
      kernels_(kernels),
      weights_(std::move(weights)),
      pool_(options.num_threads),
      step_(config.head_dim, config.rope_base, load.max_rows),
      attention_(config_, kernels, step_, pool_, load.max_rows) {}

CpuOps::~CpuOps() = default;

absl::Status CpuOps::AllocateActivations() {
  for (const Activation which : {Activation::kResidual, Activation::kQuery,
                                 Activation::kAttended, Activation::kHidden}) {
    Buffer(which).resize(int64_t{max_rows_} * Width(which) + kPadding);
  }
  logits_rows_.reserve(max_rows_);
  for (int i = 0; i < pool_.num_threads(); ++i) {
    auto worker = std::make_unique<Worker>();
    absl::StatusOr<Activations> own =
        Activations::Create(1, MaxInputs(config_));
    if (!own.ok()) return own.status();
    worker->own = *std::move(own);
    absl::StatusOr<Activations> shared =
        Activations::Create(max_rows_, MaxInputs(config_));
    if (!shared.ok()) return shared.status();
    shared_.push_back(*std::move(shared));
    worker->sums.resize(TileFloats(max_rows_));
    worker->second.resize(TileFloats(max_rows_));
    worker->wide.resize(WideFloats(config_));
    workers_.push_back(std::move(worker));
  }
  return absl::OkStatus();
}

int64_t CpuOps::EstimateMemory(const ModelFile& file, const LoadOptions& load,
                               const BackendOptions& options) {
  const ModelConfig& config = file.config();
  const int64_t rows = load.max_rows;
  const int64_t widths = config.embedding_size + 2 * config.query_size() +
                         config.feed_forward_size;
  const int64_t per_worker = Activations::Bytes(1, MaxInputs(config)) +
                             Activations::Bytes(rows, MaxInputs(config)) +
                             8 * TileFloats(load.max_rows) +
                             4 * WideFloats(config);
  // Every region ends with a page that is only partly used.
  const int64_t page = int64_t{2} << 20;
  return WeightBytes(file) + page + 4 * (rows * widths + 4 * kPadding) +
         4 * StagedFloats(config, load.max_rows) +
         options.num_threads * (per_worker + 2 * page) +
         Step::Bytes(config.head_dim, load.max_rows) +
         onednn::Attention::Bytes(config, options.num_threads, load.max_rows);
}

int CpuOps::Width(Activation which) const {
  switch (which) {
    case Activation::kResidual:
      return config_.embedding_size;
    case Activation::kQuery:
    case Activation::kAttended:
      return static_cast<int>(config_.query_size());
    case Activation::kHidden:
      return config_.feed_forward_size;
  }
  return 0;
}

std::vector<float>& CpuOps::Buffer(Activation which) {
  switch (which) {
    case Activation::kResidual:
      return residual_;
    case Activation::kQuery:
      return query_;
    case Activation::kAttended:
      return attended_;
    case Activation::kHidden:
      return hidden_;
  }
  return residual_;
}

absl::Status CpuOps::Begin(const Batch& batch, cache::KvStorage& kv) {
  if (batch.rows() < 1 || batch.rows() > max_rows_) {
    return absl::InvalidArgumentError(
        absl::StrCat("begin a step of ", batch.rows(), " rows: 1 to ",
                     max_rows_, " were asked for when the model was loaded"));
  }
  kv_ = dynamic_cast<TiledKvStorage*>(&kv);
  if (kv_ == nullptr || kv.spec().num_layers != config_.num_layers ||
      kv.spec().num_kv_heads != config_.num_kv_heads ||
      kv.spec().head_dim != config_.head_dim) {
    return absl::InvalidArgumentError(
        "begin a step: the KV storage was not made by this backend for this "
        "model's shape");
  }
  failed_.store(false, std::memory_order_relaxed);
  if (kv_->rounds_whole()) staged_.resize(StagedFloats(config_, max_rows_));
  step_.Begin(batch);
  attention_.Begin();
  logits_rows_.clear();
  for (size_t c = 0; c < batch.chunks.size(); ++c) {
    const int end =
        step_.first_row(static_cast<int>(c)) + batch.chunks[c].rows();
    for (int row = end - batch.chunks[c].num_logits; row < end; ++row) {
      logits_rows_.push_back(row);
    }
  }
  return absl::OkStatus();
}

void CpuOps::Embed() {
  const int width = config_.embedding_size;
  pool_.Run(step_.num_rows(), kPanelTokens, [&](int begin, int end, int) {
    for (int row = begin; row < end; ++row) {
      UnpackRow(weights_.embedding, step_.row(row).token_id,
                absl::MakeSpan(&residual_[int64_t{row} * width], width));
    }
  });
}

void CpuOps::AttentionInput(int layer) {
  const LayerWeights& weights = weights_.layers[layer];
  const Input input = {.source = residual_.data(),
                       .inputs = config_.embedding_size,
                       .norm = weights.attention_norm,
                       .which = {},
                       .rows = step_.num_rows()};
  const auto emit = [&](const Tile& tile) {
    if (tile.part != 0) return StoreHeads(layer, tile.part == 1, tile);
    for (int row = 0; row < step_.num_rows(); ++row) {
      Copy(tile.sums + row * tile.stride, tile.n,
           &query_[row * config_.query_size() + tile.first]);
    }
  };
  Multiply({.input = input,
            .matrices = {&weights.query, &weights.key, &weights.value},
            .emit = emit});
  if (kv_->rounds_whole()) RoundStaged(layer);
}

// Writes sums that are keys or values, at most 16 numbers of a head at a time:
// to the cache, or where they wait for the rest of their head.
void CpuOps::StoreHeads(int layer, bool key, const Tile& tile) {
  const int dim = config_.head_dim;
  for (int i = 0, n = 0; i < tile.n; i += n) {
    const int head = (tile.first + i) / dim, d = (tile.first + i) % dim;
    n = std::min({16, dim - d, tile.n - i});
    for (int row = 0; row < step_.num_rows(); ++row) {
      const float* const sums = tile.sums + row * tile.stride + i;
      const Step::Row& at = step_.row(row);
      if (!key) {
        if (kv_->rounds_whole()) {
          Copy(sums, n, Staged(row, key, head) + d);
        } else {
          kv_->StoreValue(layer, head, at.block, at.slot, d, {sums, size_t(n)});
        }
        continue;
      }
      const Angles angles = step_.KeyAngles(row);
      float rotated[16];
      if (n == 16) {
        kernels_.rotate(sums, angles.cosines + d, angles.sines + d, 1.0f, 16,
                        rotated);
      } else {
        for (int j = 0; j < n; ++j) {
          rotated[j] = sums[j] * angles.cosines[d + j] +
                       sums[j ^ 1] * angles.sines[d + j];
        }
      }
      if (kv_->rounds_whole()) {
        Copy(rotated, n, Staged(row, key, head) + d);
      } else {
        kv_->StoreKey(layer, head, at.block, at.slot, d, {rotated, size_t(n)});
      }
    }
  }
}

float* CpuOps::Staged(int row, bool key, int kv_head) {
  const int64_t vector = (int64_t{2} * row + !key) * config_.num_kv_heads;
  return &staged_[(vector + kv_head) * RoundUp16(config_.head_dim)];
}

// Rounds and writes what StoreHeads has left, once every head is whole.
void CpuOps::RoundStaged(int layer) {
  const auto store = [&](int begin, int end) {
    for (int row = begin; row < end; ++row) {
      const Step::Row& at = step_.row(row);
      for (const bool key : {true, false}) {
        for (int head = 0; head < config_.num_kv_heads; ++head) {
          kv_->Store(layer, key, head, at.block, at.slot,
                     Staged(row, key, head));
        }
      }
    }
  };
  if (step_.num_rows() <= kPanelTokens) return store(0, step_.num_rows());
  pool_.Run(step_.num_rows(), kPanelTokens,
            [&](int begin, int end, int) { store(begin, end); });
}

void CpuOps::Attention(int layer) {
  attention_.Run(layer, *kv_, query_.data(), attended_.data());
}

void CpuOps::AttentionOutput(int layer) {
  const Input input = {.source = attended_.data(),
                       .inputs = static_cast<int>(config_.query_size()),
                       .norm = nullptr,
                       .which = {},
                       .rows = step_.num_rows()};
  Multiply({.input = input,
            .matrices = {&weights_.layers[layer].attention_output},
            .emit = [&](const Tile& tile) { AddToResidual(tile); }});
}

void CpuOps::AddToResidual(const Tile& tile) {
  const int width = config_.embedding_size;
  for (int row = 0; row < step_.num_rows(); ++row) {
    AddTo(tile.sums + row * tile.stride, tile.n,
          &residual_[int64_t{row} * width + tile.first]);
  }
}

void CpuOps::FeedForwardIn(int layer) {
  const LayerWeights& weights = weights_.layers[layer];
  const Input input = {.source = residual_.data(),
                       .inputs = config_.embedding_size,
                       .norm = weights.feed_forward_norm,
                       .which = {},
                       .rows = step_.num_rows()};
  const auto emit = [&](const Tile& tile) {
    kernels_.silu_mul(tile.sums, tile.second, step_.num_rows() * tile.stride);
    for (int row = 0; row < step_.num_rows(); ++row) {
      Copy(tile.sums + row * tile.stride, tile.n,
           &hidden_[int64_t{row} * config_.feed_forward_size + tile.first]);
    }
  };
  Multiply({.input = input,
            .matrices = {&weights.gate},
            .partner = &weights.up,
            .emit = emit});
}

void CpuOps::FeedForwardOut(int layer) {
  const Input input = {.source = hidden_.data(),
                       .inputs = config_.feed_forward_size,
                       .norm = nullptr,
                       .which = {},
                       .rows = step_.num_rows()};
  Multiply({.input = input,
            .matrices = {&weights_.layers[layer].down},
            .emit = [&](const Tile& tile) { AddToResidual(tile); }});
}

absl::Status CpuOps::Logits(absl::Span<float> logits) {
  const Input input = {.source = residual_.data(),
                       .inputs = config_.embedding_size,
                       .norm = weights_.output_norm,
                       .which = logits_rows_,
                       .rows = static_cast<int>(logits_rows_.size())};
  const auto emit = [&](const Tile& tile) {
    for (int row = 0; row < input.rows; ++row) {
      std::copy_n(tile.sums + row * tile.stride, tile.n,
                  &logits[int64_t{row} * config_.vocabulary_size + tile.first]);
    }
  };
  if (input.rows > 0) {
    Multiply({.input = input, .matrices = {&weights_.output}, .emit = emit});
  }
  if (failed_.load(std::memory_order_relaxed)) {
    return absl::InternalError(
        "compute a step: oneDNN could not multiply float weights");
  }
  return absl::OkStatus();
}

void CpuOps::Read(Activation which, absl::Span<float> out) const {
  std::copy_n(const_cast<CpuOps*>(this)->Buffer(which).begin(), out.size(),
              out.begin());
}

void CpuOps::Write(Activation which, absl::Span<const float> in) {
  std::copy(in.begin(), in.end(), Buffer(which).begin());
}

void CpuOps::Prepare(const Input& input, int t, Activations& to) {
  const int row = input.which.empty() ? t : input.which[t];
  const float* const from = input.source + int64_t{row} * input.inputs;
  if (input.norm != nullptr) {
    kernels_.rms_norm(from, input.norm, input.inputs, config_.rms_epsilon,
                      to.row(t));
  } else {
    std::copy_n(from, input.inputs, to.row(t));
  }
  // Float weights read the floats; whoever has 32-blocks may be quantised.
  if (input.inputs % 32 == 0) to.Quantise(kernels_, t);
}

int CpuOps::UnreadRows() const {
  for (int i = 0;; ++i) {
    bool read = false;
    for (int w = 1; w < pool_.num_threads(); ++w) {
      read |= workers_[w]->rows == i && pool_.Straggles(w);
    }
    if (!read) return i;
  }
}

void CpuOps::Multiply(Product product) {
  const Input& input = product.input;
  ++phase_;
  if (input.rows > 1) {
    product.shared = UnreadRows();
    Activations& rows = shared_[product.shared];
    rows.Reset(input.rows, input.inputs);
    pool_.Run(input.rows, kPanelTokens, [&](int begin, int end, int) {
      for (int t = begin; t < end; ++t) Prepare(input, t, rows);
    });
  }
  int groups = 0;
  int64_t bytes = 0;
  bool floats = false;
  for (const PackedMatrix* matrix : product.matrices) {
    if (matrix == nullptr) break;
    groups += matrix->groups();
    bytes += matrix->groups() * matrix->group_stride;
    floats |= !matrix->quantised();
  }
  const int64_t limit = std::max<int64_t>(1, kMaxPieceBytes * groups / bytes);
  const int piece = static_cast<int>(std::clamp<int64_t>(
      groups / (kPiecesPerThread * pool_.num_threads()), 1, limit));
  pool_.Run(groups, floats ? std::max(piece, kFloatGroups) : piece,
            [&](int begin, int end, int worker) {
              MultiplyRange(product, begin, end, worker);
            });
}

// Everything that is looked at while it can be stolen is this call's own, the
// worker's own, or there for the model's lifetime.
void CpuOps::MultiplyRange(const Product product, int begin, int end, int w) {
  Worker& worker = *workers_[w];
  const bool alone = product.input.rows == 1;
  if (alone && worker.prepared != phase_) {
    worker.own.Reset(1, product.input.inputs);
    Prepare(product.input, 0, worker.own);
    worker.prepared = phase_;
  }
  worker.rows = alone ? kNoRows : product.shared;
  const Activations& x = alone ? worker.own : shared_[product.shared];
  for (int g = begin; g < end;) {
    int part = 0, before = 0;
    for (; g >= before + product.matrices[part]->groups(); ++part) {
      before += product.matrices[part]->groups();
    }
    const PackedMatrix& matrix = *product.matrices[part];
    const int n = std::min({matrix.quantised() ? 1 : kFloatGroups, end - g,
                            before + matrix.groups() - g});
    const int first = g - before;
    pool_.BeginStealable(g, w);
    bool done = MultiplyGroups(matrix, x, first, n, worker, worker.sums.data());
    if (product.partner != nullptr) {
      done &= MultiplyGroups(*product.partner, x, first, n, worker,
                             worker.second.data());
    }
    if (!pool_.EndStealable(w)) return;
    if (!done) failed_.store(true, std::memory_order_relaxed);
    product.emit(
        {.part = part,
         .first = first * kGroupRows,
         .n = std::min(n * kGroupRows, matrix.outputs - first * kGroupRows),
         .sums = worker.sums.data(),
         .second = product.partner ? worker.second.data() : nullptr,
         .stride = n * kGroupRows});
    g += n;
  }
}

// out is [rows of x][num_groups * 16].
bool CpuOps::MultiplyGroups(const PackedMatrix& matrix, const Activations& x,
                            int first_group, int num_groups, Worker& worker,
                            float* out) const {
  const int stride = num_groups * kGroupRows;
  if (matrix.quantised()) {
    const QuantisedProduct product =
        matrix.type == WeightType::kQ4_1   ? kernels_.q4_1
        : matrix.type == WeightType::kQ4_0 ? kernels_.q4_0
                                           : kernels_.q8_0;
    for (int g = 0; g < num_groups; ++g) {
      for (int t = 0; t < x.rows(); t += kPanelTokens) {
        product(matrix.group(first_group + g), matrix.blocks(), x.panel(t),
                std::min(kPanelTokens, x.rows() - t),
                out + int64_t{t} * stride + g * kGroupRows, stride);
      }
    }
    return true;
  }
  if (UsesGemm(matrix, x.rows())) {
    return Gemm(matrix, x, first_group, num_groups, worker, out);
  }
  const FloatProduct product = matrix.type == WeightType::kF32 ? kernels_.f32
                               : matrix.type == WeightType::kF16
                                   ? kernels_.f16
                                   : kernels_.bf16;
  product(matrix.group(first_group), stride, matrix.cols(), x.row(0), x.rows(),
          out, stride);
  return true;
}

bool CpuOps::UsesGemm(const PackedMatrix& matrix, int rows) const {
  if (deterministic_ || matrix.quantised()) return false;
  return rows >=
         (matrix.type == WeightType::kF32 ? kGemmRowsF32 : kGemmRows16Bits);
}

bool CpuOps::Gemm(const PackedMatrix& matrix, const Activations& x,
                  int first_group, int num_groups, Worker& worker,
                  float* out) const {
  const int outputs = num_groups * kGroupRows;
  const int64_t n = int64_t{outputs} * matrix.cols();
  const uint8_t* const stored = matrix.group(first_group);
  const float* weights = reinterpret_cast<const float*>(stored);
  if (matrix.type != WeightType::kF32) {
    const auto widen = matrix.type == WeightType::kF16 ? kernels_.widen_f16
                                                       : kernels_.widen_bf16;
    widen(reinterpret_cast<const uint16_t*>(stored), n, worker.wide.data());
    weights = worker.wide.data();
  }
  return FloatGemm(weights, outputs, matrix.cols(), x.row(0), x.rows(), out);
}

}  // namespace millrace::backends::onednn
