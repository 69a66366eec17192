// What every Backend and Model promise (backends/backend.h, model.h): logits
// depend on the text and the policy alone, to the last bit.

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "backends/model_file/registry.h"
#include "backends/registry.h"
#include "gmock/gmock.h"
#include "tests/contract/contract_fixture.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/model_runner.h"
#include "tests/testing/named_policy.h"

namespace millrace::testing {
namespace {

using cache::KvDtype;
using cache::SequenceId;
using ::testing::SizeIs;

constexpr char kFull[] = "full:max_tokens=300";
constexpr char kSinks[] = "sinks:sink_tokens=4,window_tokens=44";
constexpr char kWindow[] = "window:window_tokens=25";

TinyLlamaOptions Model(WeightType matrices) {
  TinyLlamaOptions options;
  options.matrices = matrices;
  options.embeddings =
      matrices == WeightType::kQ4_1 ? WeightType::kQ8_0 : matrices;
  return options;
}

class ModelContract : public ContractTest {
 protected:
  std::unique_ptr<ModelRunner> NewRunner(const backends::ModelFile& file,
                                         int num_threads = 2,
                                         KvDtype dtype = KvDtype::kF16) {
    return ModelRunner::Create(
               file, {.backend = GetParam().backend,
                      .new_backend = GetParam().new_backend,
                      .backend_options = GetParam().Options(num_threads),
                      .kv_dtype = dtype,
                      .num_blocks = 256})
        .value();
  }
  std::unique_ptr<ModelRunner> NewRunner(WeightType matrices,
                                         int num_threads = 2,
                                         KvDtype dtype = KvDtype::kF16) {
    return NewRunner(*OpenTinyLlama(Model(matrices)), num_threads, dtype);
  }

  static std::vector<int32_t> Ids(int count, uint64_t seed = 1) {
    return RandomIds(count, TinyLlamaOptions().vocabulary_size, seed);
  }
};

constexpr WeightType kTypes[] = {WeightType::kF32, WeightType::kF16,
                                 WeightType::kQ4_1};

TEST_P(ModelContract, CutsIntoChunksDoNotMatter) {
  for (const WeightType type : kTypes) {
    for (const char* policy : {kFull, kSinks, kWindow}) {
      const auto runner = NewRunner(type);
      const auto read = [&](int chunk) {
        return runner->Read(runner->Open(NamedPolicy(policy)), Ids(150), chunk);
      };
      const Rows one_by_one = read(1);
      for (const int chunk : {3, 16, 17, 64, 128}) {
        EXPECT_EQ(read(chunk), one_by_one)
            << policy << " in chunks of " << chunk;
      }
    }
  }
}

TEST_P(ModelContract, BatchMatesDoNotMatter) {
  for (const WeightType type : kTypes) {
    const auto runner = NewRunner(type);
    const std::vector<int32_t> ids = Ids(100);
    const std::vector<int32_t> first(ids.begin(), ids.begin() + 60);
    const Rows alone =
        runner->Read(runner->Open(NamedPolicy(kSinks)), ids, 128);

    const SequenceId a = runner->Open(NamedPolicy(kSinks));
    const SequenceId b = runner->Open(NamedPolicy(kFull));
    const SequenceId c = runner->Open(NamedPolicy(kWindow));
    Rows rows = runner->Step({{c, Ids(31, 2)}, {a, first}, {b, Ids(9, 3)}})[1];
    for (size_t i = rows.size(); i < ids.size(); ++i) {
      std::vector<ModelRunner::Part> parts = {
          {b, {5}}, {c, {6}}, {a, {ids[i]}}};
      rows.push_back(runner->Step(parts)[2][0]);
    }
    EXPECT_EQ(rows, alone);
  }
}

TEST_P(ModelContract, TheNumberOfThreadsDoesNotMatter) {
  for (const WeightType type : kTypes) {
    const auto read = [&](int num_threads) {
      const auto runner = NewRunner(type, num_threads);
      const SequenceId id = runner->Open(NamedPolicy(kSinks));
      Rows rows = runner->Read(id, Ids(90), 40);
      const Rows decoded = runner->Read(id, Ids(10, 2), 1);
      rows.insert(rows.end(), decoded.begin(), decoded.end());
      return rows;
    };
    const Rows with_one = read(1);
    EXPECT_EQ(read(2), with_one);
    EXPECT_EQ(read(3), with_one);
  }
}

TEST_P(ModelContract, SaysWhetherItPicksTokens) {
  const auto file = OpenTinyLlama(Model(WeightType::kQ4_1));
  EXPECT_EQ((*backend().LoadModel(*file, {}))->step_queue() != nullptr,
            GetParam().picks_tokens);
}

TEST_P(ModelContract, OnlyWantedRowsGetLogits) {
  const auto runner = NewRunner(WeightType::kQ4_1);
  const Rows all = runner->Read(runner->Open(NamedPolicy(kFull)), Ids(20), 20);
  const SequenceId a = runner->Open(NamedPolicy(kFull));
  const SequenceId b = runner->Open(NamedPolicy(kFull));
  const SequenceId c = runner->Open(NamedPolicy(kFull));
  const std::vector<Rows> some =
      runner->Step({{a, Ids(20), 3}, {b, Ids(20), 0}, {c, Ids(20), 1}});
  EXPECT_EQ(some[0], Rows(all.end() - 3, all.end()));
  EXPECT_THAT(some[1], SizeIs(0));
  EXPECT_EQ(some[2], Rows(all.end() - 1, all.end()));
}

TEST_P(ModelContract, ATiedOutputIsTheEmbedding) {
  for (const WeightType type : {WeightType::kF32, WeightType::kQ8_0}) {
    GgufImage image = TinyLlama(Model(type));
    const auto tied =
        backends::OpenModelFile(WriteTestFile(image.Serialize()), {});
    GgufImage::Tensor output = image.FindTensor("token_embd.weight");
    output.name = "output.weight";
    image.tensors.push_back(output);
    const auto untied =
        backends::OpenModelFile(WriteTestFile(image.Serialize()), {});
    ASSERT_TRUE(tied.ok() && untied.ok()) << untied.status();
    ASSERT_TRUE((*tied)->config().tied_embedding);
    ASSERT_FALSE((*untied)->config().tied_embedding);
    const auto read = [&](const backends::ModelFile& file) {
      const auto runner = NewRunner(file);
      return runner->Read(runner->Open(NamedPolicy(kFull)), Ids(40), 40);
    };
    EXPECT_EQ(read(**untied), read(**tied));
  }
}

TEST_P(ModelContract, AnOutputOfItsOwnIsUsed) {
  TinyLlamaOptions options = Model(WeightType::kF32);
  const auto read = [&](bool tied) {
    options.tied_embedding = tied;
    const auto runner = NewRunner(*OpenTinyLlama(options));
    return runner->Read(runner->Open(NamedPolicy(kFull)), Ids(5), 5);
  };
  EXPECT_GT(MaxDifference(read(true), read(false)), 1);
}

// A sequence that moves to another backend goes on as if it had stayed.
TEST_P(ModelContract, AMovedSequenceGoesOn) {
  const auto file = OpenTinyLlama(Model(WeightType::kF32));
  for (const auto& [dtype, name, bytes, scaled] : cache::kKvDtypes) {
    const auto here = NewRunner(*file, 2, dtype);
    const auto there =
        ModelRunner::Create(*file, {.kv_dtype = dtype, .num_blocks = 256})
            .value();
    const SequenceId a = here->Open(NamedPolicy(kSinks));
    const SequenceId b = there->Open(NamedPolicy(kSinks));
    here->Read(a, Ids(130), 64);
    there->Read(b, Ids(130, 9), 64);  // another text, to be overwritten
    const auto copy = [](ModelRunner& from, SequenceId x, ModelRunner& to,
                         SequenceId y) {
      const auto blocks = [](ModelRunner& runner, SequenceId id) {
        std::vector<cache::KvBlock> all;
        for (const auto& run : runner.manager().View(id).runs) {
          for (size_t i = 0; i < run.blocks.size(); ++i) {
            all.push_back(run.BlockAt(i));
          }
        }
        return all;
      };
      const std::vector<cache::KvBlock> source = blocks(from, x);
      std::vector<float> values(source.size() *
                                CanonicalBlockValues(from.storage().spec()));
      ASSERT_TRUE(
          from.storage().ReadBlocks(source, absl::MakeSpan(values)).ok());
      ASSERT_TRUE(to.storage().WriteBlocks(blocks(to, y), values).ok());
    };
    copy(*here, a, *there, b);
    const Rows stayed = here->Read(a, Ids(20, 2), 20);
    // What is scaled and rounded may fall to a neighbour, 250 times as far away
    // as floats agree.
    EXPECT_LE(MaxDifference(there->Read(b, Ids(20, 2), 20), stayed),
              scaled ? 3e-3 : 1e-3)
        << name;
  }
}

TEST_P(ModelContract, EveryDtypeOnOfferWorks) {
  for (const KvDtype dtype : backend().capabilities().kv_dtypes) {
    const auto runner = NewRunner(WeightType::kQ4_1, 2, dtype);
    EXPECT_THAT(runner->Read(runner->Open(NamedPolicy(kFull)), Ids(9), 4),
                SizeIs(9));
  }
  EXPECT_EQ(backend().capabilities().kv_dtypes[0], KvDtype::kInt8);
}

TEST_P(ModelContract, MemoryEstimatesCoverTheWeights) {
  const auto file = OpenTinyLlama(Model(WeightType::kQ4_1));
  const int64_t few = backend().EstimateMemory(*file, {.max_rows = 1});
  const int64_t many = backend().EstimateMemory(*file, {.max_rows = 1000});
  // 4.5 bits a weight at the least, and a residual stream for each row.
  EXPECT_GE(few, file->info().num_parameters / 2);
  EXPECT_GE(many - few, 900 * 4 * file->config().embedding_size);
}

TEST_P(ModelContract, SaysWhatItIs) {
  EXPECT_EQ(backend().Name(), GetParam().backend);
  EXPECT_THAT(backend().DeviceInfo(), ::testing::HasSubstr(GetParam().device));
}

TEST_P(ModelContract, NoThreadsIsInvalid) {
  auto options = GetParam().Options(0);
  EXPECT_EQ(GetParam().New(options).status().code(),
            absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Backends, ModelContract,
                         ::testing::ValuesIn(BackendsUnderTest()),
                         BackendName());

// ---- Where bits may depend on the number of rows ----

class LargeBatches : public ModelContract {};

// 2.4e-3 was the worst of these random models, by one row of 150.
constexpr double kLogitsTolerance = 5e-3;

// Whatever is ahead by more than twice the largest difference stays ahead.
TEST_P(LargeBatches, CutsIntoChunksChangeLittleAndNoClearChoice) {
  for (const WeightType type : kTypes) {
    const auto runner = NewRunner(type);
    const auto read = [&](int chunk) {
      return runner->Read(runner->Open(NamedPolicy(kSinks)), Ids(150), chunk);
    };
    const Rows one_by_one = read(1);
    for (const int chunk : {16, 17, 64, 128}) {
      const Rows rows = read(chunk);
      EXPECT_NE(rows, one_by_one) << "in chunks of " << chunk;
      for (size_t i = 0; i < rows.size(); ++i) {
        const double difference = MaxDifference({rows[i]}, {one_by_one[i]});
        const auto [smallest, largest] =
            std::minmax_element(one_by_one[i].begin(), one_by_one[i].end());
        EXPECT_LE(difference, kLogitsTolerance * std::max(-*smallest, *largest))
            << i;
        const auto chosen = std::max_element(rows[i].begin(), rows[i].end());
        EXPECT_GE(one_by_one[i][chosen - rows[i].begin()],
                  *largest - 2 * difference)
            << i;
      }
    }
  }
}

TEST_P(LargeBatches, EqualBatchesGiveEqualBits) {
  const auto read = [&] {
    const auto runner = NewRunner(WeightType::kQ4_1);
    return runner->Read(runner->Open(NamedPolicy(kFull)), Ids(100), 64);
  };
  EXPECT_EQ(read(), read());
}

INSTANTIATE_TEST_SUITE_P(Backends, LargeBatches,
                         ::testing::ValuesIn(TensorCoreBackends()),
                         BackendName());

TEST(RegistryTest, ListsReferenceLast) {
  EXPECT_EQ(backends::CompiledBackends().back(), "reference");
}

TEST(RegistryTest, AutoTakesTheFirstThatRuns) {
  const auto backend = backends::NewBackend("auto", {});
  ASSERT_TRUE(backend.ok()) << backend.status();
  for (const std::string& name : backends::CompiledBackends()) {
    if (name == (*backend)->Name()) break;
    EXPECT_FALSE(backends::NewBackend(name, {}).ok()) << name;
  }
}

// One line, whether this program has no code for it or this machine no GPU.
TEST(RegistryTest, CudaWithoutAGpuSaysSo) {
  const absl::Status status = backends::NewBackend("cuda", {}).status();
  if (status.ok()) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  const bool compiled_in = ::testing::Value(backends::CompiledBackends(),
                                            ::testing::Contains("cuda"));
  EXPECT_THAT(status.message(),
              ::testing::HasSubstr(compiled_in ? "no CUDA device"
                                               : "built without CUDA"));
  EXPECT_EQ(status.message().find('\n'), absl::string_view::npos);
}

// Whoever asks for kernels of the CPU means the CPU.
TEST(RegistryTest, AutoWithCpuKernelsIsTheCpu) {
  const auto backend = backends::NewBackend("auto", {.cpu_kernels = "scalar"});
  ASSERT_TRUE(backend.ok()) << backend.status();
  EXPECT_EQ((*backend)->Name(), "onednn");
}

TEST(RegistryTest, AutoDoesNotHideAnOptionThatIsWrong) {
  EXPECT_EQ(
      backends::NewBackend("auto", {.cpu_kernels = "neon"}).status().code(),
      absl::StatusCode::kInvalidArgument);
}

TEST(RegistryTest, AnotherNameIsToldWhatIsCompiledIn) {
  const absl::Status status = backends::NewBackend("tpu", {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            absl::StrCat("choose a backend: 'tpu' is not compiled into this "
                         "program; use ",
                         absl::StrJoin(backends::CompiledBackends(), ", "),
                         " or auto"));
}

}  // namespace
}  // namespace millrace::testing
