// A small language for tests of the session's state machine: the test is the
// client and the engine, and takes one step after the other.
//
//   Conversation chat({.policy = "sinks:sink_tokens=4,window_tokens=60"});
//   chat.Say(Message("Hi"), Generate());
//   chat.Steps(3);
//   EXPECT_EQ(chat.Told<TurnStarted>().back().text_position, 14u);
//
// The model writes what the test says, "abcdef..." if it says nothing. Tokens
// are bytes; "th" is one token, so that the cut of a text matters; 257 ends a
// turn.
#ifndef MILLRACE_TESTS_SERVICES_SESSION_SESSION_HARNESS_H_
#define MILLRACE_TESTS_SERVICES_SESSION_SESSION_HARNESS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cache/cache_manager.h"
#include "services/engine/engine.h"
#include "services/session/inbox.h"
#include "services/session/session.h"
#include "services/text/chat_format.h"
#include "services/text/tokenizer.h"

namespace millrace::session {

inline constexpr int32_t kStart = 256;      // <s>
inline constexpr int32_t kEndOfTurn = 257;  // </s>
inline constexpr int32_t kTh = 258;         // "th"
inline constexpr int32_t kVocabulary = 259;

// Bytes, and "th".
class ByteTokenizer final : public text::Tokenizer {
 public:
  ByteTokenizer();
  std::vector<int32_t> Encode(absl::string_view text,
                              text::SpecialTokens special) const override;
  absl::string_view TokenBytes(int32_t id) const override;
  std::string Decode(absl::Span<const int32_t> ids,
                     text::SpecialTokens special) const override;
  absl::string_view Spelling(int32_t id) const override;
  std::optional<int32_t> FindSpecial(absl::string_view spelling) const override;
  bool IsSpecial(int32_t id) const override;
  bool IsEndOfTurn(int32_t id) const override { return id == kEndOfTurn; }
  const std::vector<int32_t>& end_of_turn_ids() const override {
    return end_of_turn_;
  }
  int32_t vocabulary_size() const override { return kVocabulary; }
  std::optional<int32_t> sink_id() const override { return sink; }
  std::optional<int32_t> bos_id() const override { return std::nullopt; }
  size_t LastSafeCut(absl::string_view text,
                     text::SpecialTokens special) const override;
  std::optional<SpecialMatch> FirstSpecial(
      absl::string_view text) const override {
    return std::nullopt;
  }

  std::optional<int32_t> sink;  // a test may choose one before it opens

 private:
  std::vector<std::string> bytes_;
  const std::vector<int32_t> end_of_turn_ = {kEndOfTurn};
};

// <s>S:prompt</s>\n  <s>U:content</s>  \n  <s>A:  ...  </s>
class LetterFormat final : public text::ChatFormat {
 public:
  explicit LetterFormat(const text::Tokenizer* tokenizer)
      : tokenizer_(tokenizer) {}
  std::vector<int32_t> SystemBlock(
      std::optional<absl::string_view> prompt) const override;
  std::vector<int32_t> Message(text::Role role,
                               absl::string_view content) const override;
  const std::vector<int32_t>& AssistantHeader() const override {
    return header_;
  }
  const std::vector<int32_t>& EndMessage() const override { return end_; }
  const std::vector<int32_t>& ClosingGlue() const override { return glue_; }
  absl::StatusOr<text::RenderedChat> Render(
      absl::Span<const text::ChatMessage> messages,
      bool add_assistant_header) const override;

 private:
  const text::Tokenizer* const tokenizer_;
  const std::vector<int32_t> header_ = {kStart, 'A', ':'}, end_ = {kEndOfTurn},
                             glue_ = {'\n'};
};

// An engine's sequence of which the test computes the rows.
class HandSequence final : public engine::Sequence {
 public:
  HandSequence(cache::CacheManager* cache,
               std::shared_ptr<const cache::CachePolicy> policy,
               int64_t rollback_tokens, int64_t chunk_tokens);
  ~HandSequence() override { cache_->Close(id_); }

  // Computes the next rows: false if there is nothing to do.
  bool Step(engine::SequenceClient* client,
            const std::function<int32_t(int64_t position)>& next_token);
  // The step fails.
  void Fail(engine::SequenceClient* client);

  int64_t id() const override { return id_; }
  const std::shared_ptr<const cache::CachePolicy>& policy() const override {
    return options_.policy;
  }
  void Append(absl::Span<const int32_t> ids) override;
  void WantLogits(engine::Logits which) override;
  void SetPaused(bool paused) override { paused_ = paused; }
  void SetSpeculation(engine::Speculation) override {}
  engine::SpeculationCounts speculation_counts() const override { return {}; }
  int64_t computed_tokens() const override { return cache_->Length(id_); }
  int64_t pending_tokens() const override {
    return static_cast<int64_t>(ids_.size()) - computed_tokens();
  }
  absl::Status Truncate(int64_t length) override;
  int64_t EarliestCut() const override;
  void Clear() override;
  std::vector<cache::TextRange> Held() const override {
    return {{0, cache::kUnlimited}};
  }
  int64_t resident_tokens() const override {
    return cache_->ResidentTokens(id_);
  }
  int64_t peak_resident_tokens() const override {
    return cache_->PeakResidentTokens(id_);
  }
  int64_t reserved_bytes() const override;

  bool paused() const { return paused_; }
  const std::vector<int32_t>& ids() const { return ids_; }

 private:
  cache::CacheManager* const cache_;
  const cache::SequenceOptions options_;
  cache::SequenceId id_ = 0;
  std::vector<int32_t> ids_;  // the whole text
  engine::Logits wanted_ = engine::Logits::kNone;
  bool paused_ = false;
};

struct ConversationOptions {
  Format format = Format::kChat;
  std::string policy = "sinks:sink_tokens=4,window_tokens=1020";
  std::optional<std::string> system_prompt = "Be brief.";
  engine::GenerationOptions generation = Greedy();
  int64_t rollback_tokens = 256;
  int64_t max_pending_input_bytes = 1 << 20;
  int64_t chunk_tokens = 64;
  EventLog::Limits log = {};

  static engine::GenerationOptions Greedy();
};

MessageInput User(std::string content);
StartTurn Generate(std::optional<uint64_t> max_tokens = 1024);
AppendInput Append(std::vector<Input> inputs,
                   std::optional<Placement> placement = std::nullopt);
AppendInput Ask(std::string content);  // a message, then a turn
AppendInput Text(std::string text);

class Conversation {
 public:
  explicit Conversation(const ConversationOptions& options = {});

  // As the client's next message, or as message `client_seq`; its number.
  uint64_t Say(decltype(ClientMessage::body) body,
               std::optional<uint64_t> client_seq = std::nullopt);
  // Takes up to `count` steps; returns how many there were.
  int Steps(int count);
  // Until nothing is left to do.
  void Run() { Steps(1'000'000); }
  // Until the text has so many tokens, or nothing is left to do.
  void RunTo(int64_t length);
  // The client reads all events.
  void Read();

  // All events so far of one kind, read or not.
  template <typename T>
  std::vector<T> Told() {
    std::vector<T> told;
    for (const EventBody& event : events) {
      if (const T* found = std::get_if<T>(&event)) told.push_back(*found);
    }
    return told;
  }
  std::string TextOf(uint64_t turn);
  // The reason of the last rejection, or "".
  std::string Rejection();
  State state() const { return session->snapshot().state; }
  int64_t length() const { return sequence->length(); }

  // Called with every event as it is told.
  std::function<void(const EventBody&)> on_event;
  // What the model writes at a text position.
  std::function<int32_t(int64_t position)> next_token;

  absl::Time now = absl::UnixEpoch();
  ByteTokenizer tokenizer;
  LetterFormat format;
  EventLog log;
  InputCredit credit;
  std::vector<EventBody> events;  // as they were appended to the log
  std::vector<Event> read;        // as the client read them
  cache::CacheManager cache;
  std::shared_ptr<const cache::CachePolicy> policy;
  std::optional<CloseReason> closed;
  HandSequence* sequence = nullptr;  // the session's; dangles once it closed
  std::unique_ptr<Inbox> inbox;
  std::unique_ptr<Session> session;

 private:
  uint64_t last_seq_ = 1;
};

}  // namespace millrace::session

#endif  // MILLRACE_TESTS_SERVICES_SESSION_SESSION_HARNESS_H_
