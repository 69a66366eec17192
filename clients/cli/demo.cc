// millrace demo: the point of the project, shown. One session reads a text far
// past the length that the model was trained for and then writes; the same
// with a cache that forgets nothing ends there.

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/commands.h"
#include "clients/cli/common.h"
#include "clients/cli/pieces.h"
#include "clients/cli/policy_text.h"
#include "clients/cpp/status.h"

namespace millrace::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kPieceBytes = 2048;  // about 480 tokens
constexpr size_t kSmallestPieceBytes = 32;

struct DemoFlags {
  std::string file;
  std::string cache_policy = "sinks:sink_tokens=4,window_tokens=1020";
  uint64_t read_tokens = 20480;
  uint64_t write_tokens = 160;
  uint64_t row_tokens = 4096;  // between two rows of the table
};

// One row of the closing table.
struct Row {
  uint64_t position = 0;
  uint64_t visible = 0;
  uint64_t kv_bytes = 0;
  double tokens_per_second = 0;
};

// How one session fared.
struct Run {
  std::vector<Row> rows;
  std::string ending;
};

// Reads and writes in one session, and notes what it costs.
class Reader {
 public:
  Reader(const DemoFlags& flags, client::Client& client, std::string name)
      : flags_(flags), client_(client), name_(std::move(name)) {}

  absl::StatusOr<Run> Go(absl::string_view text, v1::CachePolicy policy) {
    const auto model = client_.GetModelInfo();
    if (!model.ok()) return model.status();
    bytes_per_token_ = model->model().kv_bytes_per_token();
    v1::OpenSession open;
    open.set_format(v1::FORMAT_PLAIN);
    *open.mutable_cache_policy() = std::move(policy);
    auto session = client_.OpenSession(open);
    if (!session.ok()) return session.status();
    session_ = *std::move(session);
    row_start_ = Clock::now();
    const absl::Status read = Read(text);
    if (!read.ok()) return read;
    const absl::Status written = Write();
    if (!written.ok()) return written;
    Close();
    return std::move(run_);
  }

 private:
  absl::Status Read(absl::string_view text) {
    size_t piece_bytes = kPieceBytes;
    while (position_ < flags_.read_tokens && !text.empty()) {
      const absl::string_view piece = FirstPiece(text, piece_bytes);
      v1::ConnectRequest request;
      request.mutable_append()->add_inputs()->set_text(std::string(piece));
      session_->Send(request);
      const auto fits = AwaitAnswer();
      if (!fits.ok()) return fits.status();
      if (*fits) {
        text.remove_prefix(piece.size());
      } else if (piece_bytes > kSmallestPieceBytes) {
        piece_bytes /= 2;  // fill the cache to the brim
      } else {
        break;
      }
    }
    return absl::OkStatus();
  }

  // False if the cache is full.
  absl::StatusOr<bool> AwaitAnswer() {
    while (true) {
      const auto event = session_->Next();
      if (!event.ok()) return event.status();
      Note(*event);
      if (event->has_rejected()) {
        const absl::Status why = client::ToStatus(event->rejected().error());
        if (client::ReasonOf(why) != "CACHE_FULL") return why;
        run_.ending = "more text is refused: CACHE_FULL";
        return false;
      }
      if (event->has_input_accepted()) {
        Advance(event->input_accepted().text_position());
        return true;
      }
    }
  }

  absl::Status Write() {
    v1::ConnectRequest request;
    v1::StoppingOptions& stopping =
        *request.mutable_generate()->mutable_stopping();
    stopping.set_max_tokens(flags_.write_tokens);
    stopping.set_ignore_end_of_turn(true);
    request.mutable_generate()->mutable_sampling()->set_seed(1);
    session_->Send(request);
    while (true) {
      const auto event = session_->Next();
      if (!event.ok()) return event.status();
      if (event->has_turn_started()) {
        Advance(event->turn_started().text_position());
        if (position_ > row_position_) AddRow();
        std::cout << "\n" << Dim(absl::StrCat(name_, " writes:")) << " ";
      }
      Note(*event);
      if (event->has_output()) {
        std::cout << event->output().text() << std::flush;
      }
      if (event->has_turn_finished()) {
        std::cout << "\n\n";
        return Finish(event->turn_finished());
      }
    }
  }

  absl::Status Finish(const v1::TurnFinished& turn) {
    if (turn.has_error()) return client::ToStatus(turn.error());
    visible_ = turn.usage().visible_tokens();
    position_ = turn.usage().text_position();
    AddRow();
    const std::string how = turn.reason() == v1::FINISH_REASON_CAPACITY
                                ? "the cache is full: the end"
                            : evicts_ ? "could go on for ever"
                                      : "still within the trained context";
    run_.ending = absl::StrCat(run_.ending, run_.ending.empty() ? "" : "; ",
                               "at ", WithCommas(position_), " tokens ", how);
    return absl::OkStatus();
  }

  void Close() {
    v1::ConnectRequest request;
    request.mutable_close();
    session_->Send(request);
    while (session_->Next().ok()) {
    }
  }

  void Note(const v1::ConnectResponse& event) {
    if (!event.has_cache_update()) return;
    visible_ = event.cache_update().visible_tokens();
    evicts_ = true;
    Advance(event.cache_update().text_position());
  }

  void Advance(uint64_t position) {
    position_ = std::max(position_, position);
    if (!evicts_) visible_ = position_;
    const auto row = Measure();
    ShowProgress(absl::StrFormat(
        "%s  position %s   visible %s   K/V memory %s   %.0f tokens/s", name_,
        WithCommas(row.position), WithCommas(row.visible), Bytes(row.kv_bytes),
        row.tokens_per_second));
    if (position_ >= row_position_ + flags_.row_tokens) AddRow();
  }

  Row Measure() {
    Row row{.position = position_, .visible = visible_};
    const auto load = client_.GetLoad();
    if (load.ok()) {
      row.kv_bytes =
          load->used_blocks() * load->block_tokens() * bytes_per_token_;
    }
    const std::chrono::duration<double> seconds = Clock::now() - row_start_;
    row.tokens_per_second = (position_ - row_position_) / seconds.count();
    return row;
  }

  void AddRow() {
    run_.rows.push_back(Measure());
    row_position_ = position_;
    row_start_ = Clock::now();
    ShowProgress("");
    if (ProgressWanted()) return;
    const Row& row = run_.rows.back();
    std::cout << absl::StrFormat(
                     "%-6s position %7s   visible %6s   K/V memory %9s   "
                     "%5.0f tokens/s\n",
                     name_, WithCommas(row.position), WithCommas(row.visible),
                     Bytes(row.kv_bytes), row.tokens_per_second)
              << std::flush;
  }

  const DemoFlags& flags_;
  client::Client& client_;
  const std::string name_;
  std::unique_ptr<client::Session> session_;
  Run run_;
  uint64_t bytes_per_token_ = 0;
  uint64_t position_ = 0, visible_ = 0;
  bool evicts_ = false;
  uint64_t row_position_ = 0;
  Clock::time_point row_start_;
};

void PrintTable(const std::string& name, const Run& run) {
  std::cout << absl::StrFormat("\n%-10s %10s %9s %12s %10s\n", name, "position",
                               "visible", "K/V memory", "tokens/s");
  for (const Row& row : run.rows) {
    std::cout << absl::StrFormat(
        "%-10s %10s %9s %12s %10.0f\n", "", WithCommas(row.position),
        WithCommas(row.visible), Bytes(row.kv_bytes), row.tokens_per_second);
  }
  std::cout << absl::StrFormat("%-10s %s\n", "", run.ending);
}

int Demo(const DemoFlags& flags, const Globals& globals) {
  const auto text = ReadFile(flags.file);
  if (!text.ok()) return UsageError(text.status().message());
  const auto policy = ParsePolicy(flags.cache_policy);
  if (!policy.ok()) return UsageError(policy.status().message());
  const auto client = Connect(globals);
  if (!client.ok()) return UsageError(client.status().message());

  const std::string name =
      flags.cache_policy.substr(0, flags.cache_policy.find(':'));
  std::cout << "One session reads a novel, then writes. Cache policy: "
            << flags.cache_policy << "\n";
  const auto endless = Reader(flags, **client, name).Go(*text, *policy);
  if (!endless.ok()) return Fail(globals, endless.status());
  std::cout << "The same, with a cache that forgets nothing: full\n";
  const auto full =
      Reader(flags, **client, "full").Go(*text, *ParsePolicy("full"));
  if (!full.ok()) return Fail(globals, full.status());
  PrintTable(name, *endless);
  PrintTable("full", *full);
  std::cout << "\nThe last row of each is writing, the others are reading.\n";
  return kExitOk;
}

}  // namespace

Command AddDemo(CLI::App& app) {
  auto flags = std::make_shared<DemoFlags>();
  CLI::App* command = app.add_subcommand(
      "demo", "read a novel past the trained context, then write");
  command->add_option("--file", flags->file, "the text to read; -: stdin")
      ->required();
  command->add_option("--cache_policy", flags->cache_policy)
      ->capture_default_str();
  command->add_option("--read_tokens", flags->read_tokens)
      ->capture_default_str();
  command->add_option("--write_tokens", flags->write_tokens)
      ->capture_default_str();
  return {command,
          [flags](const Globals& globals) { return Demo(*flags, globals); }};
}

}  // namespace millrace::cli
