// Random conversations. Whatever a client says, at whatever step: every
// position is told exactly once, evictions are exactly those of the policy,
// every turn ends exactly once, and no credit is lost.
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/services/session/session_harness.h"

namespace millrace::session {
namespace {

// What a client can know: the text, built of events alone.
class Account {
 public:
  void Take(const EventBody& event) {
    std::visit([this](const auto& body) { On(body); }, event);
  }
  const std::vector<int32_t>& text() const { return text_; }
  const std::set<int64_t>& evicted() const { return evicted_; }
  int64_t open_turns() const { return static_cast<int64_t>(open_.size()); }
  // Numbers of turns: 1, 2, 3, ..., in whatever order they finished.
  const std::set<uint64_t>& finished() const { return finished_; }

 private:
  void On(const Opened& event) { system_ = text_ = event.system_token_ids; }
  void On(const InputAccepted& event) {
    EXPECT_EQ(event.text_position, text_.size());
    EXPECT_TRUE(event.turn == 0 || open_.count(event.turn) == 1);
    text_.resize(text_.size() + event.tokens, -1);
  }
  void On(const TurnStarted& event) {
    EXPECT_EQ(event.text_position, text_.size());
    EXPECT_TRUE(open_.insert(event.turn).second);
    EXPECT_EQ(finished_.count(event.turn), 0u);
    text_.insert(text_.end(), event.prefix_token_ids.begin(),
                 event.prefix_token_ids.end());
  }
  void On(const Output& event) {
    EXPECT_EQ(event.text_position, text_.size());
    EXPECT_EQ(open_.count(event.turn), 1u);
    text_.insert(text_.end(), event.token_ids.begin(), event.token_ids.end());
  }
  void On(const TurnFinished& event) {
    EXPECT_TRUE(finished_.insert(event.turn).second);
    open_.erase(event.turn);
    EXPECT_LE(event.kept_until, text_.size());
    text_.resize(event.kept_until);
  }
  void On(const CacheUpdated& event) {
    for (const cache::TextRange& range : event.restored) {
      for (int64_t p = range.begin; p < range.end; ++p) {
        EXPECT_EQ(evicted_.erase(p), 1u) << "restored " << p;
      }
    }
    for (const cache::TextRange& range : event.evicted) {
      for (int64_t p = range.begin; p < range.end; ++p) {
        EXPECT_TRUE(evicted_.insert(p).second) << "evicted twice " << p;
      }
    }
    EXPECT_EQ(event.total_evicted_tokens, evicted_.size());
  }
  void On(const OptionsUpdated& event) {
    // The test updates nothing: this is a reset.
    text_ = system_;
    evicted_.clear();
  }
  template <typename Other>
  void On(const Other&) {}

  // Tokens that only the client knows are -1.
  std::vector<int32_t> system_, text_;
  std::set<int64_t> evicted_;
  std::set<uint64_t> open_, finished_;
};

class RandomClient {
 public:
  RandomClient(uint64_t seed, const ConversationOptions& options)
      : random_(seed), chat_(options) {
    chat_.next_token = [this](int64_t) -> int32_t {
      if (Dice(40)) return kEndOfTurn;
      if (Dice(10)) return 0xC3;  // the first half of a character
      return 'a' + static_cast<int32_t>(random_() % 26);
    };
  }

  void Talk(int messages) {
    for (int i = 0; i < messages && !chat_.closed; ++i) {
      if (Dice(2)) chat_.Steps(static_cast<int>(random_() % 20));
      if (Dice(3)) chat_.Read();
      SayAnything();
      Check();
    }
    EndText();
    for (int i = 0; i < 100 && !chat_.closed; ++i) {
      chat_.Read();
      chat_.Run();
      Check();
      if (chat_.state() == State::kIdle) break;
    }
    if (!chat_.closed) chat_.Say(HalfClose{});
    ASSERT_TRUE(chat_.closed.has_value());
    CheckEnd();
  }

 private:
  bool Dice(int sides) { return random_() % sides == 0; }
  std::string Letters() {
    const size_t most = Dice(8) ? 300 : 12;
    return std::string(1 + random_() % most, Dice(3) ? 't' : 'h');
  }
  std::optional<uint64_t> SomeSeq() {
    if (!Dice(3)) return std::nullopt;
    return last_seq_ > 3 ? last_seq_ - random_() % 3 : last_seq_;
  }

  void SayAnything() {
    switch (random_() % 16) {
      case 0:
      case 1:
      case 2:
        last_seq_ = chat_.Say(RandomAppend());
        return;
      case 3:
      case 4:
      case 5:
        last_seq_ = chat_.Say(Text(Letters()));
        more_follows_ = false;
        return;
      case 6:
      case 7:
      case 8:
        last_seq_ = chat_.Say(Ask(Letters()));
        more_follows_ = false;
        return;
      case 9:
      case 10:
        last_seq_ = chat_.Say(Generate(1 + random_() % 60));
        return;
      case 11:
      case 12:
      case 13: {
        Interrupt interrupt{.started_by = SomeSeq()};
        if (Dice(2)) {
          interrupt.keep_until_text_position =
              static_cast<uint64_t>(chat_.length()) - random_() % 40;
        }
        interrupt.drop_pending_input = Dice(4);
        last_seq_ = chat_.Say(interrupt);
        return;
      }
      case 14:
        if (Dice(4)) last_reset_ = last_seq_ = chat_.Say(ResetSession{});
        return;
      default:
        // A number used before, but not that of a reset, which the account
        // would count twice; and a gap.
        if (last_seq_ != last_reset_) chat_.Say(Text("again"), last_seq_);
        chat_.Say(Text("too soon"), last_seq_ + 5);
    }
  }

  AppendInput RandomAppend() {
    std::vector<Input> inputs;
    if (Dice(2)) {
      inputs.push_back(TextInput{.text = Letters()});
    } else if (Dice(2)) {
      inputs.push_back(std::vector<int32_t>(1 + random_() % 9, 'i'));
    } else {
      inputs.push_back(User(Letters()));
      if (Dice(2)) inputs.push_back(User(Letters()));
    }
    AppendInput append = Append(std::move(inputs));
    if (Dice(3)) append.placement = NextStep{};
    if (Dice(4)) append.placement = AfterTurn{};
    if (Dice(5)) {
      append.placement = AtTextPosition{static_cast<uint64_t>(chat_.length()) +
                                        random_() % 50};
    }
    append.only_in_turn_started_by = SomeSeq();
    append.more_follows =
        Dice(3) && std::holds_alternative<TextInput>(append.inputs.back());
    if (!append.more_follows && Dice(3)) append.then_generate = Generate(30);
    more_follows_ = append.more_follows;
    return append;
  }
  void EndText() {
    if (more_follows_ && !chat_.closed) chat_.Say(Text("end"));
  }

  void Check() {
    for (; checked_ < chat_.events.size(); ++checked_) {
      account_.Take(chat_.events[checked_]);
    }
    if (chat_.closed) return;
    const std::vector<int32_t>& text = chat_.sequence->ids();
    ASSERT_EQ(account_.text().size(), text.size());
    for (size_t p = 0; p < text.size(); ++p) {
      if (account_.text()[p] >= 0) {
        ASSERT_EQ(account_.text()[p], text[p]) << p;
      }
    }
    // Never ahead of the policy; behind it by less than an interval.
    const auto evicted = EvictedOf(chat_.length());
    for (const int64_t p : account_.evicted()) {
      ASSERT_TRUE(evicted.count(p) == 1) << p << " of " << text.size();
    }
  }

  void CheckEnd() {
    Check();
    EXPECT_EQ(account_.open_turns(), 0);
    const std::set<uint64_t>& turns = account_.finished();
    EXPECT_EQ(turns.empty() ? 0 : *turns.rbegin(), turns.size());
    EXPECT_EQ(chat_.credit.pending(), 0);
    chat_.Read();
    for (size_t i = 0; i < chat_.read.size(); ++i) {
      ASSERT_EQ(chat_.read[i].sequence_number, i + 1);
    }
    const auto closed = chat_.Told<Closed>().back();
    EXPECT_EQ(closed.usage.text_position, account_.text().size());
    EXPECT_EQ(closed.usage.text_position - closed.usage.visible_tokens,
              EvictedOf(static_cast<int64_t>(account_.text().size())).size());
  }

  std::set<int64_t> EvictedOf(int64_t length) const {
    std::set<int64_t> evicted;
    if (length == 0) return evicted;
    for (int64_t p = 0; p < length; ++p) evicted.insert(p);
    for (const cache::TextRange& range :
         cache::VisibleRanges(chat_.policy->Rules(length - 1), length - 1)) {
      for (int64_t p = range.begin; p < range.end; ++p) evicted.erase(p);
    }
    return evicted;
  }

  std::mt19937_64 random_;
  Conversation chat_;
  Account account_;
  size_t checked_ = 0;
  uint64_t last_seq_ = 1, last_reset_ = 0;
  bool more_follows_ = false;
};

class SessionPropertyTest : public ::testing::TestWithParam<const char*> {
 protected:
  static int Rounds() {
    return std::getenv("MILLRACE_FULL") != nullptr ? 2000 : 30;
  }
};

TEST_P(SessionPropertyTest, EveryPositionIsToldOnceWhateverIsSaid) {
  for (int seed = 0; seed < Rounds(); ++seed) {
    SCOPED_TRACE(seed);
    ConversationOptions options{.policy = GetParam()};
    options.format = seed % 2 == 0 ? Format::kChat : Format::kPlain;
    options.rollback_tokens = seed % 3 * 20;
    options.max_pending_input_bytes = 2000;
    options.log.max_unread_events = 40;
    options.chunk_tokens = 1 + seed % 16;
    options.generation.response.cache_update_interval_tokens = 10;
    RandomClient(static_cast<uint64_t>(seed), options).Talk(120);
    if (HasFatalFailure() || HasNonfatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, SessionPropertyTest,
                         ::testing::Values("sinks:window_tokens=30",
                                           "window:window_tokens=7",
                                           "full:max_tokens=700",
                                           "full:max_tokens=90,on_full=error"));

}  // namespace
}  // namespace millrace::session
