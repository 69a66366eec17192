// What a step uploads, and how it is launched.

#include "backends/cuda/step_plan.h"

#include <cstdint>
#include <numeric>
#include <vector>

#include "cache/head_table.h"
#include "gtest/gtest.h"

namespace millrace::backends::cuda {
namespace {

using cache::KvDtype;

constexpr StepPlanOptions kOptions = {.num_layers = 2,
                                      .num_kv_heads = 3,
                                      .max_rows = 100,
                                      .group_rows = 8,
                                      .wanted_blocks = 16,
                                      .max_parts = 1000};

// Sequences of one run, each from the first block on.
class StepPlanTest : public ::testing::Test {
 protected:
  StepPlanTest() { std::iota(blocks_.begin(), blocks_.end(), 0); }

  // Adds a chunk of the last `rows` of `length` tokens.
  Chunk& Add(int64_t length, int rows, int num_logits = 1) {
    views_.push_back(
        {.runs = {{.rule = {}, .length = length, .blocks = blocks_}}});
    ids_.emplace_back(rows, 7);
    batch_.chunks.push_back({.token_ids = {},
                             .first_position = length - rows,
                             .num_logits = num_logits});
    for (size_t i = 0; i < views_.size(); ++i) {  // they may have moved
      batch_.chunks[i].view = &views_[i];
      batch_.chunks[i].token_ids = ids_[i];
    }
    return batch_.chunks.back();
  }

  const StepShape& Shape() {
    plan_.Begin(batch_, KvDtype::kF16);
    return plan_.shape();
  }
  const StepHeader& Header() {
    return *reinterpret_cast<const StepHeader*>(plan_.image().data());
  }

  StepPlan plan_{kOptions};
  std::vector<int32_t> blocks_ = std::vector<int32_t>(200);
  std::vector<cache::KvView> views_;
  std::vector<std::vector<int32_t>> ids_;
  Batch batch_;
};

TEST_F(StepPlanTest, ADecodeStepDividesAttentionIntoSections) {
  Add(1000, 1);  // sections 0 .. 15
  EXPECT_EQ(Shape(), (StepShape{.rows = 1,
                                .groups = 1,
                                .group_rows = 1,
                                .sections = 18,
                                .logits = 1}));
}

TEST_F(StepPlanTest, ShapesStayTheSameWhileASequenceGrows) {
  Add(1000, 1);
  const StepShape shape = Shape();
  batch_.chunks.clear(), views_.clear(), ids_.clear();
  Add(1100, 1);  // 18 sections
  EXPECT_EQ(Shape(), shape);
}

TEST_F(StepPlanTest, ManyRowsTakeTheirSectionsThemselves) {
  for (int i = 0; i < 33; ++i) Add(1000, 1);
  EXPECT_EQ(Shape(), (StepShape{.rows = 64,
                                .groups = 64,
                                .group_rows = 1,
                                .sections = 0,
                                .logits = 64}));
}

TEST_F(StepPlanTest, SectionsThatHaveNoRoomAreNotDivided) {
  StepPlanOptions options = kOptions;
  options.max_parts = 53;  // 18 sections of 3 KV heads are 54
  StepPlan plan(options);
  Add(1000, 1);
  plan.Begin(batch_, KvDtype::kF16);
  EXPECT_EQ(plan.shape().sections, 0);
}

TEST_F(StepPlanTest, NoShapeIsLargerThanTheModelAllows) {
  Add(90, 90, 90);
  EXPECT_EQ(Shape().rows, 100);
  EXPECT_EQ(Shape().logits, 100);
  EXPECT_EQ(Shape().groups, 16);
  EXPECT_EQ(Shape().group_rows, 8);
}

StepPlanOptions WithTensorCores() {
  StepPlanOptions options = kOptions;
  options.tensor_group_rows = 21;
  return options;
}

TEST_F(StepPlanTest, ChunksOfManyRowsTakeTensorCoresWhateverTheirCompany) {
  Add(1000, 15);
  Add(1000, 16);
  Add(90, 50);
  StepPlan plan(WithTensorCores());
  plan.Begin(batch_, KvDtype::kF16);
  EXPECT_EQ(plan.shape().groups, 2);
  EXPECT_EQ(plan.shape().tensor_groups, 4);
  const auto* header = reinterpret_cast<const StepHeader*>(plan.image().data());
  ASSERT_EQ(header->num_tensor_groups, 4);
  const StepGroup last = ArrayAt<StepGroup>(header, header->tensor_groups)[3];
  EXPECT_EQ(last.chunk, 2);
  EXPECT_EQ(last.first_row, 15 + 16 + 42);
  EXPECT_EQ(last.rows, 8);
}

TEST_F(StepPlanTest, ChunksOfFewRowsAreDecodeGroups) {
  StepPlanOptions options = WithTensorCores();
  options.decode_group_rows = 2;
  options.max_decode_parts = 1000;
  Add(1000, 1);
  Add(1000, 5);
  Add(1000, 16);
  StepPlan plan(options);
  plan.Begin(batch_, KvDtype::kInt8);
  EXPECT_EQ(plan.shape().groups, 0);
  EXPECT_EQ(plan.shape().decode_groups, 4);
  EXPECT_EQ(plan.shape().decode_blocks, 5);  // 18 sections, four each
  EXPECT_EQ(plan.shape().tensor_groups, 1);
  const auto* header = reinterpret_cast<const StepHeader*>(plan.image().data());
  ASSERT_EQ(header->num_decode_groups, 4);
  const StepGroup last = ArrayAt<StepGroup>(header, header->decode_groups)[3];
  EXPECT_EQ(last.chunk, 1);
  EXPECT_EQ(last.first_row, 1 + 4);
  EXPECT_EQ(last.rows, 1);
}

TEST_F(StepPlanTest, DecodeGroupsAreDividedAsFarAsThereIsRoom) {
  const auto decode_blocks = [&](int64_t max_parts) {
    StepPlanOptions options = kOptions;
    options.decode_group_rows = 2;
    options.max_decode_parts = max_parts;
    StepPlan plan(options);
    plan.Begin(batch_, KvDtype::kF16);
    return plan.shape().decode_blocks;
  };
  Add(1000, 1);  // 18 sections, four to a block; three KV heads
  EXPECT_EQ(decode_blocks(15), 5);
  EXPECT_EQ(decode_blocks(14), 4);
  EXPECT_EQ(decode_blocks(0), 1);
  for (int i = 0; i < 7; ++i) Add(1000, 1);
  EXPECT_EQ(decode_blocks(1000), 1);
}

TEST_F(StepPlanTest, DecodeGroupsAreOfHalvesAndBytesThatNobodyMoved) {
  const auto decode_groups = [&](KvDtype dtype) {
    StepPlanOptions options = kOptions;
    options.decode_group_rows = 2;
    StepPlan plan(options);
    plan.Begin(batch_, dtype);
    return plan.shape().decode_groups;
  };
  Add(90, 1);
  EXPECT_EQ(decode_groups(KvDtype::kF16), 1);
  EXPECT_EQ(decode_groups(KvDtype::kInt8), 1);
  EXPECT_EQ(decode_groups(KvDtype::kBF16), 0);
  EXPECT_EQ(decode_groups(KvDtype::kF32), 0);
  const cache::HeadTable<int64_t> table(2, 3, 1000);
  views_[0].key_positions = &table;
  EXPECT_EQ(decode_groups(KvDtype::kF16), 0);
}

TEST_F(StepPlanTest, MovedKeysKeepAChunkOffTensorCores) {
  const cache::HeadTable<int64_t> table(2, 3, 1000);
  Add(90, 50);
  views_[0].key_positions = &table;
  StepPlan plan(WithTensorCores());
  plan.Begin(batch_, KvDtype::kF16);
  EXPECT_EQ(plan.shape().tensor_groups, 0);
  EXPECT_EQ(plan.shape().groups, 8);
}

TEST_F(StepPlanTest, FewTensorBlocksGiveWayToDividedAttention) {
  StepPlanOptions options = WithTensorCores();
  options.wanted_blocks = 8 * 3 * 2 + 1;  // two groups of 3 KV heads fall short
  Add(1000, 42);
  StepPlan plan(options);
  plan.Begin(batch_, KvDtype::kF16);
  EXPECT_EQ(plan.shape().tensor_groups, 0);
  EXPECT_GT(plan.shape().sections, 0);
}

TEST_F(StepPlanTest, TheImageSaysWhichRowsAreWanted) {
  Add(20, 3, 2);
  Add(40, 2, 0);
  Add(60, 4, 1);
  Shape();
  ASSERT_EQ(Header().num_rows, 9);
  ASSERT_EQ(Header().num_logits, 3);
  const auto* rows = ArrayAt<int32_t>(&Header(), Header().logits_rows);
  EXPECT_EQ((std::vector<int32_t>(rows, rows + 3)),
            (std::vector<int32_t>{1, 2, 8}));
}

TEST_F(StepPlanTest, RowsOfWhichTokensArePickedStandBehindTheOthers) {
  const std::vector<RowSampling> sampling = {
      {.temperature = 0.5f, .uniform = 0.25, .adjustments = {{}, {.id = 7}}},
      {.top_k = 3, .adjustments = {{.id = 9}}}};
  std::vector<int32_t> picked(2);
  Chunk& asks = Add(20, 3, 2);
  asks.sampling = sampling;
  asks.picked = absl::MakeSpan(picked);
  Add(40, 2, 2);
  EXPECT_EQ(Shape().logits, 4);
  EXPECT_EQ(Shape().picks, 2);
  ASSERT_EQ(Header().num_logits, 4);
  ASSERT_EQ(Header().num_picks, 2);
  const auto* rows = ArrayAt<int32_t>(&Header(), Header().logits_rows);
  EXPECT_EQ((std::vector<int32_t>(rows, rows + 4)),
            (std::vector<int32_t>{3, 4, 1, 2}));
  const auto* picks = ArrayAt<StepPick>(&Header(), Header().picks);
  EXPECT_EQ(picks[0].logits_row, 2);
  EXPECT_EQ(picks[0].temperature, 0.5f);
  EXPECT_EQ(picks[0].uniform, 0.25);
  EXPECT_EQ(picks[1].logits_row, 3);
  EXPECT_EQ(picks[1].top_k, 3);
  EXPECT_EQ(picks[1].adjustments_begin, 2);
  EXPECT_EQ(picks[1].adjustments_end, 3);
  const auto* adjustments =
      ArrayAt<LogitAdjustment>(&Header(), Header().adjustments);
  EXPECT_EQ(adjustments[1].id, 7);
  EXPECT_EQ(adjustments[2].id, 9);
  plan_.KeepPicks({11, 12});
  EXPECT_EQ(picked, (std::vector<int32_t>{11, 12}));
}

TEST_F(StepPlanTest, TheImageSaysWhereARowsKeyGoes) {
  Add(50, 2);
  Shape();
  const auto* rows = ArrayAt<StepRow>(&Header(), Header().rows);
  EXPECT_EQ(rows[1].text_position, 49);
  EXPECT_EQ(rows[1].block, 3);
  EXPECT_EQ(rows[1].slot, 1);
  EXPECT_EQ(rows[1].value_block, -1);
}

TEST_F(StepPlanTest, SumsComeBackToTheViewThatAsks) {
  cache::HeadTable<float> sums(2, 3, 100);
  sums.At(1, 2)[99] = 5;
  Add(30, 1);
  Add(60, 2);
  views_[1].attention = {{1, 1}, 0.5f, &sums};
  EXPECT_EQ(Shape().asking_chunks, 2);
  EXPECT_EQ(Shape().asked_positions, 100);
  std::vector<uint8_t> bytes(plan_.image().begin() + plan_.sums_begin(),
                             plan_.image().begin() + plan_.sums_end());
  auto* const numbers = reinterpret_cast<float*>(bytes.data());
  EXPECT_EQ(numbers[6 * 100 - 1], 5);
  numbers[3 * 100] = 7;
  plan_.KeepSums(bytes);
  EXPECT_EQ(sums.At(1, 0)[0], 7);
}

// 2 layers, 3 heads: sums of 100 positions are 2,400 bytes, moved keys of 60 of
// them 2,880.
TEST_F(StepPlanTest, PiecesHaveNoMoreTablesThanThereIsRoomFor) {
  cache::HeadTable<float> sums(2, 3, 100);
  cache::HeadTable<int64_t> positions(2, 3, 100);
  for (int i = 0; i < 4; ++i) Add(60, 2);
  views_[0].attention = {{1, 1}, 1, &sums};
  views_[1].key_positions = &positions;
  views_[3].attention = {{1, 1}, 1, &sums};
  const auto chunks = [&](int64_t most) {
    std::vector<size_t> of_pieces;
    for (const Batch& piece : InPieces(batch_, kOptions, most)) {
      of_pieces.push_back(piece.chunks.size());
    }
    return of_pieces;
  };
  EXPECT_EQ(chunks(2400 + 2880 + 2400), (std::vector<size_t>{4}));
  EXPECT_EQ(chunks(2400 + 2880 + 2399), (std::vector<size_t>{3, 1}));
  EXPECT_EQ(chunks(5279), (std::vector<size_t>{1, 2, 1}));
  EXPECT_EQ(chunks(1), (std::vector<size_t>{1, 2, 1}));  // none is empty
  plan_.Begin(InPieces(batch_, kOptions, 5279)[0], KvDtype::kF16);
  EXPECT_EQ(plan_.sums_end() - plan_.sums_begin(), 2400 + 2 * 4);
}

TEST_F(StepPlanTest, RowsThatWeighNothingAskForNothing) {
  cache::HeadTable<float> sums(2, 3, 100);
  Add(60, 2);
  views_[0].attention = {{0, 0}, 1, &sums};
  EXPECT_EQ(Shape().asking_chunks, 0);
  EXPECT_EQ(plan_.sums_begin(), plan_.sums_end());
  views_[0].attention->decay = 0.5f;
  EXPECT_EQ(Shape().asking_chunks, 1);
}

}  // namespace
}  // namespace millrace::backends::cuda
