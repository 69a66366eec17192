#include "backends/cuda/ops.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backends/decoder/rope.h"

namespace millrace::backends::cuda {
namespace {

// Rows whose attention is taken together, and queries that they may have.
constexpr int kGroupRows = 8;
constexpr int kGroupQueries = 32;

// Parts of divided attention, in floats: 16 MiB.
constexpr int64_t kPartialFloats = 4 << 20;

// Thread blocks that attention should have for each multiprocessor.
constexpr int kBlocksPerMultiprocessor = 2;

// An image without tables of heads: its block tables name 2 million blocks,
// that is 32 million tokens, more than a GPU holds.
int64_t PlainImageBytes(int max_rows) {
  constexpr int64_t kBlockTables = 8 << 20, kRowBytes = 1 << 10;
  return kBlockTables +
         max_rows *
             (kRowBytes + RowSampling::kMaxAdjustments *
                              static_cast<int64_t>(sizeof(LogitAdjustment)));
}

// Of the first step and of one that is begun behind it, which has no tables.
std::array<int64_t, 2> ImageBytes(int max_rows) {
  const int64_t plain = PlainImageBytes(max_rows);
  return {plain + CudaOps::kHeadTableBytes, plain};
}

int64_t Aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

int RowWidth(int64_t numbers) {
  return static_cast<int>((numbers + kTileInputs - 1) / kTileInputs *
                          kTileInputs);
}

int HeadsPerKvHead(const ModelConfig& config) {
  return config.num_heads / config.num_kv_heads;
}

int GroupRows(const ModelConfig& config) {
  return std::clamp(kGroupQueries / HeadsPerKvHead(config), 1, kGroupRows);
}

// 0 where a head, or the shared memory, does not fit the tensor cores' blocks.
int TensorGroupRows(const ModelConfig& config, const Device& device) {
  const bool fits = config.head_dim <= kTensorHeadDim &&
                    kTensorAttentionBytes <= device.max_shared_bytes();
  return fits ? kTensorQueries / HeadsPerKvHead(config) : 0;
}

// 0 where a head, or how many share a KV head, is not for the kernel.
int DecodeGroupRows(const ModelConfig& config) {
  if (!IsDecodeHeadDim(config.head_dim)) return 0;
  return kDecodeQueries / HeadsPerKvHead(config);
}

int64_t PartFloats(const ModelConfig& config, int group_rows) {
  return int64_t{group_rows} * HeadsPerKvHead(config) * (config.head_dim + 2);
}

StepPlanOptions PlanOptions(const ModelConfig& config, int max_rows,
                            int group_rows, bool deterministic,
                            const Device& device) {
  return {
      .num_layers = config.num_layers,
      .num_kv_heads = config.num_kv_heads,
      .max_rows = max_rows,
      .group_rows = group_rows,
      .decode_group_rows = deterministic ? 0 : DecodeGroupRows(config),
      .tensor_group_rows = deterministic ? 0 : TensorGroupRows(config, device),
      .wanted_blocks = kBlocksPerMultiprocessor * device.num_multiprocessors(),
      .max_parts = kPartialFloats / PartFloats(config, group_rows),
      .max_decode_parts =
          kPartialFloats / (kDecodeQueries * (config.head_dim + 2))};
}

}  // namespace

// Offsets in bytes.
struct CudaOps::Layout {
  Layout(const ModelConfig& config, int max_rows)
      : embedding_width(RowWidth(config.embedding_size)),
        query_width(RowWidth(config.query_size())),
        kv_width(RowWidth(config.kv_size())),
        hidden_width(RowWidth(config.feed_forward_size)) {
    const auto take = [&](int64_t numbers, int64_t bytes_each = 4) {
      return std::exchange(bytes, bytes + Aligned(numbers * bytes_each));
    };
    const int64_t rows = max_rows;
    residual = take(rows * embedding_width);
    query = take(rows * query_width);
    keys = take(rows * kv_width);
    values = take(rows * kv_width);
    attended = take(rows * query_width);
    hidden = take(rows * hidden_width);
    logits = take(rows * config.vocabulary_size);
    row_statistics = take(2 * rows * config.num_heads);
    partials = take(kPartialFloats);
    arrived = take(rows * config.num_kv_heads);
    turns = take(config.head_dim / 2, sizeof(uint64_t));
    const int widest = std::max({embedding_width, query_width, hidden_width});
    halves = take(rows * widest, sizeof(uint16_t));
    factors = take(rows);
    for (int64_t& one : picked) one = take(rows);
  }

  int embedding_width, query_width, kv_width, hidden_width;
  int64_t residual, query, keys, values, attended, hidden, logits;
  int64_t row_statistics, partials, arrived, turns, halves, factors;
  std::array<int64_t, 2> picked;
  int64_t bytes = 0;
};

absl::StatusOr<std::unique_ptr<CudaOps>> CudaOps::Create(
    const ModelFile& file, const LoadOptions& load,
    std::shared_ptr<Device> device, bool deterministic) {
  const ModelConfig& config = file.config();
  const int group_rows = GroupRows(config);
  const int64_t shared = AttentionSharedBytes(
      group_rows * HeadsPerKvHead(config), RowWidth(config.head_dim));
  if (shared > device->max_shared_bytes()) {
    return absl::UnimplementedError(
        absl::StrCat("load the model: attention of ", HeadsPerKvHead(config),
                     " heads of ", config.head_dim, " numbers takes ", shared,
                     " bytes of shared memory, this GPU has ",
                     device->max_shared_bytes(), "; use another backend"));
  }
  absl::StatusOr<Weights> weights = LoadWeights(file, *device);
  if (!weights.ok()) return weights.status();
  const Layout layout(config, load.max_rows);
  absl::StatusOr<Memory> activations =
      device->Allocate(layout.bytes, "activations");
  if (!activations.ok()) return activations.status();
  absl::StatusOr<Memory> host_logits = device->AllocateHost(
      int64_t{4} * load.max_rows * config.vocabulary_size, "logits");
  if (!host_logits.ok()) return host_logits.status();
  const StepPlanOptions plan =
      PlanOptions(config, load.max_rows, group_rows, deterministic, *device);
  std::unique_ptr<CudaOps> ops(new CudaOps(
      config, *std::move(weights), layout, plan, deterministic,
      std::move(device), *std::move(activations), *std::move(host_logits)));
  if (deterministic) ops->halves_ = {};
  const auto image_bytes = ImageBytes(load.max_rows);
  for (size_t i = 0; i < image_bytes.size(); ++i) {
    const absl::Status ready = ops->Prepare(ops->steps_[i], image_bytes[i]);
    if (!ready.ok()) return ready;
  }
  return ops;
}

int64_t CudaOps::EstimateMemory(const ModelFile& file,
                                const LoadOptions& load) {
  return WeightBytes(file) + Layout(file.config(), load.max_rows).bytes +
         ImageBytes(load.max_rows)[0] + ImageBytes(load.max_rows)[1];
}

CudaOps::CudaOps(const ModelConfig& config, Weights weights,
                 const Layout& layout, const StepPlanOptions& plan,
                 bool deterministic, std::shared_ptr<Device> device,
                 Memory activations, Memory host_logits)
    : config_(config),
      device_(std::move(device)),
      weights_(std::move(weights)),
      max_rows_(plan.max_rows),
      activations_(std::move(activations)),
      host_logits_(std::move(host_logits)),
      steps_{Step(plan), Step(plan)} {
  const auto at = [&](int64_t offset) {
    return reinterpret_cast<float*>(activations_.get() + offset);
  };
  residual_ = {at(layout.residual), layout.embedding_width};
  query_ = {at(layout.query), layout.query_width};
  keys_ = {at(layout.keys), layout.kv_width};
  values_ = {at(layout.values), layout.kv_width};
  attended_ = {at(layout.attended), layout.query_width};
  hidden_ = {at(layout.hidden), layout.hidden_width};
  logits_ = {at(layout.logits), config.vocabulary_size};
  row_statistics_ = at(layout.row_statistics);
  partials_ = at(layout.partials);
  arrived_ = reinterpret_cast<int*>(at(layout.arrived));
  turns_ = reinterpret_cast<uint64_t*>(at(layout.turns));
  halves_ = {reinterpret_cast<uint16_t*>(at(layout.halves)),
             at(layout.factors)};
  for (size_t i = 0; i < steps_.size(); ++i) {
    steps_[i].picked = reinterpret_cast<int32_t*>(at(layout.picked[i]));
  }
  // What is beyond a row's width must be zero; and so must be `arrived`.
  device_->Clear(activations_.get(), layout.bytes);
  const Rope rope(config.head_dim, config.rope_base);
  device_->Copy(turns_, rope.steps().data(),
                static_cast<int64_t>(rope.steps().size() * sizeof(uint64_t)));
}

// ---- A step ----

absl::Status CudaOps::Prepare(Step& step, int64_t image_bytes) {
  absl::StatusOr<Memory> picked =
      device_->AllocateHost(int64_t{4} * max_rows_, "the tokens of a step");
  if (!picked.ok()) return picked.status();
  step.host_picked = *std::move(picked);
  absl::StatusOr<std::unique_ptr<Event>> done = device_->NewEvent();
  if (!done.ok()) return done.status();
  step.done = *std::move(done);
  return MakeImage(step, image_bytes);
}

absl::Status CudaOps::MakeImage(Step& step, int64_t bytes) {
  absl::StatusOr<Memory> image = device_->Allocate(bytes, "a step's image");
  if (!image.ok()) return image.status();
  absl::StatusOr<Memory> host = device_->AllocateHost(bytes, "a step's image");
  if (!host.ok()) return host.status();
  const absl::Status idle = device_->Synchronize();
  if (!idle.ok()) return idle;
  step.image = *std::move(image);
  step.host_image = *std::move(host);
  step.image_bytes = bytes;
  return idle;
}

absl::Status CudaOps::Begin(const Batch& batch, cache::KvStorage& kv) {
  if (unfinished_ > 0) {
    const absl::Status idle = device_->Synchronize();
    if (!idle.ok()) return idle;
  }
  newest_ = oldest_ = unfinished_ = 0;
  return BeginStep(batch, kv);
}

absl::Status CudaOps::BeginBehind(const Batch& batch, cache::KvStorage& kv) {
  newest_ = 1 - oldest_;
  return BeginStep(batch, kv);
}

absl::Status CudaOps::BeginStep(const Batch& batch, cache::KvStorage& kv) {
  kv_ = dynamic_cast<const DeviceKvStorage*>(&kv);
  if (kv_ == nullptr) {
    return absl::InvalidArgumentError(
        "begin a step: the KV storage is of another backend; use one that the "
        "cuda backend made");
  }
  const absl::Status settled = kv_->Settle();
  if (!settled.ok()) return settled;
  steps_[newest_].plan.Begin(batch, kv_->memory().dtype);
  sums_are_due_ = false;
  return Upload(steps_[newest_]);
}

// The step's image: through pinned memory, in one piece. Only the tables of a
// single chunk may be more than there is room for.
absl::Status CudaOps::Upload(Step& step) {
  const auto bytes = static_cast<int64_t>(step.plan.image().size());
  if (bytes > step.image_bytes) {
    const absl::Status made = MakeImage(step, bytes + bytes / 2);
    if (!made.ok()) return made;
  }
  std::memcpy(step.host_image.get(), step.plan.image().data(), bytes);
  device_->Copy(step.image.get(), step.host_image.get(), bytes);
  return absl::OkStatus();
}

void CudaOps::Embed() {
  device_->kernels().embed(device_->stream(), shape().rows,
                           {.step = header(),
                            .picked = before().picked,
                            .embedding = weights_.embedding,
                            .residual = residual_});
}

ProductArgs CudaOps::Product(Rows in, const float* norm, ProductEnd end) const {
  return {.step = header(),
          .wanted_rows = false,
          .max_rows = shape().rows,
          .in = in,
          .norm = norm,
          .epsilon = config_.rms_epsilon,
          .num_parts = 0,
          .parts = {},
          .end = end,
          .kv = {},
          .halves = halves_,
          .multiprocessors = device_->num_multiprocessors()};
}

void CudaOps::AttentionInput(int layer) {
  const LayerWeights& weights = weights_.layers[layer];
  ProductArgs product =
      Product(residual_, weights.attention_norm, ProductEnd::kStoreKv);
  product.num_parts = 3;
  product.parts[0] = {weights.query, query_};
  product.parts[1] = {weights.key, keys_};
  product.parts[2] = {weights.value, values_};
  product.kv = {.memory = kv_->memory(), .layer = layer, .turns = turns_};
  device_->kernels().product(device_->stream(), product);
}

AttentionArgs CudaOps::AttentionOf(int layer) const {
  const StepShape& shape = this->shape();
  return {.step = header(),
          .max_groups = shape.groups,
          .max_sections = shape.sections,
          .max_group_rows = shape.group_rows,
          .max_decode_groups = shape.decode_groups,
          .decode_blocks = shape.decode_blocks,
          .max_tensor_groups = shape.tensor_groups,
          .kv = kv_->memory(),
          .layer = layer,
          .num_heads = config_.num_heads,
          .query = query_,
          .attended = attended_,
          .turns = turns_,
          .scale = 1 / std::sqrt(static_cast<float>(config_.head_dim)),
          .row_statistics = row_statistics_,
          .partials = partials_,
          .arrived = arrived_};
}

void CudaOps::Attention(int layer) {
  const AttentionArgs args = AttentionOf(layer);
  const StepShape& shape = this->shape();
  if (shape.groups > 0) device_->kernels().attention(device_->stream(), args);
  if (shape.decode_groups > 0) {
    device_->kernels().decode_attention(device_->stream(), args);
  }
  if (shape.tensor_groups > 0) {
    device_->kernels().tensor_attention(device_->stream(), args);
  }
  if (shape.asking_chunks == 0) return;
  device_->kernels().attention_sums(device_->stream(),
                                    {.attention = args,
                                     .max_chunks = shape.asking_chunks,
                                     .max_positions = shape.asked_positions});
  sums_are_due_ = true;
}

void CudaOps::AttentionOutput(int layer) {
  ProductArgs product = Product(attended_, nullptr, ProductEnd::kAdd);
  product.num_parts = 1;
  product.parts[0] = {weights_.layers[layer].attention_output, residual_};
  device_->kernels().product(device_->stream(), product);
}

void CudaOps::FeedForwardIn(int layer) {
  const LayerWeights& weights = weights_.layers[layer];
  ProductArgs product =
      Product(residual_, weights.feed_forward_norm, ProductEnd::kGate);
  product.num_parts = 2;
  product.parts[0] = {weights.gate, hidden_};
  product.parts[1] = {weights.up, {}};
  device_->kernels().product(device_->stream(), product);
}

void CudaOps::FeedForwardOut(int layer) {
  ProductArgs product = Product(hidden_, nullptr, ProductEnd::kAdd);
  product.num_parts = 1;
  product.parts[0] = {weights_.layers[layer].down, residual_};
  device_->kernels().product(device_->stream(), product);
}

void CudaOps::EnqueueLogits() {
  if (shape().logits == 0) return;
  ProductArgs product =
      Product(residual_, weights_.output_norm, ProductEnd::kStore);
  product.wanted_rows = true;
  product.max_rows = shape().logits;
  product.num_parts = 1;
  product.parts[0] = {weights_.output, logits_};
  device_->kernels().product(device_->stream(), product);
  if (shape().picks == 0) return;
  device_->kernels().pick(device_->stream(),
                          {.step = product.step,
                           .max_picks = shape().picks,
                           .logits = logits_,
                           .vocabulary_size = config_.vocabulary_size,
                           .before = before().picked,
                           .ids = step().picked});
}

void CudaOps::EnqueueResults() {
  const Step& step = this->step();
  sums_are_due_ = step.plan.shape().asking_chunks > 0;
  const int picks = step.plan.num_picks();
  if (picks > 0) {
    device_->Copy(step.host_picked.get(), step.picked, int64_t{4} * picks);
  }
  device_->Record(*step.done);
  ++unfinished_;
}

absl::Status CudaOps::Finish(absl::Span<float> logits) {
  const Step& step = steps_[std::exchange(oldest_, 1 - oldest_)];
  --unfinished_;
  const auto bytes = static_cast<int64_t>(logits.size() * sizeof(float));
  if (bytes > 0) device_->Copy(host_logits_.get(), logits_.data, bytes);
  const absl::Status done =
      bytes > 0 || sums_are_due_ ? Settle() : device_->Wait(*step.done);
  if (!done.ok()) return done;
  if (bytes > 0) std::memcpy(logits.data(), host_logits_.get(), bytes);
  step.plan.KeepPicks({reinterpret_cast<const int32_t*>(step.host_picked.get()),
                       static_cast<size_t>(step.plan.num_picks())});
  return done;
}

absl::Status CudaOps::Logits(absl::Span<float> logits) {
  EnqueueLogits();
  EnqueueResults();
  return Finish(logits);
}

absl::Status CudaOps::Settle() const {
  const Step& step = this->step();
  const int64_t begin = step.plan.sums_begin(), end = step.plan.sums_end();
  const bool due = std::exchange(sums_are_due_, false);
  if (due) {
    device_->Copy(step.host_image.get() + begin, step.image.get() + begin,
                  end - begin);
  }
  const absl::Status settled = device_->Synchronize();
  if (due && settled.ok()) {
    step.plan.KeepSums(
        {step.host_image.get() + begin, static_cast<size_t>(end - begin)});
  }
  return settled;
}

CudaOps::GraphKey CudaOps::graph_key() const {
  return {shape(), newest_, step().image.get(), kv_->memory().data,
          kv_->memory().dtype};
}

// ---- Single operations ----

CudaOps::Buffer CudaOps::BufferOf(Activation which) const {
  switch (which) {
    case Activation::kResidual:
      return {residual_, config_.embedding_size};
    case Activation::kQuery:
      return {query_, static_cast<int>(config_.query_size())};
    case Activation::kAttended:
      return {attended_, static_cast<int>(config_.query_size())};
    case Activation::kHidden:
      break;
  }
  return {hidden_, config_.feed_forward_size};
}

void CudaOps::Read(Activation which, absl::Span<float> out) const {
  const auto [rows, width] = BufferOf(which);
  const int64_t n = static_cast<int64_t>(out.size()) / width;
  std::vector<float> all(n * rows.stride);
  device_->Copy(all.data(), rows.data,
                static_cast<int64_t>(all.size() * sizeof(float)));
  if (!Settle().ok()) return;  // Logits will say so
  for (int64_t row = 0; row < n; ++row) {
    std::copy_n(&all[row * rows.stride], width, &out[row * width]);
  }
}

void CudaOps::Write(Activation which, absl::Span<const float> in) {
  const auto [rows, width] = BufferOf(which);
  const int64_t n = static_cast<int64_t>(in.size()) / width;
  std::vector<float> all(n * rows.stride);
  for (int64_t row = 0; row < n; ++row) {
    std::copy_n(&in[row * width], width, &all[row * rows.stride]);
  }
  device_->Copy(rows.data, all.data(),
                static_cast<int64_t>(all.size() * sizeof(float)));
  device_->Synchronize().IgnoreError();  // Logits will say so
}

}  // namespace millrace::backends::cuda
