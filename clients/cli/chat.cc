// millrace chat: an endless conversation in a terminal.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <deque>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "clients/cli/commands.h"
#include "clients/cli/common.h"
#include "clients/cli/conversation.h"
#include "clients/cli/pieces.h"
#include "clients/cli/policy_text.h"
#include "clients/cli/screen.h"
#include "clients/cli/turn_flags.h"

namespace millrace::cli {
namespace {

constexpr char kHelp[] =
    "Type a message and press Enter; you can type on while the model writes.\n"
    "  /now TEXT     put TEXT into what is being written, at once\n"
    "  /stats        what this session is and has cost\n"
    "  /reset        forget the text, keep the system prompt\n"
    "  /system TEXT  start anew with this system prompt\n"
    "  /policy P     start anew with this cache policy\n"
    "  /quit         end (or Ctrl-D)\n"
    "  Ctrl-C        stop the reply; what was shown stays in the text";

struct ChatFlags {
  std::string system, cache_policy;
  TurnFlags turn;
};

// Shows a conversation on a Screen.
class ScreenDisplay final : public Display {
 public:
  explicit ScreenDisplay(Screen* screen) : screen_(screen) {}

  void Text(absl::string_view text) override {
    screen_->Print(text);
    if (!text.empty()) line_open_ = text.back() != '\n';
  }
  void Said(absl::string_view line, bool queued) override {
    Line(absl::StrCat("\x1b[1m> ", line, "\x1b[0m",
                      queued ? "\x1b[2m  (queued)\x1b[0m" : ""));
  }
  void Note(absl::string_view line) override {
    for (absl::string_view part : absl::StrSplit(line, '\n')) {
      Line(absl::StrCat("\x1b[2m", part, "\x1b[0m"));
    }
  }
  void Status(const std::string& status) override {
    screen_->SetStatus(status);
  }

 private:
  void Line(const std::string& line) {
    screen_->Print(absl::StrCat(line_open_ ? "\n" : "", line, "\n"));
    line_open_ = false;
  }

  Screen* const screen_;
  bool line_open_ = false;
};

// Shows a conversation where there is no terminal: the replies alone.
class PlainDisplay final : public Display {
 public:
  void Text(absl::string_view text) override {
    std::cout << text << std::flush;
  }
  void Said(absl::string_view, bool) override {}
  void Note(absl::string_view line) override { std::cerr << line << "\n"; }
  void Status(const std::string&) override {}
};

// Reads a session's events on a thread of its own.
class EventReader {
 public:
  EventReader(client::Session* session, std::function<void()> wake)
      : session_(session), wake_(std::move(wake)), thread_([this] { Run(); }) {}

  ~EventReader() {
    session_->Cancel();
    thread_.join();
  }

  // The next event, if there is one.
  std::optional<v1::ConnectResponse> Take() {
    absl::MutexLock lock(&mutex_);
    if (events_.empty()) return std::nullopt;
    v1::ConnectResponse event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

  // Waits for an event or the end.
  void Await() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](EventReader* self) ABSL_NO_THREAD_SAFETY_ANALYSIS {
          return !self->events_.empty() || self->end_.has_value();
        },
        this));
  }

  // How the session ended; nullopt while it has not.
  std::optional<absl::Status> end() {
    absl::MutexLock lock(&mutex_);
    return end_;
  }

 private:
  void Run() {
    while (true) {
      auto event = session_->Next();
      const bool ended = !event.ok();
      {
        absl::MutexLock lock(&mutex_);
        if (ended) {
          end_ = absl::IsOutOfRange(event.status()) ? absl::OkStatus()
                                                    : event.status();
        } else {
          events_.push_back(*std::move(event));
        }
      }
      wake_();
      if (ended) return;
    }
  }

  client::Session* const session_;
  const std::function<void()> wake_;
  absl::Mutex mutex_;
  std::deque<v1::ConnectResponse> events_;
  std::optional<absl::Status> end_;
  std::thread thread_;
};

class Chat {
 public:
  Chat(const ChatFlags& flags, const Globals& globals, client::Client& client)
      : globals_(globals), client_(client) {
    system_ = flags.system;
    policy_ = flags.cache_policy;
    status_ = ToSampling(flags.turn, *open_.mutable_sampling());
    ToStopping(flags.turn, *open_.mutable_stopping());
  }

  int Run() {
    if (!status_.ok()) return UsageError(status_.message());
    return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) ? RunOnScreen()
                                                         : RunPlain();
  }

 private:
  // Opens a session with the current system prompt and policy.
  absl::Status Open() {
    v1::OpenSession open = open_;
    open.set_format(v1::FORMAT_CHAT);
    if (!system_.empty()) open.set_system_prompt(system_);
    if (!policy_.empty()) {
      auto policy = ParsePolicy(policy_);
      if (!policy.ok()) return policy.status();
      *open.mutable_cache_policy() = *std::move(policy);
    }
    auto session = client_.OpenSession(open);
    if (!session.ok()) return session.status();
    EndSession();
    session_ = *std::move(session);
    session_->SetOnResumed([this] { resumed_ = true; });
    reader_ = std::make_unique<EventReader>(session_.get(), wake_);
    conversation_->Begin(session_->opened());
    return absl::OkStatus();
  }

  // A good end, so that the server need not keep the session.
  void EndSession() {
    if (session_ == nullptr) return;
    v1::ConnectRequest request;
    request.mutable_close();
    session_->Send(request);
    while (!reader_->end().has_value()) {
      reader_->Await();
      reader_->Take();
    }
    reader_.reset();
    session_.reset();
  }

  int RunOnScreen();
  int RunPlain();
  void HandleLine(const std::string& line);
  void Reopen(std::string& what, const std::string& value,
              absl::string_view name);
  // True if the session has ended.
  bool ShowEvents();

  uint64_t Send(v1::ConnectRequest request) {
    return session_->Send(std::move(request));
  }

  const Globals& globals_;
  client::Client& client_;
  absl::Status status_;
  v1::OpenSession open_;
  std::string system_, policy_;
  std::function<void()> wake_ = [] {};
  std::unique_ptr<client::Session> session_;
  std::unique_ptr<EventReader> reader_;
  std::unique_ptr<Conversation> conversation_;
  Display* display_ = nullptr;
  std::atomic<bool> resumed_{false};
  bool quit_ = false;
};

int Chat::RunOnScreen() {
  absl::Status end;
  {
    Screen screen;
    ScreenDisplay display(&screen);
    display_ = &display;
    wake_ = [&screen] { screen.Wake(); };
    conversation_ = std::make_unique<Conversation>(
        &display, [this](v1::ConnectRequest r) { return Send(std::move(r)); });
    end = Open();
    if (end.ok()) {
      display.Note("Connected. /help tells what you can do.");
      while (!quit_) {
        const auto line = screen.ReadLine(
            [this] { return ShowEvents(); },
            [this] {
              if (!conversation_->Interrupt()) {
                display_->Note("nothing to stop; /quit or Ctrl-D ends");
              }
            });
        if (!line.has_value()) break;
        HandleLine(std::string(absl::StripAsciiWhitespace(*line)));
      }
      const auto ended = reader_->end();
      if (ended.has_value()) end = *ended;
      if (!ended.has_value()) EndSession();
      reader_.reset();
      session_.reset();
    }
  }
  return end.ok() ? kExitOk : Fail(globals_, end);
}

int Chat::RunPlain() {
  PlainDisplay display;
  display_ = &display;
  conversation_ = std::make_unique<Conversation>(
      &display, [this](v1::ConnectRequest r) { return Send(std::move(r)); });
  const absl::Status opened = Open();
  if (!opened.ok()) return Fail(globals_, opened);
  std::string line;
  while (!quit_ && std::getline(std::cin, line)) {
    if (line.empty()) continue;
    HandleLine(line);
    while (!ShowEvents() && conversation_->pending_turns() > 0) {
      reader_->Await();
    }
    const auto end = reader_->end();
    if (end.has_value()) return end->ok() ? kExitOk : Fail(globals_, *end);
  }
  EndSession();
  return kExitOk;
}

bool Chat::ShowEvents() {
  if (resumed_.exchange(false)) {
    display_->Note("the connection was lost; the session goes on");
  }
  while (const auto event = reader_->Take()) conversation_->Handle(*event);
  return reader_->end().has_value();
}

void Chat::HandleLine(const std::string& line) {
  if (line.empty()) return;
  if (const auto bad = FindInvalidUtf8(line); bad.has_value()) {
    display_->Note("that line is not valid UTF-8");
    return;
  }
  if (line[0] != '/') return conversation_->Submit(line);
  const std::pair<std::string, std::string> words =
      absl::StrSplit(line, absl::MaxSplits(' ', 1));
  const auto& [command, rest] = words;
  if (command == "/now" && !rest.empty()) {
    conversation_->InsertNow(absl::StrCat(" ", rest));
  } else if (command == "/stats") {
    display_->Note(conversation_->Stats());
  } else if (command == "/reset") {
    conversation_->Reset();
  } else if (command == "/help") {
    display_->Note(kHelp);
  } else if (command == "/system" && !rest.empty()) {
    Reopen(system_, rest, "system prompt");
  } else if (command == "/policy" && !rest.empty()) {
    Reopen(policy_, rest, "cache policy");
  } else if (command == "/quit") {
    quit_ = true;
  } else {
    display_->Note(absl::StrCat("no such command: ", line, "; /help"));
  }
}

void Chat::Reopen(std::string& what, const std::string& value,
                  absl::string_view name) {
  const std::string before = std::exchange(what, value);
  const absl::Status opened = Open();
  if (opened.ok()) {
    display_->Note(absl::StrCat("a new session with this ", name,
                                "; the old text is gone"));
    return;
  }
  what = before;
  display_->Note(
      absl::StrCat("refused: ", opened.message(), "; the old session goes on"));
}

int RunChat(const ChatFlags& flags, const Globals& globals) {
  const auto client = Connect(globals);
  if (!client.ok()) return UsageError(client.status().message());
  return Chat(flags, globals, **client).Run();
}

}  // namespace

Command AddChat(CLI::App& app) {
  auto flags = std::make_shared<ChatFlags>();
  CLI::App* command = app.add_subcommand(
      "chat",
      "a conversation without end; without a terminal, one message a "
      "line from standard input");
  command->add_option("--system", flags->system, "the system prompt");
  command->add_option("--cache_policy", flags->cache_policy,
                      "such as sinks:window_tokens=500; default: the server's");
  AddTurnFlags(*command, flags->turn);
  return {command,
          [flags](const Globals& globals) { return RunChat(*flags, globals); }};
}

}  // namespace millrace::cli
