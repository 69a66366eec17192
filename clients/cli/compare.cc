// millrace compare: one text under several cache policies, side by side.

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/common.h"
#include "clients/cli/comparison_plot.h"
#include "clients/cli/comparison_report.h"
#include "clients/cli/comparison_run.h"
#include "clients/cli/policy_text.h"

namespace millrace::cli {
namespace {

struct CompareFlags {
  std::string file = "-";
  ComparisonRequest request;
  std::string csv, plot;
  bool json = false;
};

absl::Status CannotWrite(const std::string& path) {
  return absl::InvalidArgumentError(
      absl::StrCat("cannot write the file '", path, "'"));
}

// Whether the file can be written, before minutes are spent on it.
absl::Status CheckWritable(const std::string& path) {
  if (path.empty()) return absl::OkStatus();
  const bool existed = std::filesystem::exists(path);
  const bool opened = std::ofstream(path, std::ios::app).good();
  if (opened && !existed) std::filesystem::remove(path);
  return opened ? absl::OkStatus() : CannotWrite(path);
}

absl::Status CheckFlags(const CompareFlags& flags) {
  for (const std::string& policy : flags.request.policies) {
    const auto parsed = ParsePolicy(policy);
    if (!parsed.ok()) return parsed.status();
  }
  if (!flags.plot.empty()) {
    const absl::Status named = CheckPlotName(flags.plot);
    if (!named.ok()) return named;
  }
  for (const std::string& path : {flags.csv, flags.plot}) {
    const absl::Status writable = CheckWritable(path);
    if (!writable.ok()) return writable;
  }
  return absl::OkStatus();
}

std::string TextName(const std::string& path) {
  if (path == "-") return "standard input";
  return std::filesystem::path(path).filename().string();
}

absl::Status WriteCsv(const Comparison& comparison, const std::string& path) {
  std::ofstream file(path);
  file << ComparisonCsv(comparison);
  file.close();
  return file.good() ? absl::OkStatus() : CannotWrite(path);
}

int Publish(const CompareFlags& flags, const Comparison& comparison) {
  if (flags.json) {
    std::cout << ComparisonJson(comparison) << std::endl;
  } else {
    std::cout << ComparisonTable(comparison) << std::flush;
  }
  if (!flags.csv.empty()) {
    const absl::Status written = WriteCsv(comparison, flags.csv);
    if (!written.ok()) return UsageError(written.message());
  }
  if (!flags.plot.empty()) {
    const absl::Status drawn =
        RunGnuplot(GnuplotScript(comparison, flags.plot));
    if (!drawn.ok()) return UsageError(drawn.message());
  }
  return kExitOk;
}

int Compare(CompareFlags& flags, const Globals& globals) {
  const absl::Status valid = CheckFlags(flags);
  if (!valid.ok()) return UsageError(valid.message());
  auto text = ReadText(flags.file);
  if (!text.ok()) return UsageError(text.status().message());
  flags.request.text = *std::move(text);
  flags.request.text_name = TextName(flags.file);
  const auto client = Connect(globals);
  if (!client.ok()) return UsageError(client.status().message());
  InterruptFlag interrupt;
  const auto comparison = RunComparison(**client, flags.request);
  if (!comparison.ok()) return Fail(globals, comparison.status());
  if (comparison->tokens < 2) {
    return UsageError("the text has fewer than 2 tokens: nothing to compare");
  }
  return Publish(flags, *comparison);
}

}  // namespace

Command AddCompare(CLI::App& app) {
  auto flags = std::make_shared<CompareFlags>();
  CLI::App* command = app.add_subcommand(
      "compare", "a text under several cache policies, side by side");
  command->add_option("--file", flags->file, "the text; -: standard input")
      ->capture_default_str();
  command
      ->add_option("--policies", flags->request.policies,
                   "such as sinks:sink_tokens=4,window_tokens=252, may be "
                   "given again; default: full, and window and sinks of equal "
                   "size")
      ->allow_extra_args(false);
  command->add_option("--max_input_tokens", flags->request.max_input_tokens,
                      "the first N tokens only");
  command
      ->add_option("--bucket_tokens", flags->request.bucket_tokens,
                   "perplexity of so many tokens at a time; default: at most "
                   "24 buckets")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 32));
  command->add_flag("--json", flags->json, "one JSON object");
  command->add_option("--csv", flags->csv,
                      "write a line for each policy and bucket here");
  command->add_option("--plot", flags->plot,
                      "draw it here, FILE.svg or FILE.png; needs gnuplot");
  return {command,
          [flags](const Globals& globals) { return Compare(*flags, globals); }};
}

}  // namespace millrace::cli
