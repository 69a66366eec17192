// What every backend's operations promise (backends/ops.h): the results of the
// reference backend, at the default model's shapes and at odd ones, with every
// weight type and every kind of batch.

#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backends/ops.h"
#include "gtest/gtest.h"
#include "tests/contract/ops_pair.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/rounded.h"

namespace millrace::testing {
namespace {

using backends::Activation;
using backends::Ops;
using cache::KvDtype;

// ---- Models ----

TinyLlamaOptions DefaultShape(WeightType type) {
  TinyLlamaOptions options;
  options.num_layers = 1;
  options.num_heads = 9;
  options.num_kv_heads = 3;
  options.head_dim = 64;
  options.embedding_size = 576;
  options.feed_forward_size = 1536;
  options.rope_base = 100000;
  options.matrices = options.embeddings = type;
  return options;
}

// Nothing is a multiple of a vector; one KV head for all.
TinyLlamaOptions OddShape(WeightType type) {
  TinyLlamaOptions options;
  options.num_heads = 3;
  options.num_kv_heads = 1;
  options.head_dim = 10;
  options.embedding_size = 30;
  options.feed_forward_size = 50;
  options.vocabulary_size = 261;
  options.tied_embedding = false;
  options.matrices = options.embeddings = type;
  return options;
}

// The largest heads, eight to a KV head.
TinyLlamaOptions LargeHeads() {
  TinyLlamaOptions options;
  options.num_layers = 1;
  options.num_heads = 8;
  options.num_kv_heads = 1;
  options.head_dim = 128;
  options.embedding_size = 64;
  options.feed_forward_size = 64;
  return options;
}

// As odd as blocks of 32 allow; as many KV heads as query heads.
TinyLlamaOptions OddBlocks(WeightType type) {
  TinyLlamaOptions options;
  options.num_heads = 4;
  options.num_kv_heads = 4;
  options.head_dim = 24;
  options.embedding_size = 96;
  options.feed_forward_size = 160;
  options.vocabulary_size = 263;
  options.matrices = options.embeddings = type;
  return options;
}

TinyLlamaOptions TheDefaultModel() {
  TinyLlamaOptions options = DefaultShape(WeightType::kQ4_1);
  options.embeddings = WeightType::kQ8_0;
  options.vocabulary_size = 49152;
  return options;
}

// Neighbouring matrices of unequal types.
TinyLlamaOptions MixedTypes() {
  TinyLlamaOptions options;
  options.matrices = WeightType::kQ4_1;
  options.weight_types = {{"attn_q", WeightType::kQ4_0},
                          {"attn_k", WeightType::kF16},
                          {"attn_v", WeightType::kQ8_0},
                          {"ffn_up", WeightType::kF32},
                          {"blk.1.ffn_down", WeightType::kBF16}};
  return options;
}

struct NamedModel {
  std::string name;
  TinyLlamaOptions options;
  // One of the few that show every type and shape: slow backends run these.
  bool is_essential = false;

  friend std::ostream& operator<<(std::ostream& out, const NamedModel& model) {
    return out << model.name;
  }
};

std::vector<NamedModel> Models() {
  std::vector<NamedModel> models = {{"TheDefaultModel", TheDefaultModel()},
                                    {"MixedTypes", MixedTypes(), true},
                                    {"LargeHeads", LargeHeads(), true}};
  for (const WeightType type :
       {WeightType::kF32, WeightType::kF16, WeightType::kBF16}) {
    const std::string name(WeightTypeName(type));
    models.push_back({"Default" + name, DefaultShape(type)});
    models.push_back({"Odd" + name, OddShape(type), type == WeightType::kF32});
  }
  for (const WeightType type :
       {WeightType::kQ8_0, WeightType::kQ4_0, WeightType::kQ4_1}) {
    const std::string name(WeightTypeName(type));
    models.push_back(
        {"Default" + name, DefaultShape(type), type == WeightType::kQ4_1});
    models.push_back({"Odd" + name, OddBlocks(type), false});
  }
  return models;
}

bool IsQuantised(WeightType type) { return backends::BlockElements(type) > 1; }

// Files are made once for all tests and backends.
const backends::ModelFile& File(const NamedModel& model) {
  static auto* files =
      new std::map<std::string, std::unique_ptr<const backends::ModelFile>>;
  auto& file = (*files)[model.name];
  if (file == nullptr) file = OpenTinyLlama(model.options);
  return *file;
}

// ---- Batches ----

constexpr char kFull[] = "full:max_tokens=200";
constexpr char kLong[] = "full:max_tokens=1300";
constexpr char kWindow[] = "window:window_tokens=20";
constexpr char kSinks[] = "sinks:sink_tokens=4,window_tokens=30";
constexpr char kPinned[] = "sinks:sink_tokens=4,window_tokens=50,pin_tokens=21";

// The first rows of a text, of every number that kernels may treat apart.
std::vector<std::vector<ChunkSpec>> Batches() {
  std::vector<std::vector<ChunkSpec>> batches;
  for (const int rows : {1, 2, 7, 8, 9, 15, 16, 17, 64, 65, 128}) {
    batches.push_back({{kFull, 0, rows, rows}});
  }
  // One decode step far on: one run, a window, two runs with a cap, a shift.
  for (const char* policy : {kFull, kWindow, kSinks, kPinned}) {
    batches.push_back({{policy, 133, 1, 1}});
  }
  batches.push_back({{kSinks, 133, 1, 1, 5}});
  // Chunks that overflow while they are read; wanted logits of some rows.
  batches.push_back({{kWindow, 15, 40, 0}});
  batches.push_back({{kSinks, 10, 70, 3}});
  batches.push_back({{kPinned, 131, 33, 33}});
  // Decode rows and prefill chunks of several sequences in one step.
  batches.push_back({{kSinks, 133, 1, 1},
                     {kFull, 7, 1, 1},
                     {kPinned, 99, 17, 0},
                     {kWindow, 61, 1, 1, 3},
                     {kFull, 0, 30, 2}});
  return batches;
}

// Far more than attention takes at once: a decode row, chunks with and without
// tensor cores.
std::vector<std::vector<ChunkSpec>> LongBatches() {
  return {{{kLong, 1130, 1, 1}},
          {{kLong, 1130, 9, 0}},
          {{kLong, 1130, 64, 0}},
          {{kLong, 1001, 128, 0}}};
}

class OpsContract : public ::testing::TestWithParam<
                        std::tuple<BackendUnderTest, NamedModel>> {
 protected:
  void SetUp() override {
    const BackendUnderTest& backend = std::get<0>(GetParam());
    const auto runs = backend.new_ops(File(std::get<1>(GetParam())),
                                      {.max_rows = 1}, backend.Options(1));
    if (absl::IsFailedPrecondition(runs.status())) {
      GTEST_SKIP() << runs.status().message();
    }
    ASSERT_TRUE(runs.ok()) << runs.status();
  }

  // Floats are summed in any order. 8 bits for an activation are off by up to
  // 1/254 of the largest of 32; many such errors mostly cancel.
  double Product(absl::string_view tensor) const {
    const auto& [backend, model] = GetParam();
    const auto view = File(model).FindTensor(absl::StrCat(tensor, ".weight"));
    return backend.int8_activations && IsQuantised(view->type)
               ? 0.02
               : backend.product_tolerance;
  }
  double LayerProduct(int layer, std::vector<std::string> tensors) const {
    double largest = 0;
    for (const std::string& tensor : tensors) {
      largest =
          std::max(largest, Product(absl::StrCat("blk.", layer, ".", tensor)));
    }
    return largest;
  }
  int num_layers() const { return std::get<1>(GetParam()).options.num_layers; }

  // Calls `test` for every batch, begun.
  void ForEachBatch(KvDtype dtype, absl::FunctionRef<void(OpsPair&)> test) {
    ForEach(Batches(), dtype, test);
  }
  void ForEach(const std::vector<std::vector<ChunkSpec>>& batches,
               KvDtype dtype, absl::FunctionRef<void(OpsPair&)> test) {
    const auto& [backend, model] = GetParam();
    OpsPair pair(backend, File(model), dtype, /*num_threads=*/2);
    for (size_t i = 0; i < batches.size(); ++i) {
      SCOPED_TRACE(absl::StrCat(
          "batch ", i, ", first chunk: ", batches[i][0].policy, ", history ",
          batches[i][0].history, ", rows ", batches[i][0].rows));
      pair.Begin(batches[i], i);
      test(pair);
    }
  }
};

TEST_P(OpsContract, EmbedLooksUpRows) {
  ForEachBatch(KvDtype::kF32, [&](OpsPair& pair) {
    pair.Run([](Ops& ops) { ops.Embed(); });
    pair.ExpectChanged(Activation::kResidual, 1e-6);
  });
}

TEST_P(OpsContract, AttentionInputProjectsRotatesAndStores) {
  const int layer = num_layers() - 1;
  ForEachBatch(KvDtype::kF32, [&](OpsPair& pair) {
    pair.Run([&](Ops& ops) { ops.AttentionInput(layer); });
    pair.ExpectChanged(Activation::kQuery, LayerProduct(layer, {"attn_q"}));
    pair.ExpectStored(layer, LayerProduct(layer, {"attn_k", "attn_v"}));
  });
}

TEST_P(OpsContract, AttentionInputRoundsToTheStoragesDtype) {
  for (const auto& [dtype, name, bytes, scaled] : cache::kKvDtypes) {
    SCOPED_TRACE(name);
    ForEachBatch(dtype, [&](OpsPair& pair) {
      pair.Run([&](Ops& ops) { ops.AttentionInput(0); });
      pair.ExpectStored(0,
                        LayerProduct(0, {"attn_k", "attn_v"}) + Spacing(dtype));
    });
  }
}

TEST_P(OpsContract, AttentionSeesWhatTheRunsSay) {
  for (const auto& [dtype, name, bytes, scaled] : cache::kKvDtypes) {
    SCOPED_TRACE(name);
    ForEachBatch(dtype, [&](OpsPair& pair) {
      pair.Run([&](Ops& ops) { ops.Attention(num_layers() - 1); });
      pair.ExpectChanged(Activation::kAttended,
                         std::get<0>(GetParam())
                             .AttentionTolerance(dtype, pair.LargestChunk()));
      pair.ExpectNothingStored();
    });
  }
}

TEST_P(OpsContract, AttentionSeesALongHistory) {
  for (const KvDtype dtype : {KvDtype::kF16, KvDtype::kInt8}) {
    SCOPED_TRACE(static_cast<int>(dtype));
    ForEach(LongBatches(), dtype, [&](OpsPair& pair) {
      pair.Run([&](Ops& ops) { ops.Attention(0); });
      pair.ExpectChanged(Activation::kAttended,
                         std::get<0>(GetParam())
                             .AttentionTolerance(dtype, pair.LargestChunk()));
    });
  }
}

TEST_P(OpsContract, AttentionOutputAddsToTheResidual) {
  ForEachBatch(KvDtype::kF32, [&](OpsPair& pair) {
    pair.Run([](Ops& ops) { ops.AttentionOutput(0); });
    pair.ExpectChanged(Activation::kResidual, LayerProduct(0, {"attn_output"}));
  });
}

TEST_P(OpsContract, FeedForwardInGates) {
  ForEachBatch(KvDtype::kF32, [&](OpsPair& pair) {
    pair.Run([&](Ops& ops) { ops.FeedForwardIn(num_layers() - 1); });
    pair.ExpectChanged(Activation::kHidden,
                       LayerProduct(num_layers() - 1, {"ffn_gate", "ffn_up"}));
  });
}

TEST_P(OpsContract, FeedForwardOutAddsToTheResidual) {
  ForEachBatch(KvDtype::kF32, [&](OpsPair& pair) {
    pair.Run([&](Ops& ops) { ops.FeedForwardOut(num_layers() - 1); });
    pair.ExpectChanged(Activation::kResidual,
                       LayerProduct(num_layers() - 1, {"ffn_down"}));
  });
}

TEST_P(OpsContract, LogitsAreThoseOfTheWantedRows) {
  const bool tied = std::get<1>(GetParam()).options.tied_embedding;
  ForEachBatch(KvDtype::kF32, [&](OpsPair& pair) {
    pair.ExpectLogits(Product(tied ? "token_embd" : "output"));
  });
}

using OpsCase = std::tuple<BackendUnderTest, NamedModel>;

// Every model on every backend as it chooses its kernels; the small ones on
// kernels that it would not choose here.
std::vector<OpsCase> Cases() {
  std::vector<OpsCase> cases;
  std::vector<BackendUnderTest> backends = BackendsUnderTest();
  const auto& tensor_cores = TensorCoreBackends();
  backends.insert(backends.end(), tensor_cores.begin(), tensor_cores.end());
  for (const BackendUnderTest& backend : backends) {
    for (const NamedModel& model : Models()) {
      const bool small = model.options.embedding_size < 100;
      if (!backend.RunsAllCases() && !model.is_essential) continue;
      if (small || backend.cpu_kernels == "auto") {
        cases.emplace_back(backend, model);
      }
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Backends, OpsContract, ::testing::ValuesIn(Cases()),
                         [](const auto& info) {
                           return absl::StrCat(std::get<0>(info.param).name,
                                               "_",
                                               std::get<1>(info.param).name);
                         });

}  // namespace
}  // namespace millrace::testing
