// However a text arrives, in whatever company, it is read as token by token.

#include <algorithm>
#include <map>
#include <random>

#include "gtest/gtest.h"
#include "tests/exactness/models.h"
#include "tests/exactness/streaming_policies.h"

namespace millrace::testing {
namespace {

using cache::KvDtype;
using cache::SequenceId;

class CutsTest : public ::testing::TestWithParam<BackendUnderTest> {};

// Messages of 1, 3, C - 1, C and 3 C tokens, cut into chunks of other sizes.
Rows ReadMessages(ModelRunner& runner, const StreamingPolicy& policy,
                  absl::Span<const int32_t> text, int chunk) {
  const int64_t c = policy.cache;
  const int64_t sizes[] = {1, 3, c - 1, c, 3 * c};
  const SequenceId id = runner.Open(policy.policy());
  Rows rows;
  for (int i = 0; !text.empty(); ++i) {
    const auto message = text.subspan(0, sizes[i % 5]);
    const Rows read = runner.Read(id, message, chunk);
    rows.insert(rows.end(), read.begin(), read.end());
    text.remove_prefix(message.size());
  }
  runner.manager().Close(id);
  return rows;
}

TEST_P(CutsTest, MessagesAndChunksDoNotMatter) {
  for (const WeightType type : {WeightType::kF32, WeightType::kQ4_1}) {
    for (const auto& [dtype, name, bytes, scaled] : cache::kKvDtypes) {
      const auto runner = NewRunner(GetParam(), RandomModel(type), dtype);
      for (const StreamingPolicy& policy :
           {Sinks(4, 28), Sinks(0, 32), Shift(32, 4, 9),
            StreamingPolicies().back()}) {
        const std::vector<int32_t> text =
            RandomText(static_cast<int>(8 * policy.cache));
        const Rows one_by_one =
            runner->Read(runner->Open(policy.policy()), text, 1);
        for (const int chunk : {5, 16, 100}) {
          EXPECT_LE(MaxDifference(ReadMessages(*runner, policy, text, chunk),
                                  one_by_one),
                    dtype == KvDtype::kF32 ? 1e-3 : 5e-2)
              << policy << ", " << name << ", chunks of " << chunk;
        }
      }
    }
  }
}

// Eight sequences under several policies take random parts in random steps.
class Crowd {
 public:
  explicit Crowd(ModelRunner* runner) : runner_(runner) {
    const std::vector<StreamingPolicy> policies = {Sinks(4, 28), Sinks(0, 20),
                                                   Shift(32, 4, 9),
                                                   StreamingPolicies().back()};
    for (int i = 0; i < 8; ++i) {
      members_.push_back(
          {policies[i % policies.size()], RandomText(150 + 20 * i, 100 + i)});
      members_.back().id = runner->Open(members_.back().policy.policy());
    }
  }

  // Closes member `leaver` after a few steps; -1: nobody.
  void ReadTogether(int leaver) {
    std::mt19937 random(1);
    for (int step = 0; Step(random); ++step) {
      if (step != 5 || leaver < 0) continue;
      runner_->manager().Close(members_[leaver].id);
      members_[leaver].left = true;
    }
  }

  void ExpectEachAsAlone() {
    for (const Member& member : members_) {
      if (member.left) continue;
      const SequenceId id = runner_->Open(member.policy.policy());
      EXPECT_EQ(member.rows, runner_->Read(id, member.text, 64));
      runner_->manager().Close(id);
    }
  }

 private:
  struct Member {
    StreamingPolicy policy;
    std::vector<int32_t> text;
    SequenceId id = 0;
    Rows rows = {};
    bool left = false;
  };

  bool Step(std::mt19937& random) {
    std::vector<ModelRunner::Part> parts;
    std::vector<Member*> who;
    bool more = false;
    for (Member& member : members_) {
      const int done = static_cast<int>(member.rows.size());
      const int rest = static_cast<int>(member.text.size()) - done;
      if (member.left || rest == 0) continue;
      more = true;
      const int64_t most =
          std::min<int64_t>(rest, runner_->manager().MaxChunk(member.id));
      const int take = static_cast<int>(
          std::min<int64_t>(most, random() % 2 ? 1 : random() % 30));
      if (take == 0) continue;
      const auto begin = member.text.begin() + done;
      parts.push_back({member.id, {begin, begin + take}});
      who.push_back(&member);
    }
    if (parts.empty()) return more;
    const std::vector<Rows> rows = runner_->Step(parts);
    for (size_t i = 0; i < who.size(); ++i) {
      who[i]->rows.insert(who[i]->rows.end(), rows[i].begin(), rows[i].end());
    }
    return true;
  }

  ModelRunner* const runner_;
  std::vector<Member> members_;
};

// Quantised weights have one kernel at every batch size, so these are the same
// bits on every backend. Float weights, in `onednn`, go to a library for large
// batches: there this holds with --deterministic only (tests/contract).
TEST_P(CutsTest, ACrowdIsEachAlone) {
  const auto runner =
      NewRunner(GetParam(), RandomModel(WeightType::kQ4_1), KvDtype::kF16);
  Crowd crowd(runner.get());
  crowd.ReadTogether(-1);
  crowd.ExpectEachAsAlone();
}

TEST_P(CutsTest, OneThatLeavesChangesNobody) {
  const auto runner =
      NewRunner(GetParam(), RandomModel(WeightType::kQ4_1), KvDtype::kF16);
  Crowd crowd(runner.get());
  crowd.ReadTogether(3);
  crowd.ExpectEachAsAlone();
}

INSTANTIATE_TEST_SUITE_P(Backends, CutsTest,
                         ::testing::ValuesIn(BackendsAsChosen()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace millrace::testing
