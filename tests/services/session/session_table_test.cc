// The table of states: every message in every state.
#include <string>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/errors/errors.h"
#include "tests/services/session/session_harness.h"

namespace millrace::session {
namespace {

constexpr char kIdle[] = "idle";
constexpr char kReading[] = "reading";
constexpr char kQueued[] = "queued";  // WRITING, the turn's input is being read
constexpr char kWriting[] = "writing";
constexpr char kPaused[] = "paused";
constexpr char kDead[] = "closed";

std::string NameOf(State state) {
  switch (state) {
    case State::kIdle:
      return "idle";
    case State::kReading:
      return "reading";
    case State::kWriting:
      return "writing";
    case State::kPaused:
      return "paused";
    case State::kDetached:
      return "detached";
    case State::kClosed:
      return "closed";
  }
  return "";
}

// "rejected NO_TURN", "turn_finished INTERRUPTED", ...: what answers.
std::string NameOf(const EventBody& event) {
  if (std::holds_alternative<InputQueued>(event)) return "queued";
  if (std::holds_alternative<InputAccepted>(event)) return "accepted";
  if (std::holds_alternative<TurnStarted>(event)) return "turn";
  if (std::holds_alternative<OptionsUpdated>(event)) return "options";
  if (std::holds_alternative<Closed>(event)) return "closed";
  if (const auto* finished = std::get_if<TurnFinished>(&event)) {
    return finished->reason == engine::FinishReason::kInterrupted
               ? "interrupted"
               : "finished";
  }
  if (const auto* rejected = std::get_if<Rejected>(&event)) {
    return errors::ReasonOf(rejected->error);
  }
  return "";  // output, cache updates
}

// A conversation in the state of that name.
void Bring(Conversation& chat, const std::string& state) {
  chat.Run();
  if (state == kReading) {
    chat.Say(Append({User(std::string(200, 'r'))}));
    chat.Steps(1);
  } else if (state == kQueued) {
    chat.Say(Ask(std::string(200, 'q')));
    chat.Steps(1);
  } else if (state == kWriting || state == kPaused) {
    chat.Say(Ask("write"));
    chat.RunTo(50);
    if (state == kPaused) {
      chat.Run();
    } else {
      chat.Read();
    }
  } else if (state == kDead) {
    chat.Say(CloseSession{});
  }
  chat.events.clear();
}

using Body = decltype(ClientMessage::body);

struct Row {
  const char* name;
  Body message;
  // By state: idle, reading, queued, writing, paused, closed: the answers at
  // once, and the state afterwards.
  std::vector<std::pair<std::string, std::string>> expected;
};

AppendInput WithTurn() { return Ask("more"); }

Body UpdateTemperature() {
  UpdateOptions update;
  update.sampling = engine::SamplingOptions{.temperature = 0.1f};
  return update;
}

std::vector<Row> Table() {
  const std::pair<std::string, std::string> dead = {"", "closed"};
  return {
      {"append",
       Append({User("more")}),
       {{"queued accepted", "reading"},
        {"queued", "reading"},  // as soon as the one before is almost read
        {"queued", "writing"},
        {"queued", "writing"},
        {"queued", "paused"},
        dead}},
      {"append, then generate",
       WithTurn(),
       {{"queued accepted", "writing"},
        {"queued", "writing"},
        {"queued", "writing"},
        {"queued", "writing"},
        {"queued", "paused"},
        dead}},
      {"append text, next step",
       Text("insert"),
       {{"NOT_IN_MESSAGE", "idle"},
        {"NOT_IN_MESSAGE", "reading"},
        {"queued", "writing"},
        {"queued accepted", "writing"},
        {"queued accepted", "paused"},
        dead}},
      {"generate",
       Generate(),
       {{"turn", "writing"},
        {"", "writing"},
        {"TURN_RUNNING", "writing"},
        {"TURN_RUNNING", "writing"},
        {"TURN_RUNNING", "paused"},
        dead}},
      {"interrupt",
       Interrupt{},
       {{"NO_TURN", "idle"},
        {"NO_TURN", "reading"},
        {"interrupted", "reading"},
        {"interrupted", "reading"},
        {"interrupted", "reading"},
        dead}},
      {"interrupt of another turn",
       Interrupt{.started_by = 99},
       {{"NO_TURN", "idle"},
        {"NO_TURN", "reading"},
        {"NO_TURN", "writing"},
        {"NO_TURN", "writing"},
        {"NO_TURN", "paused"},
        dead}},
      {"update",
       UpdateTemperature(),
       {{"options", "idle"},
        {"options", "reading"},
        {"options", "writing"},
        {"options", "writing"},
        {"options", "paused"},
        dead}},
      {"reset",
       ResetSession{},
       {{"options", "reading"},
        {"options", "reading"},
        {"interrupted options", "reading"},
        {"interrupted options", "reading"},
        {"interrupted options", "reading"},
        dead}},
      {"close",
       CloseSession{},
       {{"closed", "closed"},
        {"closed", "closed"},
        {"interrupted closed", "closed"},
        {"interrupted closed", "closed"},
        {"interrupted closed", "closed"},
        dead}},
      {"half-close",
       HalfClose{},
       {{"closed", "closed"},
        {"", "reading"},
        {"", "writing"},
        {"", "writing"},
        {"", "paused"},
        dead}},
      {"a refused message",
       Refused{.status =
                   errors::MakeError(absl::StatusCode::kInvalidArgument,
                                     errors::Reason::kUnknownMessage, "?")},
       {{"UNKNOWN_MESSAGE", "idle"},
        {"UNKNOWN_MESSAGE", "reading"},
        {"UNKNOWN_MESSAGE", "writing"},
        {"UNKNOWN_MESSAGE", "writing"},
        {"UNKNOWN_MESSAGE", "paused"},
        dead}},
  };
}

TEST(SessionTableTest, EveryMessageInEveryState) {
  const std::string states[] = {kIdle,    kReading, kQueued,
                                kWriting, kPaused,  kDead};
  for (const Row& row : Table()) {
    for (size_t i = 0; i < std::size(states); ++i) {
      SCOPED_TRACE(std::string(row.name) + " while " + states[i]);
      ConversationOptions options;
      options.log.max_unread_events = states[i] == kPaused ? 6 : 1000;
      Conversation chat(options);
      Bring(chat, states[i]);
      chat.Say(row.message);
      std::string answers;
      for (const EventBody& event : chat.events) {
        const std::string name = NameOf(event);
        if (name.empty()) continue;
        answers += (answers.empty() ? "" : " ") + name;
      }
      EXPECT_EQ(answers, row.expected[i].first);
      EXPECT_EQ(NameOf(chat.state()), row.expected[i].second);
    }
  }
}

}  // namespace
}  // namespace millrace::session
