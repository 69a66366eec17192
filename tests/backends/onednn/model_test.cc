// Tiny models on this backend, with every table of kernels that this machine
// can run: what a row gives depends on its text alone, bit by bit.
#include <memory>
#include <string>
#include <vector>

#include "backends/onednn/backend.h"
#include "backends/onednn/cpu_kernels.h"
#include "cache/cache_manager.h"
#include "cache/head_table.h"
#include "gtest/gtest.h"
#include "tests/backends/onednn/allocation_count.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/model_runner.h"
#include "tests/testing/named_policy.h"

namespace millrace::backends {
namespace {

using cache::KvDtype;
using testing::ModelRunner;
using testing::NamedPolicy;
using testing::RandomIds;
using testing::Rows;

constexpr int kTokens = 150;  // three segments of 64 positions

std::unique_ptr<const ModelFile> TinyModel(WeightType matrices) {
  return testing::OpenTinyLlama({.num_heads = 6,
                                 .num_kv_heads = 2,
                                 .embedding_size = 96,
                                 .embeddings = matrices == WeightType::kQ4_1
                                                   ? WeightType::kQ8_0
                                                   : matrices,
                                 .matrices = matrices});
}

std::unique_ptr<ModelRunner> Runner(const ModelFile& file,
                                    const std::string& kernels, int threads,
                                    KvDtype dtype = KvDtype::kF16,
                                    bool deterministic = true) {
  return *ModelRunner::Create(
      file, {.backend = "onednn",
             .backend_options = {.num_threads = threads,
                                 .cpu_kernels = kernels,
                                 .deterministic = deterministic},
             .kv_dtype = dtype,
             .num_blocks = 1200});
}

Rows ReadAll(ModelRunner& runner, const std::string& policy, int chunk) {
  const cache::SequenceId id = runner.Open(NamedPolicy(policy));
  const std::vector<int32_t> ids =
      RandomIds(kTokens, runner.config().vocabulary_size, 3);
  Rows rows = runner.Read(id, ids, chunk);
  runner.manager().Close(id);
  return rows;
}

class OnednnModelTest : public ::testing::TestWithParam<WeightType> {
 protected:
  const std::unique_ptr<const ModelFile> file_ = TinyModel(GetParam());
};

TEST_P(OnednnModelTest, ChunksAndThreadsDoNotChangeABit) {
  for (const onednn::Kernels* kernels : onednn::SupportedKernels()) {
    for (const auto& [dtype, name, bytes, scaled] : cache::kKvDtypes) {
      for (const std::string policy :
           {"full", "sinks:sink_tokens=4,window_tokens=60"}) {
        const Rows expected =
            ReadAll(*Runner(*file_, kernels->name, 1, dtype), policy, 128);
        for (const int threads : {1, 2, 5}) {
          const auto runner = Runner(*file_, kernels->name, threads, dtype);
          for (const int chunk : {1, 7, 64}) {
            EXPECT_EQ(ReadAll(*runner, policy, chunk), expected)
                << kernels->name << ", " << threads << " threads, " << name
                << ", " << policy << " in chunks of " << chunk;
          }
        }
      }
    }
  }
}

TEST_P(OnednnModelTest, BatchMatesDoNotChangeABit) {
  const auto runner = Runner(*file_, "auto", 2);
  const int vocabulary = runner->config().vocabulary_size;
  const Rows expected = ReadAll(*runner, "full", 1);
  const std::vector<int32_t> ids = RandomIds(kTokens, vocabulary, 3);
  const cache::SequenceId id = runner->Open(NamedPolicy("full"));
  const cache::SequenceId mate =
      runner->Open(NamedPolicy("window:window_tokens=9"));
  for (int t = 0; t < kTokens; ++t) {
    const std::vector<Rows> step = runner->Step(
        {{mate, RandomIds(1 + t % 40, vocabulary, 100 + t)}, {id, {ids[t]}}});
    ASSERT_EQ(step[1][0], expected[t]) << "token " << t;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, OnednnModelTest,
                         ::testing::Values(WeightType::kQ4_0, WeightType::kQ4_1,
                                           WeightType::kQ8_0, WeightType::kF32,
                                           WeightType::kF16, WeightType::kBF16),
                         [](const auto& info) {
                           return std::string(WeightTypeName(info.param));
                         });

TEST(OnednnBackendTest, VectorTablesAgreeBitByBit) {
  const auto file = TinyModel(WeightType::kQ4_1);
  Rows expected;
  for (const onednn::Kernels* kernels : onednn::SupportedKernels()) {
    const Rows rows = ReadAll(*Runner(*file, kernels->name, 1), "full", 64);
    if (expected.empty()) expected = rows;
    if (std::string(kernels->name) == "scalar") {  // attention without FMA
      EXPECT_LT(testing::MaxDifference(rows, expected), 2e-2);
    } else {
      EXPECT_EQ(rows, expected) << kernels->name;
    }
  }
}

TEST(OnednnBackendTest, OneDnnAgreesWithOurOwnProducts) {
  for (const WeightType type :
       {WeightType::kF32, WeightType::kF16, WeightType::kBF16}) {
    const auto file = TinyModel(type);
    const Rows own = ReadAll(*Runner(*file, "auto", 2), "full", 64);
    const Rows gemm = ReadAll(
        *Runner(*file, "auto", 2, KvDtype::kF16, /*deterministic=*/false),
        "full", 64);
    EXPECT_LT(testing::MaxDifference(own, gemm), 2e-3) << WeightTypeName(type);
  }
}

TEST(OnednnBackendTest, AStepAllocatesNothing) {
  const auto file = TinyModel(WeightType::kQ4_1);
  auto backend = *NewOnednnBackend({.num_threads = 2});
  auto model = *backend->LoadModel(*file, {});
  const ModelConfig& config = model->config();
  const cache::KvSpec spec = {config.num_layers, config.num_kv_heads,
                              config.head_dim, KvDtype::kF16};
  auto storage = *backend->CreateKvStorage(spec, 64);
  cache::CacheManager manager(spec, 64);
  const cache::SequenceId id = *manager.Open(
      {.policy = NamedPolicy("sinks:sink_tokens=4,window_tokens=60")});
  std::vector<float> logits(config.vocabulary_size);
  cache::HeadTable<float> sums(spec.num_layers, spec.num_kv_heads, 256);
  int allocations = 0;
  const auto forward = [&](int64_t t, std::vector<int32_t> ids) {
    cache::KvView view = *manager.Reserve(id, ids.size());
    if (t % 2 == 0) view.attention = {{ids.begin(), ids.end()}, 0.9f, &sums};
    Batch batch;
    batch.chunks.push_back({ids, t, &view, 1});
    const int before = AllocationCount();
    const absl::Status status =
        model->Forward(batch, *storage, absl::MakeSpan(logits));
    allocations += AllocationCount() - before;
    EXPECT_TRUE(status.ok()) << status;
    manager.Commit(id);
  };
  for (int64_t t = 0; t < 128; t += 32) forward(t, std::vector<int32_t>(32, 5));
  for (int64_t t = 128; t < 160; ++t) forward(t, {7});
  allocations = 0;
  for (int64_t t = 160; t < 200; ++t) forward(t, {9});
  forward(200, std::vector<int32_t>(32, 5));
  EXPECT_EQ(allocations, 0);
}

TEST(OnednnBackendTest, RefusesNoThreads) {
  const absl::Status status = NewOnednnBackend({.num_threads = 0}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find("0 threads"), std::string::npos);
}

TEST(OnednnBackendTest, SaysWhatItRunsOn) {
  auto backend = *NewOnednnBackend({.num_threads = 3, .cpu_kernels = "scalar"});
  EXPECT_EQ(backend->Name(), "onednn");
  EXPECT_EQ(backend->DeviceInfo(), "CPU, scalar kernels, 3 threads");
}

}  // namespace
}  // namespace millrace::backends
