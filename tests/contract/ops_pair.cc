#include "tests/contract/ops_pair.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "backends/registry.h"
#include "gtest/gtest.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/model_runner.h"
#include "tests/testing/named_policy.h"
#include "tests/testing/rounded.h"

namespace millrace::testing {
namespace {

using backends::Activation;

constexpr int kMaxRows = 128;
constexpr int32_t kBlocks = 96;
constexpr Activation kActivations[] = {
    Activation::kResidual, Activation::kQuery, Activation::kAttended,
    Activation::kHidden};
constexpr const char* kNames[] = {"residual", "query", "attended", "hidden"};

cache::KvSpec SpecOf(const backends::ModelConfig& config,
                     cache::KvDtype dtype) {
  return {config.num_layers, config.num_kv_heads, config.head_dim, dtype};
}

std::vector<float> Random(int64_t n, uint64_t seed) {
  RandomValues random(seed);
  std::vector<float> values(n);
  for (float& value : values) value = 2 * random.Value();
  return values;
}

// Compares within a part of the largest expected value; says where it fails.
void ExpectClose(const char* what, const std::vector<float>& expected,
                 const std::vector<float>& actual, double tolerance) {
  ASSERT_EQ(expected.size(), actual.size());
  double largest = 0, worst = -1;
  size_t where = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(double{expected[i]}));
    const double difference = std::abs(double{expected[i]} - actual[i]);
    if (!(difference <= worst)) {
      worst = difference;
      where = i;
    }
  }
  if (expected.empty()) return;
  EXPECT_LE(worst, tolerance * largest)
      << what << "[" << where << "] is " << actual[where] << ", expected "
      << expected[where] << "; the largest is " << largest;
}

}  // namespace

OpsPair::OpsPair(const BackendUnderTest& backend,
                 const backends::ModelFile& file, cache::KvDtype dtype,
                 int num_threads)
    : spec_(SpecOf(file.config(), dtype)),
      reference_(NewSide(BackendsUnderTest()[0], file, spec_, 1)),
      tested_(NewSide(backend, file, spec_, num_threads)),
      manager_(spec_, kBlocks),
      numbers_(Random(kBlocks * CanonicalBlockValues(spec_), 1)) {}

OpsPair::Side OpsPair::NewSide(const BackendUnderTest& backend,
                               const backends::ModelFile& file,
                               const cache::KvSpec& spec, int num_threads) {
  const backends::BackendOptions options = backend.Options(num_threads);
  Side side;
  side.backend = backend.New(options).value();
  side.ops = backend.new_ops(file, {.max_rows = kMaxRows}, options).value();
  side.storage = side.backend->CreateKvStorage(spec, kBlocks).value();
  return side;
}

void OpsPair::Begin(const std::vector<ChunkSpec>& chunks, uint64_t seed) {
  for (cache::SequenceId id : std::exchange(open_, {})) manager_.Close(id);
  batch_ = {};
  ids_.clear();
  views_.clear();
  slots_.clear();
  for (const ChunkSpec& chunk : chunks) AddChunk(chunk, ++seed);
  blocks_ = BlocksInUse();
  const auto numbers = absl::MakeConstSpan(numbers_).subspan(
      0, blocks_.size() * CanonicalBlockValues(spec_));
  for (Side* side : {&reference_, &tested_}) {
    ASSERT_TRUE(side->storage->WriteBlocks(blocks_, numbers).ok());
    ASSERT_TRUE(side->ops->Begin(batch_, *side->storage).ok());
  }
  stored_ = reference_.ReadBlocks(blocks_);
  activations_.clear();
  for (const Activation which : kActivations) {
    activations_.push_back(Random(Values(which), ++seed));
    reference_.ops->Write(which, activations_.back());
    tested_.ops->Write(which, activations_.back());
  }
}

int OpsPair::LargestChunk() const {
  int rows = 0;
  for (const backends::Chunk& chunk : batch_.chunks) {
    rows = std::max(rows, chunk.rows());
  }
  return rows;
}

void OpsPair::AddChunk(const ChunkSpec& spec, uint64_t seed) {
  const cache::SequenceId id = manager_
                                   .Open({.policy = NamedPolicy(spec.policy),
                                          .max_chunk_tokens = kMaxRows})
                                   .value();
  open_.push_back(id);
  for (int64_t left = spec.history; left > 0;) {
    const int64_t now = std::min<int64_t>(left, 40);
    ASSERT_TRUE(manager_.Reserve(id, now).ok());
    manager_.Commit(id);
    left -= now;
  }
  views_.push_back(
      std::make_unique<cache::KvView>(manager_.Reserve(id, spec.rows).value()));
  views_.back()->runs[0].rule.shift += spec.shift;
  for (int i = 0; i < spec.rows; ++i) {
    const auto slot = views_.back()->Find(spec.history + i);
    slots_.insert({slot.block, slot.slot});
  }
  ids_.push_back(RandomIds(spec.rows, config().vocabulary_size, seed));
  batch_.chunks.push_back({.token_ids = ids_.back(),
                           .first_position = spec.history,
                           .view = views_.back().get(),
                           .num_logits = spec.num_logits});
}

// The wide pairs of the batch, and every other block by itself.
std::vector<cache::KvBlock> OpsPair::BlocksInUse() const {
  std::set<std::pair<int32_t, int32_t>> pairs;
  std::set<int32_t> in_pairs;
  for (const auto& view : views_) {
    for (const cache::KvRun& run : view->runs) {
      for (size_t i = 0; i < run.value_blocks.size(); ++i) {
        pairs.insert({run.blocks[i], run.value_blocks[i]});
        in_pairs.insert({run.blocks[i], run.value_blocks[i]});
      }
    }
  }
  std::vector<cache::KvBlock> blocks;
  for (const auto& [keys, values] : pairs) blocks.emplace_back(keys, values);
  for (int32_t block = 0; block < kBlocks; ++block) {
    if (!in_pairs.contains(block)) blocks.push_back(block);
  }
  return blocks;
}

void OpsPair::Run(absl::FunctionRef<void(backends::Ops&)> operation) {
  operation(*reference_.ops);
  operation(*tested_.ops);
}

void OpsPair::ExpectChanged(Activation which, double tolerance) {
  const auto changed = static_cast<size_t>(which);
  const std::vector<float> expected = reference_.Read(which, Values(which));
  EXPECT_NE(expected, activations_[changed]) << "the operation does nothing";
  ExpectClose(kNames[changed], expected, tested_.Read(which, Values(which)),
              tolerance);
}

void OpsPair::ExpectStored(int layer, double tolerance) {
  const std::vector<float> expected = reference_.ReadBlocks(blocks_);
  const std::vector<float> actual = tested_.ReadBlocks(blocks_);
  std::vector<float> expected_rows, actual_rows;
  const size_t dim = spec_.head_dim;
  for (size_t i = 0; i < actual.size(); i += dim) {
    const std::vector<float> vector(&actual[i], &actual[i] + dim);
    if (IsWritten(i, layer)) {
      expected_rows.insert(expected_rows.end(), &expected[i],
                           &expected[i] + dim);
      actual_rows.insert(actual_rows.end(), vector.begin(), vector.end());
      const bool wide = blocks_[i / CanonicalBlockValues(spec_)].wide();
      ASSERT_EQ(vector, Rounded(vector, spec_.head_dim,
                                wide ? cache::KvDtype::kF16 : spec_.dtype))
          << "at " << i;
    } else {
      ASSERT_EQ(vector, std::vector<float>(&stored_[i], &stored_[i] + dim))
          << "written at " << i;
    }
  }
  EXPECT_NE(expected, stored_) << "the operation stores nothing";
  ExpectClose("stored", expected_rows, actual_rows, tolerance);
}

// Whether number i of `blocks_` is of a token of the batch, in `layer`.
bool OpsPair::IsWritten(size_t i, int layer) const {
  const int64_t row = int64_t{spec_.num_kv_heads} * spec_.head_dim;
  const int64_t token = i / row % cache::kBlockTokens;
  const int64_t plane = i / row / cache::kBlockTokens;  // of keys or values
  const int64_t block = blocks_[plane / 2 / spec_.num_layers].block;
  return plane / 2 % spec_.num_layers == layer &&
         slots_.contains({block, token});
}

void OpsPair::ExpectNothingStored() {
  EXPECT_EQ(reference_.ReadBlocks(blocks_), stored_);
  EXPECT_EQ(tested_.ReadBlocks(blocks_), stored_);
}

void OpsPair::ExpectLogits(double tolerance) {
  std::vector<float> expected(int64_t{batch_.logits_rows()} *
                              config().vocabulary_size);
  std::vector<float> actual = expected;
  ASSERT_TRUE(reference_.ops->Logits(absl::MakeSpan(expected)).ok());
  ASSERT_TRUE(tested_.ops->Logits(absl::MakeSpan(actual)).ok());
  ExpectClose("logits", expected, actual, tolerance);
}

int64_t OpsPair::Values(Activation which) const {
  const backends::ModelConfig& c = config();
  const int64_t widths[] = {c.embedding_size, c.query_size(), c.query_size(),
                            c.feed_forward_size};
  return batch_.rows() * widths[static_cast<size_t>(which)];
}

std::vector<float> OpsPair::Side::Read(Activation which, int64_t values) const {
  std::vector<float> out(values);
  ops->Read(which, absl::MakeSpan(out));
  return out;
}

std::vector<float> OpsPair::Side::ReadBlocks(
    absl::Span<const cache::KvBlock> blocks) const {
  std::vector<float> out(blocks.size() * CanonicalBlockValues(storage->spec()));
  if (!storage->ReadBlocks(blocks, absl::MakeSpan(out)).ok()) std::abort();
  return out;
}

}  // namespace millrace::testing
