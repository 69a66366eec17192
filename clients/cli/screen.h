// Screen is a terminal in three parts: what was said, which scrolls; the line
// that is being typed; and a status line. Text can appear while one types.
//
//   Screen screen;
//   screen.SetStatus("position 29");
//   while (auto line = screen.ReadLine([&] { ... screen.Print(text); })) {}
//
// The line is edited by libedit, with history. One per process: it catches
// SIGINT and SIGWINCH. Not thread-safe, but for Wake.
#ifndef MILLRACE_CLIENTS_CLI_SCREEN_H_
#define MILLRACE_CLIENTS_CLI_SCREEN_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace millrace::cli {

class Screen {
 public:
  // Takes over the terminal on standard input and output.
  Screen();
  // Gives it back as it was.
  ~Screen();

  // Adds to what was said; UTF-8, '\n' ends a line.
  void Print(absl::string_view text);

  // One line, cut to the terminal's width.
  void SetStatus(std::string status);

  // The next line that was typed; nullopt at its end (Ctrl-D). `on_wake` is
  // called whenever Wake was called, `on_interrupt` at Ctrl-C. A true answer
  // from `on_wake` ends the wait with nullopt.
  std::optional<std::string> ReadLine(
      const std::function<bool()>& on_wake,
      const std::function<void()>& on_interrupt);

  // Any thread, and signal handlers.
  void Wake();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace::cli

#endif  // MILLRACE_CLIENTS_CLI_SCREEN_H_
