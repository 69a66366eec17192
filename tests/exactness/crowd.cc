#include "tests/exactness/crowd.h"

#include <algorithm>

#include "gtest/gtest.h"
#include "tests/exactness/models.h"

namespace millrace::testing {

Crowd::Crowd(ModelRunner* runner, const Policies& policies) : runner_(runner) {
  for (int i = 0; i < 8; ++i) {
    members_.push_back({.policy = policies[i % policies.size()],
                        .text = RandomText(150 + 20 * i, 100 + i)});
    Member& member = members_.back();
    member.id = runner->Open(member.policy);
    runner->manager().SetInputEnd(member.id, std::ssize(member.text));
  }
}

void Crowd::ReadTogether(int leaver) {
  std::mt19937 random(1);
  for (int step = 0; Step(random); ++step) {
    if (step != 5 || leaver < 0) continue;
    runner_->manager().Close(members_[leaver].id);
    members_[leaver].left = true;
  }
}

void Crowd::ExpectEachAsAlone() {
  for (const Member& member : members_) {
    if (member.left) continue;
    const cache::SequenceId id = runner_->Open(member.policy);
    runner_->manager().SetInputEnd(id, std::ssize(member.text));
    EXPECT_EQ(member.rows, runner_->Read(id, member.text, 64));
    runner_->manager().Close(id);
  }
}

bool Crowd::Step(std::mt19937& random) {
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

}  // namespace millrace::testing
