#include "clients/cli/screen.h"

#include <histedit.h>
#include <langinfo.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <cwchar>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cli/pieces.h"

namespace millrace::cli {
namespace {

constexpr char kPrompt[] = "> ";
constexpr int kHistoryLines = 500;

std::atomic<bool> interrupt_pending{false};
std::atomic<bool> resize_pending{false};
std::atomic<int> wake_fd{-1};

void WakeUp() {
  const uint64_t one = 1;
  [[maybe_unused]] const auto written = write(wake_fd, &one, sizeof(one));
}

void OnSignal(int signal) {
  const int saved = errno;
  (signal == SIGINT ? interrupt_pending : resize_pending) = true;
  WakeUp();
  errno = saved;
}

void Catch(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigaction(signal, &action, nullptr);
}

void Out(absl::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

// The first character of a text, or a whole escape sequence.
absl::string_view FirstCharacter(absl::string_view text) {
  if (text[0] == '\x1b') {
    return text.substr(0, std::min(text.find('m'), text.size() - 1) + 1);
  }
  size_t size = 1;
  while (size < text.size() && (text[size] & 0xC0) == 0x80) ++size;
  return text.substr(0, size);
}

// The terminal speaks UTF-8 even where the locale says nothing of it.
void UseUtf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) {
    std::setlocale(LC_CTYPE, "C.UTF-8");
  }
}

}  // namespace

struct Screen::Impl {
  EditLine* editor = nullptr;
  History* history = nullptr;
  int rows = 24, columns = 80;
  std::string status;
  std::function<bool()> on_wake;
  std::function<void()> on_interrupt;
  bool reading = false;
  struct termios before = {};   // the terminal as it was
  struct termios quiet = {};    // as it is while nobody reads
  std::mbstate_t partial = {};  // a character that has come in part
  int column = 0;               // where the conversation goes on

  // Between two lines libedit gives the terminal back, which would then gather
  // whole lines, take Ctrl-D for the end of a file, and echo.
  void Quieten() {
    tcgetattr(STDIN_FILENO, &before);
    quiet = before;
    quiet.c_lflag &= ~(ECHO | ICANON);
    quiet.c_cc[VMIN] = 1;
    quiet.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &quiet);
  }

  // The conversation scrolls in the rows above the last two; the terminal
  // keeps the position where it goes on (ESC 7, ESC 8).
  void Divide() {
    struct winsize size = {};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 3) {
      rows = size.ws_row;
      columns = size.ws_col;
    }
    column = 0;
    Out(absl::StrCat("\x1b[1;", rows - 2, "r\x1b[", rows - 2, ";1H\x1b", "7"));
    DrawStatus();
  }

  void DrawStatus() {
    Out(absl::StrCat("\x1b[", rows, ";1H\x1b[K\x1b[7m",
                     FirstPiece(status, std::max(4, columns - 1)), "\x1b[0m"));
    DrawInput();
  }

  void DrawInput() {
    Out(absl::StrCat("\x1b[", rows - 1, ";1H\x1b[K"));
    std::fflush(stdout);
    if (reading) el_set(editor, EL_REFRESH);
  }

  // Breaks lines itself, at a space where there is one near the end:
  // terminals differ in what they remember of a cursor behind the last column.
  void Write(absl::string_view character) {
    constexpr int kLongWord = 10;
    const bool space = character == " ";
    if (character == "\n" || column >= columns - 1 ||
        (space && column >= columns - kLongWord)) {
      Out("\r\n");  // libedit turns off the terminal's own carriage returns
      column = 0;
      if (space || character == "\n") return;
    }
    Out(character);
    if (character[0] == '\x1b') return;  // a colour
    wchar_t wide = 0;
    std::mbstate_t state = {};
    if (std::mbrtowc(&wide, character.data(), character.size(), &state) >= 1) {
      column += std::max(0, wcwidth(wide));
    }
  }

  // One byte from the keyboard into `character`, or whatever else happens
  // first. Called by libedit.
  static int GetCharacter(EditLine* editor, wchar_t* character) {
    Impl* impl = nullptr;
    el_get(editor, EL_CLIENTDATA, &impl);
    return impl->WaitForCharacter(character);
  }

  int WaitForCharacter(wchar_t* character) {
    while (true) {
      struct pollfd polled[] = {{STDIN_FILENO, POLLIN, 0},
                                {wake_fd, POLLIN, 0}};
      if (poll(polled, 2, -1) < 0) {
        if (errno == EINTR) continue;
        return -1;
      }
      if (polled[1].revents != 0 && HandleWake()) return 0;
      if (polled[0].revents == 0) continue;
      char byte = 0;
      if (read(STDIN_FILENO, &byte, 1) <= 0) return 0;
      const size_t used = std::mbrtowc(character, &byte, 1, &partial);
      if (used == static_cast<size_t>(-1)) {
        partial = {};
      } else if (used != static_cast<size_t>(-2)) {
        return 1;
      }
    }
  }

  // True if the wait is over.
  bool HandleWake() {
    uint64_t count;
    [[maybe_unused]] const auto got = read(wake_fd, &count, sizeof(count));
    if (resize_pending.exchange(false)) {
      el_resize(editor);
      Divide();
    }
    if (interrupt_pending.exchange(false)) on_interrupt();
    return on_wake();
  }
};

Screen::Screen() : impl_(std::make_unique<Impl>()) {
  UseUtf8();
  wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  Catch(SIGINT, OnSignal);
  Catch(SIGWINCH, OnSignal);
  impl_->Quieten();
  impl_->history = history_init();
  HistEvent event;
  ::history(impl_->history, &event, H_SETSIZE, kHistoryLines);
  impl_->editor = el_init("millrace", stdin, stdout, stderr);
  el_set(impl_->editor, EL_CLIENTDATA, impl_.get());
  el_set(
      impl_->editor, EL_PROMPT,
      +[](EditLine*) { return const_cast<char*>(kPrompt); });
  el_set(impl_->editor, EL_EDITOR, "emacs");
  el_set(impl_->editor, EL_HIST, ::history, impl_->history);
  el_set(impl_->editor, EL_GETCFN, &Impl::GetCharacter);
  el_set(impl_->editor, EL_SIGNAL, 0);
  Out(std::string(2, '\n'));
  impl_->Divide();
}

Screen::~Screen() {
  Out(absl::StrCat("\x1b[r\x1b[", impl_->rows - 1, ";1H\x1b[J"));
  std::fflush(stdout);
  el_end(impl_->editor);
  history_end(impl_->history);
  tcsetattr(STDIN_FILENO, TCSADRAIN, &impl_->before);
  Catch(SIGINT, SIG_DFL);
  Catch(SIGWINCH, SIG_DFL);
  close(wake_fd.exchange(-1));
}

void Screen::Print(absl::string_view text) {
  if (text.empty()) return;
  Out("\x1b"
      "8");
  while (!text.empty()) {
    const absl::string_view character = FirstCharacter(text);
    impl_->Write(character);
    text.remove_prefix(character.size());
  }
  Out("\x1b"
      "7");
  impl_->DrawInput();
}

void Screen::SetStatus(std::string status) {
  if (status == impl_->status) return;
  impl_->status = std::move(status);
  impl_->DrawStatus();
}

std::optional<std::string> Screen::ReadLine(
    const std::function<bool()>& on_wake,
    const std::function<void()>& on_interrupt) {
  impl_->on_wake = on_wake;
  impl_->on_interrupt = on_interrupt;
  impl_->DrawInput();
  impl_->reading = true;
  int count = 0;
  const char* line = el_gets(impl_->editor, &count);
  tcsetattr(STDIN_FILENO, TCSANOW, &impl_->quiet);
  impl_->reading = false;
  std::optional<std::string> result;
  if (line != nullptr && count > 0 && line[count - 1] == '\n') {
    result = std::string(line, count - 1);
    HistEvent event;
    if (count > 1) ::history(impl_->history, &event, H_ENTER, result->c_str());
  }
  impl_->DrawStatus();
  return result;
}

void Screen::Wake() { WakeUp(); }

}  // namespace millrace::cli
