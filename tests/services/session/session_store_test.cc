// The store over a real engine and the fake model: opening, finding again,
// ending, and exactness of what is written.
#include "services/session/session_store.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/errors/errors.h"
#include "tests/services/session/session_harness.h"
#include "tests/testing/fake_model.h"

namespace millrace::session {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

constexpr testing::FakeModelOptions kModel{.vocabulary_size = kVocabulary,
                                           .picks_tokens = true};
constexpr char kPolicy[] = "sinks:sink_tokens=4,window_tokens=40";

// A client's stream: reads all events when it is asked to.
class Stream final : public StreamOwner {
 public:
  void OnEnd(const absl::Status& status) override {
    absl::MutexLock lock(&mutex_);
    ended_ = status;
  }
  std::optional<absl::Status> ended() {
    absl::MutexLock lock(&mutex_);
    return ended_;
  }
  std::string EndReason() {
    const auto status = ended();
    return status ? errors::ReasonOf(*status) : "not ended";
  }
  // Waits until the stream is ended.
  void AwaitEnd() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](Stream* s) ABSL_EXCLUSIVE_LOCKS_REQUIRED(s->mutex_) {
          return s->ended_.has_value();
        },
        this));
  }

  const StreamId id = SessionStore::NewStreamId();

 private:
  absl::Mutex mutex_;
  std::optional<absl::Status> ended_ ABSL_GUARDED_BY(mutex_);
};

class StoreTest : public ::testing::Test {
 protected:
  StoreTest() : format_(&tokenizer_) {}
  ~StoreTest() override { End(); }

  void Begin(StoreOptions options = {}, int blocks = 4000) {
    engine_ = std::make_unique<engine::Engine>(
        std::make_unique<testing::FakeModel>(kModel, &hooks_),
        std::make_unique<testing::FakeKvStorage>(blocks),
        engine::EngineOptions{});
    StoreDependencies deps;
    deps.engine = engine_.get();
    deps.tokenizer = &tokenizer_;
    deps.chat_format = &format_;
    deps.now = [this] {
      absl::MutexLock lock(&mutex_);
      return now_;
    };
    deps.on_event = [this](const std::string&, absl::string_view,
                           const EventBody& event) {
      if (on_event_) on_event_(event);
    };
    options.default_policy = kPolicy;
    store_ = SessionStore::Create(options, deps);
    engine_->Start();
  }
  void End() {
    if (engine_) engine_->Stop();
    store_.reset();
  }

  static OpenOptions Plain() {
    OpenOptions open;
    open.format = Format::kPlain;
    open.generation = ConversationOptions::Greedy();
    open.idle_timeout = absl::Minutes(30);
    open.detach_timeout = absl::Minutes(1);
    open.rollback_tokens = 16;
    return open;
  }

  absl::StatusOr<std::shared_ptr<SessionHandle>> Open(
      Stream* stream, const OpenOptions& open = Plain()) {
    return Await([&](SessionStore::OpenCallback done) {
      store_->Open(open, stream->id, stream, std::move(done));
    });
  }
  absl::StatusOr<std::shared_ptr<SessionHandle>> Resume(
      Stream* stream, const std::string& id, const std::string& token,
      uint64_t last) {
    return Await([&](SessionStore::OpenCallback done) {
      store_->Resume(id, token, last, stream->id, stream, std::move(done));
    });
  }
  // Everything that was posted before is done.
  void Sync() {
    absl::Notification done;
    engine_->Post([&] { done.Notify(); });
    done.WaitForNotification();
  }
  void Pass(absl::Duration time) {
    {
      absl::MutexLock lock(&mutex_);
      now_ += time;
    }
    store_->Tick();
    Sync();
  }

  static std::vector<Event> ReadAll(SessionHandle& session) {
    std::vector<Event> events;
    while (auto event = session.log().Take()) events.push_back(*event);
    return events;
  }
  // Reads until an event of that kind has come.
  template <typename T>
  static std::vector<Event> ReadUntil(SessionHandle& session) {
    std::vector<Event> events;
    while (events.empty() || !std::holds_alternative<T>(events.back().body)) {
      if (auto event = session.log().Take()) {
        events.push_back(*std::move(event));
      } else {
        absl::SleepFor(absl::Microseconds(100));
      }
    }
    return events;
  }
  static std::string TokenOf(const std::vector<Event>& events) {
    return std::get<Opened>(events[0].body).resume_token;
  }
  void Say(SessionHandle& session, const Stream& stream,
           decltype(ClientMessage::body) body) {
    session.Submit(stream.id,
                   {.client_seq = std::nullopt, .body = std::move(body)});
  }

  absl::StatusOr<std::shared_ptr<SessionHandle>> Await(
      const std::function<void(SessionStore::OpenCallback)>& start) {
    absl::Notification done;
    absl::StatusOr<std::shared_ptr<SessionHandle>> result;
    start([&](absl::StatusOr<std::shared_ptr<SessionHandle>> opened) {
      result = std::move(opened);
      done.Notify();
    });
    done.WaitForNotification();
    return result;
  }

  ByteTokenizer tokenizer_;
  LetterFormat format_;
  testing::FakeModelHooks hooks_;
  std::function<void(const EventBody&)> on_event_;  // set before Begin
  absl::Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_) = absl::UnixEpoch();
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<SessionStore> store_;
};

TEST_F(StoreTest, OpensASessionWithASecretOfItsOwn) {
  Begin();
  Stream stream, other_stream;
  const auto session = Open(&stream), other = Open(&other_stream);
  ASSERT_TRUE(session.ok() && other.ok());
  const auto events = ReadAll(**session);
  const auto& opened = std::get<Opened>(events[0].body);
  EXPECT_EQ(events[0].sequence_number, 1u);
  EXPECT_EQ(opened.session_id, (*session)->id());
  EXPECT_EQ(opened.session_id.size(), 32u);
  EXPECT_EQ(opened.resume_token.size(), 64u);
  EXPECT_GT(opened.reserved_bytes, 0u);
  EXPECT_NE(opened.resume_token, TokenOf(ReadAll(**other)));
  EXPECT_EQ(store_->num_sessions(), 2);
}

TEST_F(StoreTest, ChatIsTheDefaultWhereThereIsATemplate) {
  Begin();
  Stream stream;
  OpenOptions open = Plain();
  open.format.reset();
  open.system_prompt = "Hi";
  const auto events = ReadAll(**Open(&stream, open));
  EXPECT_EQ(std::get<Opened>(events[0].body).options.format, Format::kChat);
  EXPECT_EQ(std::get<Opened>(events[0].body).system_token_ids,
            format_.SystemBlock("Hi"));
}

// 1 sink token, "abc" and 60 tokens written: the newest sees the sink, 40 more
// and itself, so that 64 - 42 are evicted, from position 1 on.
TEST_F(StoreTest, ASinkTokenIsTokenZeroAndTheOnlySinkUnlessTold) {
  constexpr int32_t kSink = 7;
  tokenizer_.sink = kSink;
  hooks_.edit_logits = [](int64_t, int32_t, absl::Span<float> logits) {
    logits[kEndOfTurn] = -100;
  };
  Begin();
  Stream stream;
  OpenOptions open = Plain();
  open.policy = *cache::ParsePolicy("sinks:window_tokens=40");
  const auto session = *Open(&stream, open);
  Say(*session, stream, Text("abc"));
  Say(*session, stream, Generate(60));
  std::vector<int32_t> text = {kSink, 'a', 'b', 'c'};
  TurnFinished finished;
  std::optional<int64_t> first_evicted;
  for (const Event& event : ReadUntil<TurnFinished>(*session)) {
    if (const auto* opened = std::get_if<Opened>(&event.body)) {
      EXPECT_THAT(opened->system_token_ids, ElementsAre(kSink));
      EXPECT_EQ(opened->options.policy,
                "sinks:sink_tokens=1,window_tokens=40,"
                "pin_system_prompt=true,pin_tokens=0");
    } else if (const auto* input = std::get_if<InputAccepted>(&event.body)) {
      EXPECT_EQ(input->text_position, 1u);
      EXPECT_EQ(input->tokens, 3u);
    } else if (const auto* update = std::get_if<CacheUpdated>(&event.body)) {
      if (!first_evicted) first_evicted = update->evicted.at(0).begin;
      EXPECT_EQ(update->sink_tokens, 1u);
    } else if (const auto* output = std::get_if<Output>(&event.body)) {
      text.insert(text.end(), output->token_ids.begin(),
                  output->token_ids.end());
    } else if (const auto* end = std::get_if<TurnFinished>(&event.body)) {
      finished = *end;
    }
  }
  EXPECT_EQ(first_evicted, 1);
  EXPECT_EQ(finished.usage.input_tokens, 4u);
  EXPECT_EQ(finished.usage.text_position, 64u);
  EXPECT_EQ(finished.usage.visible_tokens, 42u);
  EXPECT_EQ(finished.usage.evicted_tokens, 22u);
  ASSERT_THAT(text, SizeIs(64));
  const auto policy =
      cache::MakePolicy(*cache::ParsePolicy("sinks:sink_tokens=1,"
                                            "window_tokens=40"),
                        {.trained_context = 8192, .max_resident_tokens = 8192});
  testing::FakeOracle oracle(kModel, policy->policy);
  oracle.Append(text);
  for (size_t position = 4; position < text.size(); ++position) {
    auto logits = oracle.Logits(static_cast<int64_t>(position) - 1);
    logits[kEndOfTurn] = -100;
    const auto best = std::max_element(logits.begin(), logits.end());
    ASSERT_EQ(text[position], best - logits.begin()) << position;
  }
}

TEST_F(StoreTest, RefusesAPolicyThatDoesNotFitTheModel) {
  Begin();
  Stream stream;
  OpenOptions open = Plain();
  open.policy = *cache::ParsePolicy("sinks:window_tokens=9000");
  const auto session = Open(&stream, open);
  EXPECT_EQ(session.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(errors::ReasonOf(session.status()), "INVALID_CACHE_POLICY");
}

TEST_F(StoreTest, RefusesMoreSessionsThanItMayHold) {
  Begin({.max_sessions = 1});
  Stream first, second;
  const auto session = Open(&first);
  ASSERT_TRUE(session.ok());
  const absl::Status refused = Open(&second).status();
  EXPECT_EQ(errors::ReasonOf(refused), "SESSION_LIMIT");
  EXPECT_TRUE(errors::DetailsOf(refused).retry_after.has_value());
  Say(**session, first, CloseSession{});
  first.AwaitEnd();
  EXPECT_TRUE(Open(&second).ok());
}

TEST_F(StoreTest, RefusesASessionForWhichThereIsNoMemory) {
  Begin({}, /*blocks=*/10);
  Stream first, second;
  ASSERT_TRUE(Open(&first).ok());  // 9 blocks or more
  EXPECT_EQ(errors::ReasonOf(Open(&second).status()), "KV_BUDGET");
}

// What is written is what the same text, read in one piece, would have got.
TEST_F(StoreTest, InputAtAnyStepEqualsTheSameTextReadInOnePiece) {
  for (int step = 1; step <= 40; step += 3) {
    SCOPED_TRACE(step);
    Stream stream;
    std::shared_ptr<SessionHandle> session;
    int tokens = 0;
    on_event_ = [&](const EventBody& event) {
      if (const auto* output = std::get_if<Output>(&event)) {
        for (size_t i = 0; i < output->token_ids.size(); ++i) {
          if (++tokens == step) Say(*session, stream, Text("inserted"));
        }
      }
    };
    hooks_.edit_logits = [](int64_t, int32_t, absl::Span<float> logits) {
      // Letters only: every token is a character and none ends the turn.
      std::fill(logits.begin(), logits.begin() + 'a', -100);
      std::fill(logits.begin() + 'z' + 1, logits.end(), -100);
    };
    Begin();
    session = *Open(&stream);
    Say(*session, stream, Text("once upon a time"));
    Say(*session, stream, Generate(80));
    std::vector<int32_t> text, written;
    std::vector<size_t> positions;
    for (const Event& event : ReadUntil<TurnFinished>(*session)) {
      if (const auto* input = std::get_if<InputAccepted>(&event.body)) {
        ASSERT_EQ(input->text_position, text.size());
        const auto ids =
            tokenizer_.Encode(text.empty() ? "once upon a time" : "inserted",
                              text::SpecialTokens::kAsText);
        text.insert(text.end(), ids.begin(), ids.end());
      } else if (const auto* output = std::get_if<Output>(&event.body)) {
        for (const int32_t id : output->token_ids) {
          positions.push_back(text.size());
          text.push_back(id);
        }
      }
    }
    ASSERT_THAT(positions, SizeIs(80));
    const auto policy = cache::MakePolicy(
        *cache::ParsePolicy(kPolicy),
        {.trained_context = 8192, .max_resident_tokens = 8192});
    testing::FakeOracle oracle(kModel, policy->policy);
    oracle.Append(text);
    for (const size_t position : positions) {
      const auto logits = oracle.Logits(static_cast<int64_t>(position) - 1);
      const auto best =
          std::max_element(logits.begin() + 'a', logits.begin() + 'z' + 1);
      ASSERT_EQ(text[position], best - logits.begin()) << position;
    }
    session.reset();
    End();
  }
}

TEST_F(StoreTest, ResumeAtEveryEventGivesTheSameSequence) {
  hooks_.edit_logits = [](int64_t position, int32_t, absl::Span<float> logits) {
    testing::Force('a' + static_cast<int32_t>(position % 26), logits);
  };
  Begin();
  Stream first;
  auto session = *Open(&first);
  Say(*session, first, Text("abc"));
  Say(*session, first, Generate(30));
  const auto events = ReadUntil<TurnFinished>(*session);
  const std::string token = TokenOf(events);
  std::vector<std::unique_ptr<Stream>> streams;
  for (uint64_t last = 0; last <= events.size(); ++last) {
    streams.push_back(std::make_unique<Stream>());
    ASSERT_TRUE(Resume(streams.back().get(), session->id(), token, last).ok());
    const auto again = ReadAll(*session);
    for (uint64_t i = last; i < events.size(); ++i) {
      const Event& event = again[i - last];
      ASSERT_EQ(event.sequence_number, i + 1);
      ASSERT_EQ(event.body.index(), events[i].body.index());
      const auto* output = std::get_if<Output>(&event.body);
      if (output == nullptr) continue;
      EXPECT_EQ(output->text, std::get<Output>(events[i].body).text);
      EXPECT_EQ(output->token_ids, std::get<Output>(events[i].body).token_ids);
    }
    const auto* resumed = std::get_if<Resumed>(&again.back().body);
    ASSERT_NE(resumed, nullptr);
    EXPECT_FALSE(resumed->gap);
    EXPECT_EQ(resumed->text_position, 33u);
  }
  EXPECT_EQ(store_->stats().resumed, events.size() + 1);
}

TEST_F(StoreTest, ResumeBeyondWhatIsKeptTellsTheGap) {
  StoreOptions options;
  options.log.max_kept_events = 1;
  Begin(options);
  Stream first, second;
  auto session = *Open(&first);
  Say(*session, first, Text("abc"));
  const std::string token = TokenOf(ReadUntil<InputAccepted>(*session));
  ASSERT_TRUE(Resume(&second, session->id(), token, 0).ok());
  const auto events = ReadAll(*session);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_TRUE(std::get<Resumed>(events[0].body).gap);
  EXPECT_EQ(std::get<Resumed>(events[0].body).text_position, 3u);
}

TEST_F(StoreTest, ANewerStreamFencesTheOlder) {
  Begin();
  Stream first, second;
  auto session = *Open(&first);
  const std::string token = TokenOf(ReadAll(*session));
  ASSERT_TRUE(Resume(&second, session->id(), token, 1).ok());
  EXPECT_EQ(first.EndReason(), "SESSION_FENCED");
  Say(*session, first, Text("from the old stream"));
  session->Detach(first.id);  // too late to matter
  Say(*session, second, Text("new"));
  ReadUntil<InputAccepted>(*session);
  Sync();
  EXPECT_EQ(store_->Get(session->id())->usage.text_position, 3u);
}

TEST_F(StoreTest, AnUnknownSessionAndAWrongTokenLookAlike) {
  Begin();
  Stream first, second;
  auto session = *Open(&first);
  const std::string token = TokenOf(ReadAll(*session));
  const absl::Status unknown =
      Resume(&second, std::string(32, '0'), token, 0).status();
  const absl::Status wrong =
      Resume(&second, session->id(), std::string(64, '0'), 0).status();
  EXPECT_EQ(unknown, wrong);
  EXPECT_EQ(errors::ReasonOf(wrong), "SESSION_NOT_FOUND");
  EXPECT_FALSE(first.ended());
}

TEST_F(StoreTest, ADetachedSessionWaitsForItsTimeout) {
  Begin();
  Stream stream;
  auto session = *Open(&stream);
  session->Detach(stream.id);
  EXPECT_EQ(store_->Get(session->id())->state, State::kDetached);
  Pass(absl::Seconds(59));
  EXPECT_EQ(store_->num_sessions(), 1);
  Pass(absl::Seconds(1));
  EXPECT_EQ(store_->num_sessions(), 0);
  EXPECT_EQ(std::get<Closed>(ReadAll(*session).back().body).reason,
            CloseReason::kIdle);
  EXPECT_EQ(store_->stats().expired, 1u);
}

TEST_F(StoreTest, WithoutADetachTimeoutALostStreamEndsTheSession) {
  Begin();
  Stream stream;
  OpenOptions open = Plain();
  open.detach_timeout = absl::ZeroDuration();
  auto session = *Open(&stream, open);
  session->Detach(stream.id);
  Sync();
  EXPECT_EQ(store_->num_sessions(), 0);
}

TEST_F(StoreTest, AnIdleSessionEndsWithItsStream) {
  Begin();
  Stream stream;
  auto session = *Open(&stream);
  Pass(absl::Minutes(29));
  EXPECT_FALSE(stream.ended());
  Say(*session, stream, Text("still here"));
  ReadUntil<InputAccepted>(*session);
  while (store_->Get(session->id())->state != State::kIdle) Sync();
  Pass(absl::Minutes(29));
  EXPECT_FALSE(stream.ended());
  Pass(absl::Minutes(1));
  ASSERT_TRUE(stream.ended());
  EXPECT_TRUE(stream.ended()->ok());
}

TEST_F(StoreTest, ASlowReaderLosesItsStreamAndCanComeBack) {
  StoreOptions options;
  options.log.max_unread_bytes = 1000;
  Begin(options);
  Stream stream, second;
  auto session = *Open(&stream);
  const std::string token = TokenOf(ReadAll(*session));
  OpenOptions open = Plain();
  Say(*session, stream, Text("abc"));
  Say(*session, stream, Generate(std::nullopt));
  while (store_->Get(session->id())->state != State::kPaused) Sync();
  EXPECT_EQ(store_->stats().paused, 1u);
  Pass(absl::Minutes(9));
  EXPECT_FALSE(stream.ended());
  Pass(absl::Minutes(1));
  EXPECT_EQ(stream.EndReason(), "SLOW_CONSUMER");
  EXPECT_EQ(store_->stats().slow_consumers, 1u);
  ASSERT_TRUE(Resume(&second, session->id(), token, 1).ok());
  EXPECT_GT(ReadAll(*session).size(), 3u);
}

TEST_F(StoreTest, AThousandUnreadAnswersEndTheStream) {
  Begin();
  Stream stream;
  auto session = *Open(&stream);
  for (int i = 0; i < 1024; ++i) Say(*session, stream, Interrupt{});
  Sync();
  EXPECT_FALSE(stream.ended());
  Say(*session, stream, Interrupt{});
  Sync();
  EXPECT_EQ(stream.EndReason(), "SLOW_CONSUMER");
}

TEST_F(StoreTest, ListsSessionsPageByPage) {
  Begin();
  Stream streams[5];
  std::vector<std::string> ids;
  for (Stream& stream : streams) ids.push_back((*Open(&stream))->id());
  std::sort(ids.begin(), ids.end());
  std::vector<std::string> listed;
  for (std::string after;;) {
    const auto page = store_->List(after, 2);
    if (page.empty()) break;
    for (const SessionInfo& info : page) listed.push_back(info.id);
    after = listed.back();
  }
  EXPECT_EQ(listed, ids);
}

TEST_F(StoreTest, DeletesASession) {
  Begin();
  Stream stream;
  auto session = *Open(&stream);
  EXPECT_TRUE(store_->Delete(session->id()).ok());
  stream.AwaitEnd();
  EXPECT_EQ(std::get<Closed>(ReadAll(*session).back().body).reason,
            CloseReason::kDeleted);
  EXPECT_EQ(errors::ReasonOf(store_->Delete(session->id())),
            "SESSION_NOT_FOUND");
  EXPECT_FALSE(store_->Get(session->id()).ok());
}

TEST_F(StoreTest, DrainsInTwoSteps) {
  Begin();
  Stream stream, late;
  auto session = *Open(&stream);
  const absl::Time deadline = absl::UnixEpoch() + absl::Seconds(45);
  store_->StartDrain(deadline);
  Sync();
  EXPECT_EQ(std::get<GoAway>(ReadAll(*session).back().body).deadline, deadline);
  EXPECT_EQ(errors::ReasonOf(Open(&late).status()), "DRAINING");
  EXPECT_FALSE(stream.ended());
  store_->FinishDrain();
  stream.AwaitEnd();
  EXPECT_EQ(stream.EndReason(), "DRAINING");
  EXPECT_EQ(stream.ended()->code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(std::get<Closed>(ReadAll(*session).back().body).reason,
            CloseReason::kDrained);
  Sync();
  EXPECT_EQ(store_->num_sessions(), 0);
}

TEST_F(StoreTest, ManyClientsTalkDetachAndComeBackAtOnce) {
  Begin();
  constexpr int kClients = 8;
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([&] {
      Stream first, second;
      auto session = *Open(&first);
      const std::string token = TokenOf(ReadAll(*session));
      Say(*session, first, Text("abc"));
      Say(*session, first, Generate(200));
      session->Detach(first.id);
      ASSERT_TRUE(Resume(&second, session->id(), token, 1).ok());
      Say(*session, second, Text("more"));
      Say(*session, second, HalfClose{});
      uint64_t number = 1;
      for (const Event& event : ReadUntil<Closed>(*session)) {
        EXPECT_EQ(event.sequence_number, ++number);
      }
      second.AwaitEnd();
    });
  }
  for (std::thread& client : clients) client.join();
  Sync();
  EXPECT_EQ(store_->num_sessions(), 0);
  EXPECT_EQ(engine_->stats().sequences, 0);
}

}  // namespace
}  // namespace millrace::session
