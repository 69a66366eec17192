// Attention to keys that were turned at one position and are looked at from
// another, and its sums, by worked numbers and against the formula in double.

#include <cmath>
#include <cstdint>
#include <memory>
#include <numbers>
#include <numeric>
#include <utility>
#include <vector>

#include "backends/reference/kv_storage.h"
#include "backends/reference/ops.h"
#include "backends/reference/weights.h"
#include "cache/head_table.h"
#include "cache/kv_view.h"
#include "gmock/gmock.h"
#include "tests/testing/gguf_writer.h"

namespace millrace::backends::reference {
namespace {

using cache::HeadTable;
using cache::KvView;
using ::testing::ElementsAre;
using ::testing::FloatNear;
using testing::RandomValues;

constexpr int kBlocks = 4;
constexpr double kBase = 10000;

// A model of one layer whose cache is filled by hand; only its attention runs.
class AttentionTest : public ::testing::Test {
 protected:
  void Make(int num_heads, int num_kv_heads, int head_dim) {
    testing::TinyLlamaOptions options;
    options.num_layers = 1;
    options.num_heads = num_heads;
    options.num_kv_heads = num_kv_heads;
    options.head_dim = head_dim;
    options.rope_base = kBase;
    const auto file = testing::OpenTinyLlama(options);
    ops_ = std::make_unique<ReferenceOps>(file->config(),
                                          LoadWeights(*file).value(), 16, 2);
    storage_ = PlainKvStorage::Create(
                   {1, num_kv_heads, head_dim, cache::KvDtype::kF32}, kBlocks)
                   .value();
    std::iota(blocks_.begin(), blocks_.end(), 0);
  }

  // Keys and values of all KV heads of one cache position.
  void Put(int64_t i, const std::vector<float>& keys,
           const std::vector<float>& values) {
    const int block = i / cache::kBlockTokens, slot = i % cache::kBlockTokens;
    storage_->StoreRow(0, KvPart::kKey, block, slot, keys);
    storage_->StoreRow(0, KvPart::kValue, block, slot, values);
  }

  // A view of cache positions [0, length).
  KvView View(int64_t length) {
    KvView view;
    view.runs = {{.rule = {},
                  .first_position = 0,
                  .length = length,
                  .first_slot = 0,
                  .blocks = blocks_}};
    return view;
  }

  // What rows from text position t on, with these queries, attend to.
  std::vector<float> Attend(const KvView& view, int64_t t,
                            const std::vector<float>& queries) {
    const int rows = queries.size() / ops_->config().query_size();
    const std::vector<int32_t> ids(rows, 0);
    Batch batch;
    batch.chunks = {{.token_ids = ids, .first_position = t, .view = &view}};
    EXPECT_TRUE(ops_->Begin(batch, *storage_).ok());
    ops_->Write(Activation::kQuery, queries);
    ops_->Attention(0);
    std::vector<float> attended(queries.size());
    ops_->Read(Activation::kAttended, absl::MakeSpan(attended));
    return attended;
  }

  std::unique_ptr<ReferenceOps> ops_;
  std::unique_ptr<PlainKvStorage> storage_;
  std::vector<int32_t> blocks_ = std::vector<int32_t>(kBlocks);
};

// One pair of numbers turns by 1 radian a token. The row is at text position 9,
// and third in the cache; the two keys before it are from text positions 2 and
// 8. All three point along x before they are turned, and so does the query: it
// sees them 2, 1 and 0 radians away, as if they were at 0, 1 and 2.
TEST_F(AttentionTest, LooksAtKeysFromWhereTheyAreInTheCache) {
  Make(1, 1, 2);
  HeadTable<int64_t> positions(1, 1, 4);
  const int64_t texts[] = {2, 8, 9};
  for (int i = 0; i < 3; ++i) {
    positions.At(0, 0)[i] = texts[i];
    Put(i, {float(std::cos(texts[i])), float(std::sin(texts[i]))},
        {i == 0 ? 1.0f : 0.0f, i == 1 ? 1.0f : 0.0f});
  }
  KvView view = View(3);
  view.row_offset = 7;
  view.key_positions = &positions;
  const double e0 = std::exp(std::cos(2.0)), e1 = std::exp(std::cos(1.0)),
               e2 = std::exp(1.0);
  const float q = std::sqrt(2.0f);  // undoes 1 / sqrt(head_dim)
  EXPECT_THAT(Attend(view, 9, {q, 0}),
              ElementsAre(FloatNear(e0 / (e0 + e1 + e2), 1e-6),
                          FloatNear(e1 / (e0 + e1 + e2), 1e-6)));
}

// Keys of zeros: a row gives an equal part to all that it sees, so two heads
// give 2/2, 2/3 and 2/4.
TEST_F(AttentionTest, SumsDecayWithEachRowAndCountItsWeight) {
  Make(2, 1, 2);
  HeadTable<float> sums(1, 1, 6);
  const absl::Span<float> at = sums.At(0, 0);
  at[0] = 4;
  at[5] = 8;  // no row sees it
  KvView view = View(4);
  view.row_offset = 100;
  view.attention = {{1, 0, 2}, 0.5f, &sums};
  Attend(view, 101, std::vector<float>(3 * 4, 1));
  EXPECT_THAT(at, ElementsAre(1.75f,  // 4, 2 + 1, 1.5, 0.75 + 1
                              1.25f,  // 0, 0 + 1, 0.5, 0.25 + 1
                              1,      // of the last row alone,
                              1,      // which weighs 2
                              0, 1));
}

// The formula: every key turned anew at its cache position.
double Turned(const std::vector<double>& q, int64_t at,
              const std::vector<double>& k, int64_t i) {
  const int dim = q.size();
  double score = 0;
  for (int d = 0; d < dim; d += 2) {
    const double a = (at - i) * std::pow(kBase, -1.0 * d / dim);
    const double x = q[d] * std::cos(a) - q[d + 1] * std::sin(a);
    const double y = q[d] * std::sin(a) + q[d + 1] * std::cos(a);
    score += x * k[d] + y * k[d + 1];
  }
  return score / std::sqrt(1.0 * dim);
}

// Two runs, of which the first saturates; positions up to 2^40; three heads on
// each of two KV heads, which keep tokens of their own.
TEST_F(AttentionTest, IsTheFormulaAtAnyTextPosition) {
  constexpr int kHeads = 6, kKvHeads = 2, kDim = 8, kRows = 5, kLength = 40;
  constexpr int kPrefix = 4, kCap = 20;
  constexpr int64_t kOffset = (int64_t{1} << 40) + 7;
  Make(kHeads, kKvHeads, kDim);
  RandomValues random(1);
  const auto numbers = [&](int n) {
    std::vector<double> values(n);
    for (double& value : values) value = 2 * random.Value();
    return values;
  };
  HeadTable<int64_t> positions(1, kKvHeads, kLength + 3);
  std::vector<std::vector<double>> keys,
      values;  // [position * kKvHeads + head]
  for (int i = 0; i < kLength; ++i) {
    std::vector<float> stored, stored_values;
    for (int h = 0; h < kKvHeads; ++h) {
      const bool is_row = i >= kLength - kRows;
      const int64_t p = is_row        ? i + kOffset
                        : i < kPrefix ? i
                                      : i + (kOffset / kLength) * i + h;
      positions.At(0, h)[i] = p;
      keys.push_back(numbers(kDim));
      values.push_back(numbers(kDim));
      for (int d = 0; d < kDim; d += 2) {
        const long double a =
            p * powl(static_cast<long double>(kBase), -1.0L * d / kDim);
        const double x = keys.back()[d], y = keys.back()[d + 1];
        stored.push_back(x * cosl(a) - y * sinl(a));
        stored.push_back(x * sinl(a) + y * cosl(a));
      }
      stored_values.insert(stored_values.end(), values.back().begin(),
                           values.back().end());
    }
    Put(i, stored, stored_values);
  }
  KvView view = View(kLength);
  view.runs[0].length = kPrefix;
  view.runs[0].rule = {.begin = 0, .end = kPrefix, .query_cap = kCap};
  view.runs.push_back({.rule = {.begin = kPrefix, .window = 30},
                       .first_position = kPrefix,
                       .length = kLength - kPrefix,
                       .first_slot = kPrefix,
                       .blocks = blocks_});
  view.row_offset = kOffset;
  view.key_positions = &positions;
  HeadTable<float> sums(1, kKvHeads, kLength + 3);
  view.attention = {std::vector<float>(kRows, 1), 0.9f, &sums};
  const std::vector<double> queries = numbers(kRows * kHeads * kDim);
  const std::vector<float> attended =
      Attend(view, kLength - kRows + kOffset,
             std::vector<float>(queries.begin(), queries.end()));

  std::vector<double> expected_sums(kKvHeads * kLength);
  for (int r = 0; r < kRows; ++r) {
    const int64_t c = kLength - kRows + r;
    for (double& sum : expected_sums) sum *= 0.9f;
    for (int head = 0; head < kHeads; ++head) {
      const int h = head / 3, offset = (r * kHeads + head) * kDim;
      const std::vector<double> q(&queries[offset], &queries[offset + kDim]);
      std::vector<double> out(kDim), p(kLength);
      double total = 0;
      for (int i = 0; i <= c; ++i) {
        if (i >= kPrefix && i < c - 30) continue;
        const int64_t at = i < kPrefix ? std::min<int64_t>(c, kCap) : c;
        p[i] = std::exp(Turned(q, at, keys[i * kKvHeads + h], i));
        total += p[i];
      }
      for (int i = 0; i < kLength; ++i) {
        expected_sums[h * kLength + i] += p[i] / total;
        for (int d = 0; d < kDim; ++d) {
          out[d] += p[i] / total * values[i * kKvHeads + h][d];
        }
      }
      for (int d = 0; d < kDim; ++d) {
        ASSERT_NEAR(attended[offset + d], out[d], 5e-5)
            << "row " << r << ", head " << head << ", number " << d;
      }
    }
  }
  for (int h = 0; h < kKvHeads; ++h) {
    for (int i = 0; i < kLength; ++i) {
      ASSERT_NEAR(sums.At(0, h)[i], expected_sums[h * kLength + i], 5e-5)
          << "KV head " << h << ", position " << i;
    }
  }
}

}  // namespace
}  // namespace millrace::backends::reference
