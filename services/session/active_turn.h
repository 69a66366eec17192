// ActiveTurn is a turn that has its place in the text: it waits for what is
// before it to be read, then writes.
//
//   waits     made; the model still reads
//   decodes   Start has told TurnStarted: Decode picks a token from each row
//   cut off   CutTo took back some of what it wrote: it can only finish
//
//   ActiveTurn turn(3, request, {&tokenizer, &text, &outbox});
//   if (auto end = turn.Start(now)) turn.Finish(*end, now);
//   auto end = turn.Decode({.logits = logits}, now);
//   if (end) turn.Finish(*end, now);
//
// It tells what it writes (TurnStarted, Output, TurnFinished) and adds it to
// the text. Not thread-safe.
#ifndef MILLRACE_SERVICES_SESSION_ACTIVE_TURN_H_
#define MILLRACE_SERVICES_SESSION_ACTIVE_TURN_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "services/engine/generation_options.h"
#include "services/engine/turn.h"
#include "services/session/outbox.h"
#include "services/session/session_text.h"
#include "services/session/waiting_items.h"
#include "services/text/tokenizer.h"

namespace millrace::session {

// Why a turn ends.
struct TurnEnd {
  engine::FinishReason reason = engine::FinishReason::kError;
  absl::Status error = absl::OkStatus();  // with kError
  std::optional<engine::StopMatch> match = std::nullopt;
};

class ActiveTurn {
 public:
  // Borrowed; outlive the turn.
  struct Surroundings {
    const text::Tokenizer* tokenizer = nullptr;
    SessionText* text = nullptr;
    Outbox* outbox = nullptr;
  };

  ActiveTurn(uint64_t number, TurnRequest request, const Surroundings& around);

  uint64_t number() const { return number_; }
  uint64_t started_by() const { return request_.started_by; }
  const engine::ResponseOptions& response() const {
    return request_.options.response;
  }
  bool started() const { return started_; }
  bool decodes() const { return writer_ != nullptr; }
  // Whether input can be placed without breaking a character. REQUIRES:
  // decodes.
  bool AtCharacterBoundary() const { return writer_->AtCharacterBoundary(); }

  // Begins to write: opens an assistant message, or goes on with the last one.
  // Returns why it cannot. REQUIRES: the text before is read.
  std::optional<TurnEnd> Start(absl::Time now);

  // Writes the next token; returns why it is the last. REQUIRES: decodes.
  std::optional<TurnEnd> Decode(const engine::NextToken& next, absl::Time now);
  // REQUIRES: decodes.
  std::optional<backends::RowSampling> HowToPick(int unknown_tokens) const {
    return writer_->HowToPick(unknown_tokens);
  }

  // Input is placed in its midst: text that was held back is shown before, and
  // no cut goes back behind it. REQUIRES: decodes.
  void BeforeInput();
  void AfterInput() { earliest_cut_ = text_->length(); }

  // Cuts the text back to `keep_until` tokens, as far as the cache goes back,
  // and not before what was read in the turn.
  void CutTo(uint64_t keep_until);

  // Shows what was held back and tells the end. Once, the last call. A text
  // that is full ends with CACHE_FULL where its policy wants an error.
  void Finish(TurnEnd end, absl::Time now);

 private:
  void EmitText(std::string text);
  Usage TakeUsage(absl::Time now);

  const uint64_t number_;
  const TurnRequest request_;
  const text::Tokenizer* const tokenizer_;
  SessionText* const text_;
  Outbox* const outbox_;

  std::unique_ptr<engine::Turn> writer_;  // while it decodes
  int64_t earliest_cut_ = 0;  // behind its prefix and what was placed in it
  bool started_ = false;
  absl::Time start_time_, first_token_, last_token_;
  uint64_t generated_ = 0;
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_ACTIVE_TURN_H_
