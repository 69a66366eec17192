// A sequence that is put away and goes on in another memory goes on to the bit.

#include <string>
#include <vector>

#include "cache/kv_storage.h"
#include "gtest/gtest.h"
#include "tests/exactness/models.h"
#include "tests/testing/named_policy.h"

namespace millrace::testing {
namespace {

using cache::SequenceId;

// One form of each policy, full long before a text of 150 tokens ends.
constexpr const char* kPolicies[] = {
    "full:max_tokens=300",
    "window:window_tokens=40",
    "sinks:sink_tokens=4,window_tokens=40",
    "reprefill:window_tokens=40,rebuild_every=16,pin_tokens=4",
    "shift:context_tokens=48,n_keep=4",
    "tova:budget_tokens=40,evict_stride=8",
    "h2o:budget_tokens=40,evict_stride=8,recent_tokens=12",
    "snapkv:budget_tokens=40,segment_tokens=80,vote_window=8",
};

// Copies a sequence as a caller of the cache manager would.
SequenceId Restore(ModelRunner& from, SequenceId id, const std::string& policy,
                   int max_rows, ModelRunner& to) {
  const cache::SequenceOptions options{.policy = NamedPolicy(policy),
                                       .max_chunk_tokens = max_rows};
  const SequenceId copy =
      to.manager().Restore(options, from.manager().Record(id)).value();
  const auto blocks = from.manager().Blocks(id);
  const auto places = to.manager().Blocks(copy);
  EXPECT_EQ(places.size(), blocks.size());
  std::vector<float> values(
      blocks.size() *
      static_cast<size_t>(cache::CanonicalBlockValues(from.storage().spec())));
  EXPECT_TRUE(from.storage().ReadBlocks(blocks, absl::MakeSpan(values)).ok());
  EXPECT_TRUE(to.storage().WriteBlocks(places, values).ok());
  return copy;
}

class RestoreTest : public ::testing::TestWithParam<BackendUnderTest> {};

TEST_P(RestoreTest, TheNextTokensAreTheSameToTheBit) {
  constexpr int kMaxRows = 64;
  for (const auto& [dtype, name, bytes, scaled] : cache::kKvDtypes) {
    const auto first =
        NewRunner(GetParam(), RandomModel(WeightType::kF32), dtype, kMaxRows);
    const auto second =
        NewRunner(GetParam(), RandomModel(WeightType::kF32), dtype, kMaxRows);
    // The blocks of the copy are not those of the original.
    second->Read(second->Open(NamedPolicy("full:max_tokens=40")),
                 RandomText(33, 7), 33);
    for (const std::string policy : kPolicies) {
      const std::vector<int32_t> text = RandomText(190);
      const auto all = absl::MakeConstSpan(text);
      const SequenceId id = first->Open(NamedPolicy(policy));
      first->manager().SetInputEnd(id, 150);
      first->Read(id, all.first(150), 30);
      const SequenceId copy = Restore(*first, id, policy, kMaxRows, *second);
      second->Adopt(copy, all.first(150));
      const Rows expected = first->Read(id, all.subspan(150), 1);
      EXPECT_EQ(second->Read(copy, all.subspan(150), 1), expected)
          << policy << ", " << name;
      first->manager().Close(id);
      second->manager().Close(copy);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, RestoreTest,
                         ::testing::ValuesIn(BackendsAsChosenAndSlow()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace millrace::testing
