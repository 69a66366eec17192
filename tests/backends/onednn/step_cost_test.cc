// What a step costs, in numbers that no machine changes: phases of all threads,
// bytes of weights and tiles of keys and values that are read.
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "backends/decoder/decoder.h"
#include "backends/onednn/cpu_kernels.h"
#include "backends/onednn/kv_storage.h"
#include "backends/onednn/ops.h"
#include "backends/onednn/packed_matrix.h"
#include "cache/cache_manager.h"
#include "gtest/gtest.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/model_runner.h"
#include "tests/testing/named_policy.h"

namespace millrace::backends::onednn {
namespace {

using testing::NamedPolicy;

constexpr int kLayers = 3;
constexpr int kKvHeads = 2;
constexpr int kBlocks = 600;  // the most that `full` may want

// What the kernels of a step were given.
struct Seen {
  std::multiset<const void*> q4_1_groups, q8_0_groups;
  std::set<const void*> key_tiles, value_tiles;
};
std::mutex mutex;  // guards `seen` while a step runs
Seen seen;
const Kernels* real = nullptr;

template <auto kProduct, auto kGroups>
void CountGroup(const uint8_t* group, int blocks, const QuantisedPanel& x,
                int tokens, float* out, ptrdiff_t stride) {
  {
    const std::lock_guard lock(mutex);
    (seen.*kGroups).insert(group);
  }
  (real->*kProduct)(group, blocks, x, tokens, out, stride);
}

template <auto kScores>
void CountKeys(const AttentionQueries& queries, int head_dim,
               const void* const* keys, int begin, int end,
               const void* const* next_keys, float* scores) {
  {
    const std::lock_guard lock(mutex);
    seen.key_tiles.insert(keys + begin, keys + end);
  }
  (real->*kScores)(queries, head_dim, keys, begin, end, next_keys, scores);
}

template <auto kValues>
void CountValues(const float* probabilities, int num_queries, int head_dim,
                 const void* const* values, int first, int last,
                 const void* const* next_values, float* out) {
  {
    const std::lock_guard lock(mutex);
    seen.value_tiles.insert(values, values + kSegmentTiles);
  }
  (real->*kValues)(probabilities, num_queries, head_dim, values, first, last,
                   next_values, out);
}

const Kernels& CountingKernels() {
  static const Kernels kernels = [] {
    real = *ChooseKernels("auto");
    Kernels counting = *real;
    counting.q4_1 = CountGroup<&Kernels::q4_1, &Seen::q4_1_groups>;
    counting.q8_0 = CountGroup<&Kernels::q8_0, &Seen::q8_0_groups>;
    counting.scores_int8 = CountKeys<&Kernels::scores_int8>;
    counting.scores_f16 = CountKeys<&Kernels::scores_f16>;
    counting.values_int8 = CountValues<&Kernels::values_int8>;
    counting.values_f16 = CountValues<&Kernels::values_f16>;
    return counting;
  }();
  return kernels;
}

class StepCostTest : public ::testing::Test {
 protected:
  void Load(int threads) {
    auto ops = *CpuOps::Create(*file_, {}, {.num_threads = threads},
                               CountingKernels());
    ops_ = ops.get();
    model_ = NewDecoder(std::move(ops));
  }

  void Open(const std::string& policy) {
    id_ = *manager_.Open({.policy = NamedPolicy(policy)});
  }

  // Reads `tokens` more in one step, with logits of the last.
  void Step(int tokens) {
    seen = {};
    const std::vector<int32_t> ids(tokens, 7);
    const cache::KvView view = *manager_.Reserve(id_, tokens);
    Batch batch;
    batch.chunks.push_back({ids, manager_.Length(id_), &view, 1});
    std::vector<float> logits(file_->config().vocabulary_size);
    const int64_t before = ops_->num_phases();
    const absl::Status status =
        model_->Forward(batch, *storage_, absl::MakeSpan(logits));
    ASSERT_TRUE(status.ok()) << status;
    phases_ = ops_->num_phases() - before;
    manager_.Commit(id_);
  }

  const std::unique_ptr<const ModelFile> file_ =
      testing::OpenTinyLlama({.num_layers = kLayers,
                              .num_kv_heads = kKvHeads,
                              .embeddings = WeightType::kQ8_0,
                              .matrices = WeightType::kQ4_1});
  const cache::KvSpec spec_ = {kLayers, kKvHeads, file_->config().head_dim,
                               cache::KvDtype::kInt8};
  const std::unique_ptr<cache::KvStorage> storage_ =
      *TiledKvStorage::Create(spec_, kBlocks, &CountingKernels());
  cache::CacheManager manager_{spec_, kBlocks};
  CpuOps* ops_ = nullptr;
  std::unique_ptr<Model> model_;
  cache::SequenceId id_ = 0;
  int64_t phases_ = 0;
};

TEST_F(StepCostTest, AOneRowStepHasFivePhasesALayerAndOneForLogits) {
  Load(/*threads=*/2);
  Open("full");
  Step(64);
  Step(1);
  EXPECT_EQ(phases_, 5 * kLayers + 1);
}

TEST_F(StepCostTest, ManyRowsHaveAPhaseMoreBeforeEachProduct) {
  Load(/*threads=*/2);
  Open("full");
  Step(64);
  // Four products a layer, the rounding of keys and values, and embedding.
  EXPECT_EQ(phases_, (5 + 4 + 1) * kLayers + 1 + 1);
}

TEST_F(StepCostTest, OneThreadWaitsForNobody) {
  Load(/*threads=*/1);
  Open("full");
  Step(1);
  EXPECT_EQ(phases_, 0);
}

// 16 outputs a group: 64, 32 and 32 for queries, keys and values; 64 after
// attention; 96, 96 and 64 of feed-forward; 320 tokens.
constexpr size_t kGroupsOfLayer = (64 + 32 + 32 + 64 + 96 + 96 + 64) / 16;
constexpr size_t kGroupsOfLogits = 320 / 16;

TEST_F(StepCostTest, AOneRowStepReadsEachGroupOfWeightsOnce) {
  Load(/*threads=*/1);
  Open("full");
  Step(1);
  EXPECT_EQ(seen.q4_1_groups.size(), kLayers * kGroupsOfLayer);
  EXPECT_EQ(seen.q8_0_groups.size(), kGroupsOfLogits);
  EXPECT_EQ(std::set(seen.q4_1_groups.begin(), seen.q4_1_groups.end()).size(),
            kLayers * kGroupsOfLayer);
}

// The weights as the file has them, and nothing beside.
TEST(PackedMatrixTest, WeightsTakeTheBytesOfTheFile) {
  for (const WeightType type : {WeightType::kQ4_1, WeightType::kQ8_0}) {
    EXPECT_EQ(GroupBytes(type, 64), kGroupRows * RowBytes(type, 64))
        << WeightTypeName(type);
  }
}

TEST_F(StepCostTest, ManyRowsReadAGroupOnceForEightOfThem) {
  Load(/*threads=*/1);
  Open("full");
  Step(64);
  EXPECT_EQ(seen.q4_1_groups.size(), 8 * kLayers * kGroupsOfLayer);
  for (const void* group : seen.q4_1_groups) {
    ASSERT_EQ(seen.q4_1_groups.count(group), 8u);
  }
}

TEST_F(StepCostTest, AttentionReadsTheTilesOfTheTextAndNoOther) {
  Load(/*threads=*/1);
  Open("full");
  Step(64);
  Step(36);
  Step(1);  // 101 tokens: 7 blocks of 16
  EXPECT_EQ(seen.key_tiles.size(), 7u * kLayers * kKvHeads);
  EXPECT_EQ(seen.value_tiles.size(), 7u * kLayers * kKvHeads);
}

TEST_F(StepCostTest, UnderSinksItReadsSinksAndWindowHoweverLongTheTextIs) {
  Load(/*threads=*/1);
  Open("sinks:sink_tokens=4,window_tokens=60");
  for (int i = 0; i < 10; ++i) Step(64);
  Step(1);  // row 640 sees 0 .. 3 and 581 .. 640: blocks 36 to 40
  EXPECT_EQ(seen.key_tiles.size(), (1u + 5u) * kLayers * kKvHeads);
  EXPECT_EQ(seen.value_tiles.size(), (1u + 5u) * kLayers * kKvHeads);
}

}  // namespace
}  // namespace millrace::backends::onednn
