// A model on the emulated device: graphs, memory, errors.

#include "backends/cuda/model.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/cuda/backend.h"
#include "backends/cuda/kv_storage.h"
#include "cache/cache_manager.h"
#include "gmock/gmock.h"
#include "tests/testing/cuda_emulator/emulated_device.h"
#include "tests/testing/cuda_emulator/fiber_order.h"
#include "tests/testing/fake_model.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/model_runner.h"
#include "tests/testing/named_policy.h"

namespace millrace::backends::cuda {
namespace {

using ::testing::HasSubstr;
using testing::NamedPolicy;
using testing::RandomIds;
using testing::WeightType;

std::unique_ptr<const ModelFile> TinyModel() {
  return testing::OpenTinyLlama(
      {.embeddings = WeightType::kQ8_0, .matrices = WeightType::kQ4_1});
}

// A model, its storage, and one sequence that grows.
class CudaModelTest : public ::testing::Test {
 protected:
  static constexpr int kMaxRows = 40;
  static constexpr int kBlocks = 32;

  absl::Status Load(const EmulatedDeviceOptions& options = {}) {
    device_ = NewEmulatedDevice(options);
    backend_ = NewBackendOnDevice({}, device_).value();
    auto model = backend_->LoadModel(*file_, {.max_rows = kMaxRows});
    if (!model.ok()) return model.status();
    model_ = *std::move(model);
    const ModelConfig& config = model_->config();
    spec_ = {config.num_layers, config.num_kv_heads, config.head_dim,
             cache::KvDtype::kInt8};
    auto storage = backend_->CreateKvStorage(spec_, kBlocks);
    if (!storage.ok()) return storage.status();
    storage_ = *std::move(storage);
    manager_ =
        std::make_unique<cache::CacheManager>(spec_, kBlocks, storage_.get());
    sequence_ =
        manager_
            ->Open(
                {.policy = NamedPolicy("sinks:sink_tokens=4,window_tokens=60"),
                 .max_chunk_tokens = kMaxRows})
            .value();
    return absl::OkStatus();
  }

  // Reads `rows` tokens; keeps the last one's logits, or picks a token.
  absl::Status Step(int rows = 1, absl::Span<const RowSampling> sampling = {}) {
    const auto view = manager_->Reserve(sequence_, rows).value();
    const auto ids = RandomIds(rows, model_->config().vocabulary_size, 3);
    Batch batch;
    batch.chunks = {{.token_ids = ids,
                     .first_position = manager_->Length(sequence_),
                     .view = &view,
                     .num_logits = 1,
                     .sampling = sampling}};
    if (!sampling.empty()) batch.chunks[0].picked = {&picked_, 1};
    logits_.resize(model_->config().vocabulary_size);
    const absl::Status status =
        model_->Forward(batch, *storage_, absl::MakeSpan(logits_));
    manager_->Commit(sequence_);
    return status;
  }

  // Begins to read a token, the one that the step before picks if that has not
  // ended; then ends that one, and keeps what it has picked.
  absl::Status StepBehind(const RowSampling& sampling) {
    BegunStep& step = begun_[number_ % 2];
    const BegunStep& before = begun_[(number_ + 1) % 2];
    const bool is_first = number_++ == 0;
    step.view = manager_->Reserve(sequence_, 1).value();
    step.picked = -7;
    Batch batch;
    batch.chunks = {{.token_ids = kOneId,
                     .first_position = manager_->Length(sequence_),
                     .view = &step.view,
                     .num_logits = 1,
                     .sampling = {&sampling, 1},
                     .picked = {&step.picked, 1},
                     .picked_before = is_first ? -1 : 0}};
    const absl::Status begun = model_->step_queue()->Begin(batch, *storage_);
    manager_->Commit(sequence_);
    if (!begun.ok() || is_first) return begun;
    const absl::Status ended = model_->step_queue()->End({});
    picked_ = before.picked;
    EXPECT_EQ(step.picked, -7);  // it has not ended
    return ended;
  }

  static constexpr int32_t kOneId[] = {1};

  const std::unique_ptr<const ModelFile> file_ = TinyModel();
  std::shared_ptr<EmulatedDevice> device_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  cache::KvSpec spec_;
  std::unique_ptr<cache::KvStorage> storage_;
  std::unique_ptr<cache::CacheManager> manager_;
  cache::SequenceId sequence_;
  std::vector<float> logits_;
  int32_t picked_ = -1;
  // Of StepBehind.
  struct BegunStep {
    cache::KvView view;
    int32_t picked;
  };
  BegunStep begun_[2];
  int number_ = 0;
};

TEST_F(CudaModelTest, AStreamReplaysItsGraphAndAllocatesNothing) {
  ASSERT_TRUE(Load().ok());
  ASSERT_TRUE(Step(40).ok());
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(Step().ok());
  const EmulatedDeviceStats before = device_->stats();
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(Step().ok());
  const EmulatedDeviceStats after = device_->stats();
  EXPECT_EQ(after.launches - before.launches, 100);
  EXPECT_EQ(after.captures, before.captures);
  EXPECT_EQ(after.allocations, before.allocations);
  EXPECT_EQ(after.kernels, before.kernels);  // all of them in the graph
  EXPECT_LE(after.captures, 5);
}

TEST_F(CudaModelTest, PickingTokensReplaysAGraphAndAllocatesNothing) {
  ASSERT_TRUE(Load().ok());
  ASSERT_TRUE(Step(40).ok());
  RowSampling sampling = {.temperature = 1, .top_k = 50, .uniform = 0.3};
  ASSERT_TRUE(Step(1, {&sampling, 1}).ok());
  const EmulatedDeviceStats before = device_->stats();
  for (int i = 0; i < RowSampling::kMaxAdjustments; i += 16) {
    for (int j = 0; j < 16; ++j) sampling.adjustments.push_back({.id = i + j});
    picked_ = -1;
    ASSERT_TRUE(Step(1, {&sampling, 1}).ok());
    EXPECT_GE(picked_, 0);
  }
  EXPECT_EQ(device_->stats().allocations, before.allocations);
  EXPECT_LE(device_->stats().captures, before.captures + 1);  // a section more
}

// Two images take turns, so there are two graphs of each shape.
TEST_F(CudaModelTest, QueuedStepsReplayGraphsAndAllocateNothing) {
  ASSERT_TRUE(Load().ok());
  ASSERT_TRUE(Step(40).ok());
  const RowSampling sampling = {.temperature = 1, .uniform = 0.3};
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(StepBehind(sampling).ok());
  const EmulatedDeviceStats before = device_->stats();
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(StepBehind(sampling).ok());
    EXPECT_GE(picked_, 0);
  }
  EXPECT_EQ(device_->stats().launches - before.launches, 100);
  EXPECT_EQ(device_->stats().captures, before.captures);
  EXPECT_EQ(device_->stats().allocations, before.allocations);
}

TEST_F(CudaModelTest, AnErrorOfTheDeviceEndsAllStepsThatWereBegun) {
  ASSERT_TRUE(Load().ok());
  const RowSampling sampling;
  ASSERT_TRUE(StepBehind(sampling).ok());
  ASSERT_TRUE(StepBehind(sampling).ok());
  device_->Break();
  EXPECT_EQ(StepBehind(sampling).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(model_->step_queue()->End({}).code(), absl::StatusCode::kInternal);
}

// Of steps of three sequences that choose by attention: rows of logits.
std::vector<testing::Rows> StepsThatChoose(const ModelFile& file,
                                           int64_t table_bytes,
                                           int64_t* launches) {
  const auto device = NewEmulatedDevice();
  const auto backend = NewBackendOnDevice({.deterministic = true}, device);
  auto ops = CudaOps::Create(file, {.max_rows = 64}, device, true);
  const auto model = NewGraphModel(*std::move(ops), table_bytes);
  const ModelConfig& config = model->config();
  const cache::KvSpec spec = {config.num_layers, config.num_kv_heads,
                              config.head_dim, cache::KvDtype::kF16};
  const auto storage = (*backend)->CreateKvStorage(spec, 64).value();
  cache::CacheManager manager(spec, 64, storage.get());
  std::vector<cache::SequenceId> ids;
  for (int i = 0; i < 3; ++i) {
    ids.push_back(manager
                      .Open({.policy = NamedPolicy("tova:budget_tokens=20"),
                             .max_chunk_tokens = 20})
                      .value());
  }
  std::vector<testing::Rows> steps;
  for (int step = 0; step < 30; ++step) {
    const int rows = step == 0 ? 18 : 1;
    const auto tokens = RandomIds(rows, config.vocabulary_size, step);
    std::vector<cache::KvView> views;
    for (const auto id : ids) {
      manager.SetInputEnd(id, 18);
      views.push_back(manager.Reserve(id, rows).value());
    }
    Batch batch;
    for (int i = 0; i < 3; ++i) {
      batch.chunks.push_back({.token_ids = tokens,
                              .first_position = manager.Length(ids[i]),
                              .view = &views[i],
                              .num_logits = i == 1 ? 0 : 1});
    }
    std::vector<float> logits(2 * config.vocabulary_size);
    EXPECT_TRUE(model->Forward(batch, *storage, absl::MakeSpan(logits)).ok());
    for (const auto id : ids) manager.Commit(id);
    const auto half = logits.begin() + config.vocabulary_size;
    steps.push_back({{logits.begin(), half}, {half, logits.end()}});
  }
  *launches = device->stats().launches;
  return steps;
}

TEST_F(CudaModelTest, AStepInPiecesIsTheSame) {
  int64_t whole = 0, in_pieces = 0;
  const auto steps = StepsThatChoose(*file_, 64 << 20, &whole);
  EXPECT_EQ(StepsThatChoose(*file_, 1, &in_pieces), steps);
  EXPECT_EQ(whole, 30);
  EXPECT_GT(in_pieces, 60);
}

TEST_F(CudaModelTest, TheOrderOfThreadsDoesNotMatter) {
  std::vector<std::vector<float>> results;
  for (const auto order :
       {emulated::FiberOrder::kAscending, emulated::FiberOrder::kDescending}) {
    emulated::SetFiberOrder(order);
    ASSERT_TRUE(Load().ok());
    ASSERT_TRUE(Step(33).ok());
    for (int i = 0; i < 40; ++i) ASSERT_TRUE(Step(1 + i % 3).ok());
    results.push_back(logits_);
  }
  emulated::SetFiberOrder(emulated::FiberOrder::kAscending);
  EXPECT_EQ(results[0], results[1]);
}

TEST_F(CudaModelTest, TheEstimateIsAnUpperBound) {
  for (const bool quantised : {true, false}) {
    const auto file = quantised
                          ? TinyModel()
                          : testing::OpenTinyLlama({.num_heads = 3,
                                                    .num_kv_heads = 1,
                                                    .head_dim = 10,
                                                    .embedding_size = 30,
                                                    .feed_forward_size = 50,
                                                    .tied_embedding = false});
    for (const int rows : {1, 7, 200}) {
      const auto device = NewEmulatedDevice();
      const auto backend = NewBackendOnDevice({}, device).value();
      const auto model = backend->LoadModel(*file, {.max_rows = rows});
      ASSERT_TRUE(model.ok());
      EXPECT_LE(device->stats().most,
                backend->EstimateMemory(*file, {.max_rows = rows}));
      EXPECT_GE(device->stats().most * 2,
                backend->EstimateMemory(*file, {.max_rows = rows}));
    }
  }
}

TEST_F(CudaModelTest, AModelThatDoesNotFitSaysHowMuchIsMissing) {
  const absl::Status status = Load({.memory = 100 << 10});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("bytes of the GPU, of which"));
  EXPECT_EQ(
      NewEmulatedDevice({.memory = 300})
          ->Allocate(1000, "weights")
          .status()
          .message(),
      "allocate weights: 1000 bytes of the GPU, of which 300 are free: 700 "
      "are missing; ask for less");
}

TEST_F(CudaModelTest, AnErrorOfTheDeviceIsInternal) {
  ASSERT_TRUE(Load().ok());
  ASSERT_TRUE(Step(10).ok());
  device_->Break();
  const absl::Status status = Step();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(status.message(), HasSubstr("run on the GPU"));
}

TEST_F(CudaModelTest, AnotherBackendsStorageIsRefused) {
  ASSERT_TRUE(Load().ok());
  storage_ = std::make_unique<testing::FakeKvStorage>(kBlocks);
  EXPECT_EQ(Step().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CudaModelTest, MovesThatFollowOneAnotherAreDoneInOrder) {
  ASSERT_TRUE(Load().ok());
  std::vector<float> numbers(CanonicalBlockValues(spec_));
  const int row = spec_.num_kv_heads * spec_.head_dim;
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = i / row;
  ASSERT_TRUE(storage_->WriteBlocks({0}, numbers).ok());
  // The key in slot 2 goes to 1, and from there to 0.
  ASSERT_TRUE(storage_->MoveSlots(0, 0, {{{0, 2}, {0, 1}}}).ok());
  ASSERT_TRUE(storage_->MoveSlots(0, 0, {{{0, 1}, {0, 0}}}).ok());
  std::vector<float> moved(numbers.size());
  ASSERT_TRUE(storage_->ReadBlocks({0}, absl::MakeSpan(moved)).ok());
  for (int d = 0; d < spec_.head_dim; ++d) EXPECT_NEAR(moved[d], 2, 1e-3);
}

}  // namespace
}  // namespace millrace::backends::cuda
