#include "services/engine/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace millrace::engine {
namespace {

SequenceFacts Decoding(int64_t id, uint64_t since = 0) {
  return {.id = id,
          .pending_tokens = 1,
          .wants_logits = true,
          .paused = false,
          .waiting_since = since};
}

SequenceFacts Reading(int64_t id, int64_t tokens, uint64_t since = 0) {
  return {.id = id,
          .pending_tokens = tokens,
          .wants_logits = false,
          .paused = false,
          .waiting_since = since};
}

SequenceFacts Paused(SequenceFacts facts) {
  facts.paused = true;
  return facts;
}

// "1 2 3:64": sequences 1 and 2 with one token, 3 with 64.
std::string Plan(const std::vector<SequenceFacts>& facts, int rows, int chunk) {
  std::string text;
  for (const PlannedRows& planned : PlanStep(
           facts, {.max_decode_rows = rows, .prefill_chunk_tokens = chunk})) {
    absl::StrAppend(&text, text.empty() ? "" : " ", planned.id);
    if (planned.tokens != 1) absl::StrAppend(&text, ":", planned.tokens);
  }
  return text;
}

TEST(SchedulerTest, PlansNothingForNobody) {
  EXPECT_EQ(Plan({}, 4, 64), "");
  EXPECT_EQ(Plan({Reading(1, 0)}, 4, 64), "");
}

TEST(SchedulerTest, DecodesEverybodyInOneStep) {
  EXPECT_EQ(Plan({Decoding(1), Decoding(2), Decoding(3)}, 4, 64), "1 2 3");
}

TEST(SchedulerTest, PutsDecodeRowsFirst) {
  EXPECT_EQ(Plan({Reading(1, 6000), Decoding(2)}, 4, 64), "2 1:64");
}

TEST(SchedulerTest, SharesTheChunkFirstComeFirstServed) {
  EXPECT_EQ(Plan({Reading(1, 50, 7), Reading(2, 40, 3)}, 4, 64), "2:40 1:24");
  EXPECT_EQ(Plan({Reading(1, 50, 7), Reading(2, 90, 3)}, 4, 64), "2:64");
}

TEST(SchedulerTest, ServesTheLowerIdFirstWhereBothCameAtOnce) {
  EXPECT_EQ(Plan({Reading(2, 50), Reading(1, 50)}, 4, 64), "1:50 2:14");
}

TEST(SchedulerTest, ReadsAPromptThatEndsInLogitsAsAChunk) {
  SequenceFacts prompt = Decoding(1);
  prompt.pending_tokens = 2;
  EXPECT_EQ(Plan({prompt}, 1, 64), "1:2");
  EXPECT_EQ(Plan({prompt}, 1, 1), "1");
}

TEST(SchedulerTest, EndsAChunkWhereTheSequenceSays) {
  SequenceFacts prompt = Reading(1, 50, 3);
  prompt.max_chunk = 10;
  EXPECT_EQ(Plan({prompt, Reading(2, 90, 7)}, 4, 64), "1:10 2:54");
}

TEST(SchedulerTest, LeavesPausedSequencesOut) {
  EXPECT_EQ(Plan({Paused(Decoding(1)), Decoding(2)}, 4, 64), "2");
  EXPECT_EQ(Plan({Paused(Reading(1, 9)), Reading(2, 70)}, 4, 64), "2:64");
}

TEST(SchedulerTest, KeepsToTheRowsOfAStep) {
  EXPECT_EQ(Plan({Decoding(1, 5), Decoding(2, 4), Decoding(3, 4)}, 2, 64),
            "2 3");
  EXPECT_EQ(Plan({Decoding(1), Decoding(2), Reading(3, 9)}, 1, 4), "1 3:4");
}

// Sequences whose next token comes right after the last was computed.
class RotationTest : public ::testing::Test {
 protected:
  // Runs `steps` steps and returns the longest wait of anybody, in steps.
  uint64_t LongestWait(std::map<int64_t, SequenceFacts> facts, int rows,
                       int chunk, uint64_t steps) {
    uint64_t longest = 0;
    for (uint64_t step = 0; step < steps; ++step) {
      std::vector<SequenceFacts> list;
      for (const auto& [id, f] : facts) list.push_back(f);
      for (const PlannedRows& planned :
           PlanStep(list,
                    {.max_decode_rows = rows, .prefill_chunk_tokens = chunk})) {
        SequenceFacts& served = facts[planned.id];
        longest = std::max(longest, step - served.waiting_since);
        served.waiting_since = step + 1;
      }
    }
    for (const auto& [id, f] : facts) {
      longest = std::max(longest, steps - f.waiting_since);
    }
    return longest;
  }
};

TEST_F(RotationTest, DecodersTakeTurns) {
  std::map<int64_t, SequenceFacts> facts;
  for (int64_t id = 1; id <= 10; ++id) facts[id] = Decoding(id);
  EXPECT_EQ(LongestWait(facts, /*rows=*/4, /*chunk=*/64, 1000), 2u);
  EXPECT_EQ(LongestWait(facts, /*rows=*/1, /*chunk=*/64, 1000), 9u);
  EXPECT_EQ(LongestWait(facts, /*rows=*/10, /*chunk=*/64, 1000), 0u);
}

TEST_F(RotationTest, AReaderThatNeverEndsDoesNotStarveOthers) {
  std::map<int64_t, SequenceFacts> facts;
  for (int64_t id = 1; id <= 5; ++id) facts[id] = Reading(id, 64);
  EXPECT_EQ(LongestWait(facts, /*rows=*/4, /*chunk=*/64, 1000), 4u);
}

}  // namespace
}  // namespace millrace::engine
