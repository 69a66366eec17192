// What every backend promises of views that say where their keys were turned,
// and of attention that is added up (cache/kv_view.h): the results of the
// reference backend, and the same bits however rows are cut into chunks.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backends/ops.h"
#include "backends/registry.h"
#include "cache/head_table.h"
#include "cache/kv_view.h"
#include "gtest/gtest.h"
#include "tests/contract/contract_fixture.h"
#include "tests/testing/gguf_writer.h"

namespace millrace::testing {
namespace {

using backends::Activation;
using cache::HeadTable;
using cache::KvDtype;
using cache::KvView;

constexpr int kBlocks = 48;
constexpr int kMaxRows = 160;
constexpr int kLayers = 2;
constexpr int kLayer = 1;  // the one that attends
constexpr int64_t kCapacity = 300;
constexpr int64_t kFar = (int64_t{1} << 40) + 7;

struct Shape {
  int num_heads, num_kv_heads, head_dim;
};
constexpr Shape kDefault{9, 3, 64};
constexpr Shape kShapes[] = {kDefault, {3, 1, 10}, {4, 4, 24}, {4, 2, 80}};

std::unique_ptr<const backends::ModelFile> ModelOf(const Shape& shape) {
  TinyLlamaOptions options;
  options.num_layers = kLayers;
  options.num_heads = shape.num_heads;
  options.num_kv_heads = shape.num_kv_heads;
  options.head_dim = shape.head_dim;
  options.embedding_size = 32;
  options.feed_forward_size = 32;
  options.vocabulary_size = 259;
  return OpenTinyLlama(options);
}

// A sequence whose last rows are to be attended to.
struct Sequence {
  int64_t prefix = 4;   // protected tokens: a run of their own
  int64_t length = 90;  // cache positions, the rows' own included
  int rows = 1;
  int64_t row_offset = 0;
  bool moved =
      true;  // keys were turned elsewhere, in each head at other places
  int64_t window = cache::kUnlimited;
  int64_t query_cap = cache::kUnlimited;  // of the prefix
  float decay = 0.999f;
  std::vector<float> weights = {};  // [rows]; empty: nobody asks
  int first_block = 0;              // in kBlockOrder
  uint64_t seed = 1;
};

std::vector<float> Random(int64_t n, uint64_t seed) {
  RandomValues random(seed);
  std::vector<float> values(n);
  for (float& value : values) value = 2 * random.Value();
  return values;
}

// Blocks in no order.
std::vector<int32_t> BlockOrder() {
  std::vector<int32_t> blocks(kBlocks);
  for (int i = 0; i < kBlocks; ++i) blocks[i] = i * 29 % kBlocks;
  return blocks;
}

struct Result {
  std::vector<float> attended;  // [rows][num_heads * head_dim]
  std::vector<float> sums;      // [kv_head][kCapacity]

  bool operator==(const Result&) const = default;
};

// A backend with one storage full of random keys and values.
class Attender {
 public:
  Attender(const BackendUnderTest& backend, const Shape& shape, KvDtype dtype,
           int num_threads)
      : file_(ModelOf(shape)),
        backend_(backend.New(backend.Options(num_threads)).value()),
        ops_(backend
                 .new_ops(*file_, {.max_rows = kMaxRows},
                          backend.Options(num_threads))
                 .value()),
        spec_{kLayers, shape.num_kv_heads, shape.head_dim, dtype},
        storage_(backend_->CreateKvStorage(spec_, kBlocks).value()) {
    const auto all = Random(kBlocks * CanonicalBlockValues(spec_), 7);
    for (int32_t block = 0; block < kBlocks; ++block) {
      const int64_t n = CanonicalBlockValues(spec_);
      EXPECT_TRUE(
          storage_->WriteBlocks({block}, {&all[block * n], size_t(n)}).ok());
    }
  }

  // Attends to the rows of `sequence` in chunks of `chunk`, each in a batch
  // with the next rows of the mates.
  Result Attend(const Sequence& sequence, int chunk = kMaxRows,
                std::vector<Sequence> mates = {}) {
    std::vector<Text> texts;
    for (const Sequence& mate : mates) texts.emplace_back(spec_, mate);
    const auto middle =
        texts.emplace(texts.begin() + mates.size() / 2, spec_, sequence);
    const size_t ours = middle - texts.begin();
    Result result;
    for (int done = 0; done < sequence.rows;) {
      done += Step(texts, ours, std::min(chunk, sequence.rows - done), result);
    }
    for (int h = 0; h < spec_.num_kv_heads; ++h) {
      const auto sums = texts[ours].sums.At(kLayer, h);
      result.sums.insert(result.sums.end(), sums.begin(), sums.end());
    }
    return result;
  }

 private:
  struct Text {
    Text(const cache::KvSpec& spec, const Sequence& of)
        : of(of),
          positions(kLayers, spec.num_kv_heads, kCapacity),
          sums(kLayers, spec.num_kv_heads, kCapacity) {
      RandomValues random(of.seed);
      for (int layer = 0; layer < kLayers; ++layer) {
        for (int h = 0; h < spec.num_kv_heads; ++h) {
          int64_t lead = 0;
          for (int64_t i = 0; i < kCapacity; ++i) {
            // A gap after every third token, some of them of billions.
            const uint64_t bits = random.Bits();
            if (of.moved && i >= of.prefix / 2 && bits % 3 == 0) {
              lead += bits >> 8 & 0xfff;
              if (bits >> 20 & 1) lead += of.row_offset / kCapacity;
            }
            positions.At(layer, h)[i] = i + lead;
          }
          const auto before = Random(kCapacity, of.seed + 10);
          std::copy(before.begin(), before.end(), sums.At(layer, h).begin());
        }
      }
    }

    // A view of the next rows. The prefix is in a block of its own.
    KvView View(int rows) {
      const int64_t end = of.length - of.rows + done + rows;
      const auto blocks = absl::MakeConstSpan(order).subspan(of.first_block);
      KvView view;
      view.runs = {
          {.rule = {.begin = 0, .end = of.prefix, .query_cap = of.query_cap},
           .first_position = 0,
           .length = std::min(of.prefix, end),
           .first_slot = 0,
           .blocks = blocks},
          {.rule = {.begin = of.prefix, .window = of.window},
           .first_position = of.prefix,
           .length = std::max<int64_t>(0, end - of.prefix),
           .first_slot = static_cast<int>(of.prefix % cache::kBlockTokens),
           .blocks = blocks.subspan(1)}};
      if (view.runs[1].length == 0) view.runs.pop_back();
      view.row_offset = of.row_offset;
      if (of.moved) view.key_positions = &positions;
      if (!of.weights.empty()) {
        view.attention = {
            {of.weights.begin() + done, of.weights.begin() + done + rows},
            of.decay,
            &sums};
      }
      return view;
    }

    Sequence of;
    int done = 0;  // rows
    HeadTable<int64_t> positions;
    HeadTable<float> sums;
    std::vector<int32_t> order = BlockOrder();
  };

  // One step of up to `rows` rows of each text; appends what ours attends to.
  int Step(std::vector<Text>& texts, size_t ours, int rows, Result& result) {
    const int width = ops_->config().query_size();
    std::vector<KvView> views(texts.size());
    std::vector<std::vector<int32_t>> ids(texts.size());
    std::vector<float> queries;
    backends::Batch batch;
    size_t from = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
      Text& text = texts[i];
      const int n = std::min(rows, text.of.rows - text.done);
      if (n == 0) continue;
      views[i] = text.View(n);
      ids[i].assign(n, 5);
      batch.chunks.push_back({.token_ids = ids[i],
                              .first_position = text.of.length - text.of.rows +
                                                text.done + text.of.row_offset,
                              .view = &views[i]});
      if (i == ours) from = queries.size();
      const auto all = Random(int64_t{text.of.rows} * width, text.of.seed + 20);
      queries.insert(queries.end(), all.begin() + text.done * width,
                     all.begin() + (text.done + n) * width);
      text.done += n;
    }
    EXPECT_TRUE(ops_->Begin(batch, *storage_).ok());
    ops_->Write(Activation::kQuery, queries);
    ops_->Attention(kLayer);
    std::vector<float> attended(queries.size());
    ops_->Read(Activation::kAttended, absl::MakeSpan(attended));
    result.attended.insert(result.attended.end(), attended.begin() + from,
                           attended.begin() + from + rows * width);
    return rows;
  }

  const std::unique_ptr<const backends::ModelFile> file_;
  const std::unique_ptr<backends::Backend> backend_;
  const std::unique_ptr<backends::Ops> ops_;
  const cache::KvSpec spec_;
  const std::unique_ptr<cache::KvStorage> storage_;
};

void ExpectClose(const std::vector<float>& expected,
                 const std::vector<float>& actual, const std::string& what,
                 double tolerance = 1e-4) {
  ASSERT_EQ(expected.size(), actual.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(expected[i], actual[i], tolerance) << what << ", number " << i;
  }
}

double Largest(const std::vector<float>& numbers) {
  double largest = 0;
  for (const double x : numbers) largest = std::max(largest, std::abs(x));
  return largest;
}

class AttentionContract : public ContractTest {
 protected:
  std::unique_ptr<Attender> New(const Shape& shape = kDefault,
                                KvDtype dtype = KvDtype::kF16,
                                int num_threads = 2) {
    return std::make_unique<Attender>(GetParam(), shape, dtype, num_threads);
  }
};

std::vector<float> RowsOf(int rows, std::vector<float> weights) {
  std::vector<float> all;
  while (static_cast<int>(all.size()) < rows) {
    all.push_back(weights[all.size() % weights.size()]);
  }
  return all;
}

TEST_P(AttentionContract, SaysSo) {
  EXPECT_TRUE(backend().capabilities().attention_scores);
}

TEST_P(AttentionContract, LooksAtMovedKeysAsTheReferenceDoes) {
  std::vector<Sequence> sequences;
  for (const int64_t length : {1, 3, 5, 17, 63, 64, 65, 130, 287}) {
    for (const int rows : {1, 9, 40}) {
      Sequence sequence{.length = length, .rows = rows};
      if (rows > length) continue;
      sequence.weights = RowsOf(rows, {1, 0.5f, 0});
      sequence.seed = length + rows;
      sequences.push_back(sequence);
      sequence.row_offset = kFar;
      sequence.prefix = 21;
      sequence.query_cap = 30;
      sequence.window = 50;
      sequences.push_back(sequence);
    }
  }
  for (const Shape& shape : kShapes) {
    for (const auto& info : cache::kKvDtypes) {
      Attender expected(BackendsUnderTest()[0], shape, info.dtype, 1);
      const auto actual = New(shape, info.dtype);
      for (const Sequence& sequence : sequences) {
        SCOPED_TRACE(absl::StrCat(shape.head_dim, " ", info.name, ", length ",
                                  sequence.length, ", rows ", sequence.rows,
                                  ", offset ", sequence.row_offset));
        const Result a = expected.Attend(sequence);
        const Result b = actual->Attend(sequence);
        ExpectClose(a.attended, b.attended, "attended",
                    GetParam().AttentionTolerance(info.dtype, sequence.rows) *
                        Largest(a.attended));
        ExpectClose(a.sums, b.sums, "sums");
      }
    }
  }
}

TEST_P(AttentionContract, SumsDecayAndWeighAsTheReferenceDoes) {
  Attender expected(BackendsUnderTest()[0], kDefault, KvDtype::kF16, 1);
  const auto actual = New();
  for (const float decay : {0.0f, 1.0f, 0.999f}) {
    for (const std::vector<float>& weights :
         {std::vector<float>{0}, {1}, {0, 0, 1}, {0.25f, 3, 0, 0}}) {
      for (const int rows : {1, 20}) {
        const Sequence sequence{.rows = rows,
                                .row_offset = 1000,
                                .decay = decay,
                                .weights = RowsOf(rows, weights)};
        ExpectClose(expected.Attend(sequence).sums,
                    actual->Attend(sequence).sums,
                    absl::StrCat("decay ", decay, ", weight ", weights[0]));
      }
    }
  }
}

TEST_P(AttentionContract, ChunksThreadsAndMatesDoNotChangeABit) {
  const std::vector<Sequence> mates = {
      {.length = 70, .rows = 33, .moved = false, .first_block = 20, .seed = 5},
      {.length = 40,
       .rows = 40,
       .weights = RowsOf(40, {1}),
       .first_block = 30,
       .seed = 6}};
  for (const auto& info : cache::kKvDtypes) {
    const Sequence sequence{.prefix = 6,
                            .length = 150,
                            .rows = 40,
                            .row_offset = kFar,
                            .decay = info.dtype == KvDtype::kF32 ? 1 : 0.999f,
                            .weights = RowsOf(40, {1, 0, 0.5f, 2, 0.1f})};
    const Result expected = New(kDefault, info.dtype, 1)->Attend(sequence);
    for (const int threads : {1, 2, 5}) {
      const auto attender = New(kDefault, info.dtype, threads);
      for (const int chunk : {1, 7, 33}) {
        SCOPED_TRACE(absl::StrCat(info.name, ", ", threads,
                                  " threads, chunks of ", chunk));
        EXPECT_TRUE(attender->Attend(sequence, chunk) == expected);
        EXPECT_TRUE(attender->Attend(sequence, chunk, mates) == expected);
      }
    }
  }
}

// A table that moves nothing, an offset that no rule knows of, and being asked
// for sums change no bit of what rows attend to.
TEST_P(AttentionContract, WithoutMovedKeysNothingChanges) {
  for (const auto& info : cache::kKvDtypes) {
    const auto attender = New(kDefault, info.dtype);
    const Sequence plain{.length = 150, .rows = 40, .moved = false};
    const std::vector<float> expected = attender->Attend(plain).attended;
    Sequence other = plain;
    other.row_offset = kFar;
    EXPECT_TRUE(attender->Attend(other).attended == expected) << info.name;
    other.weights = RowsOf(40, {1});
    EXPECT_TRUE(attender->Attend(other).attended == expected) << info.name;
    other.moved = true;  // from half the prefix on: no token that there is
    other.prefix = 2 * kCapacity;
    Sequence one_run = plain;
    one_run.prefix = 2 * kCapacity;
    EXPECT_TRUE(attender->Attend(other).attended ==
                attender->Attend(one_run).attended)
        << info.name;
    EXPECT_FALSE(
        attender->Attend(Sequence{.length = 150, .rows = 40}).attended ==
        expected)
        << info.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, AttentionContract,
                         ::testing::ValuesIn(BackendsUnderTest()),
                         BackendName());

}  // namespace
}  // namespace millrace::testing
