#include "clients/cli/comparison_plot.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "clients/cli/common.h"

extern char** environ;

namespace millrace::cli {
namespace {

// Okabe and Ito's colours, told apart by nearly everyone.
constexpr const char* kColours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                    "#E69F00", "#56B4E9", "#000000"};

std::string Quoted(const std::string& text) {
  return absl::StrCat(
      "'", absl::StrReplaceAll(text, {{"'", "''"}, {"\n", " "}}), "'");
}

// Beyond this factor between the best and the worst only a logarithmic axis
// shows both.
bool WantsLogarithm(const Comparison& comparison) {
  constexpr double kFactor = 12;
  double least = 0, most = 0;
  for (const Contender& c : comparison.contenders) {
    for (const Bucket& bucket : Buckets(comparison, c)) {
      const double value = bucket.perplexity();
      least = least == 0 ? value : std::min(least, value);
      most = std::max(most, value);
    }
  }
  return most > kFactor * least;
}

uint64_t MostVisible(const Comparison& comparison) {
  uint64_t most = 0;
  for (const Contender& c : comparison.contenders) {
    for (const auto& point : c.visible.points()) {
      most = std::max(most, point.visible);
    }
  }
  return most;
}

// $perplexity0, $visible0, $end0, then those of the next policy.
std::string Data(const Comparison& comparison) {
  constexpr size_t kMostPoints = 400;
  std::string text;
  for (size_t i = 0; i < comparison.contenders.size(); ++i) {
    const Contender& c = comparison.contenders[i];
    absl::StrAppend(&text, "$perplexity", i, " << EOD\n");
    const std::vector<Bucket> buckets = Buckets(comparison, c);
    for (const Bucket& bucket : buckets) {
      absl::StrAppendFormat(&text, "%.1f %.4f\n",
                            (bucket.first + bucket.end) / 2.0,
                            bucket.perplexity());
    }
    absl::StrAppend(&text, "EOD\n$visible", i, " << EOD\n");
    const auto& points = c.visible.points();
    const size_t stride = points.size() / kMostPoints + 1;
    for (size_t at = 0; at < points.size(); at += stride) {
      absl::StrAppend(&text, points[at].position, " ", points[at].visible,
                      "\n");
    }
    const auto& last = points.back();
    absl::StrAppend(&text, last.position, " ", last.visible, "\nEOD\n$end", i,
                    " << EOD\n");
    if (c.ended && !buckets.empty()) {
      const Bucket& end = buckets.back();
      absl::StrAppendFormat(&text, "%.1f %.4f %d %d\n",
                            (end.first + end.end) / 2.0, end.perplexity(),
                            last.position, last.visible);
    }
    absl::StrAppend(&text, "EOD\n");
  }
  return text;
}

std::string LineTitle(const Contender& contender) {
  if (!contender.ended) return Quoted(contender.policy);
  return Quoted(absl::StrCat(contender.policy, " (ends at ",
                             WithCommas(contender.scored.tokens), ": ",
                             contender.ended->reason, ")"));
}

// The plot command of one panel; the lower one has no key of its own.
std::string Lines(const Comparison& comparison, const char* data, bool key) {
  std::string text = "plot ";
  for (size_t i = 0; i < comparison.contenders.size(); ++i) {
    const Contender& c = comparison.contenders[i];
    const char* colour = kColours[i % std::size(kColours)];
    const std::string title =
        key ? absl::StrCat("title ", LineTitle(c)) : "notitle";
    // Later lines are thinner and dashed: where two are equal, both show.
    absl::StrAppendFormat(
        &text, "%s$%s%d using 1:2 with lines lw %.1f dt %d lc rgb '%s' %s",
        i == 0 ? "" : ", \\\n  ", data, i,
        std::max(5.0 - 1.0 * static_cast<double>(i), 2.0),
        key ? 1 : static_cast<int>(i % 5) + 1, colour, title);
    if (!c.ended) continue;
    absl::StrAppendFormat(
        &text,
        ", \\\n  $end%d using %s with points pt 2 ps 1.8 lw 4 lc rgb '%s' "
        "notitle",
        i, key ? "1:2" : "3:4", colour);
  }
  return text + "\n";
}

}  // namespace

absl::Status CheckPlotName(const std::string& path) {
  if (absl::EndsWith(path, ".svg") || absl::EndsWith(path, ".png")) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--plot=", path, ": the name must end with .svg or .png"));
}

std::string GnuplotScript(const Comparison& comparison,
                          const std::string& path) {
  constexpr double kMebibyte = 1 << 20;
  const bool svg = absl::EndsWith(path, ".svg");
  std::string text = Data(comparison);
  absl::StrAppend(
      &text, "set terminal ",
      svg ? "svg size 1280,800 font 'sans-serif,20' background 'white'"
          : "pngcairo size 1280,800 font 'sans,15' background 'white'",
      " noenhanced\nset output ", Quoted(path),
      "\nset multiplot layout 2,1 title ",
      Quoted(absl::StrCat(comparison.model, ", ", comparison.text_name, ", ",
                          WithCommas(comparison.tokens), " tokens")),
      ".\"\\n\"",
      "\nset border lc rgb '#404040'\nset grid lc rgb '#d0d0d0'\n"
      "set format x '%.0f'\nset lmargin 10\nset rmargin 12\n");
  absl::StrAppendFormat(&text, "set xrange [0:%d]\n", comparison.tokens);
  absl::StrAppend(
      &text, "set ylabel 'perplexity'\n",
      "set key above left Left reverse maxcols 1\n",
      WantsLogarithm(comparison) ? "set logscale y\n" : "set yrange [0:*]\n",
      Lines(comparison, "perplexity", /*key=*/true));
  const double most = 1.1 * static_cast<double>(MostVisible(comparison));
  absl::StrAppendFormat(
      &text,
      "unset logscale y\nset yrange [0:%.0f]\nset y2range [0:%.4f]\n"
      "set ytics nomirror\nset y2tics\nset ylabel 'tokens in view'\n"
      "set y2label 'their K/V memory (MiB)'\n"
      "set xlabel 'text position (tokens)'\n",
      most, most * comparison.kv_bytes_per_token / kMebibyte);
  absl::StrAppend(&text, Lines(comparison, "visible", /*key=*/false),
                  "unset multiplot\nset output\n");
  return text;
}

absl::Status RunGnuplot(const std::string& script) {
  int ends[2];
  if (pipe(ends) != 0) return absl::UnknownError(std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  char name[] = "gnuplot";
  char* arguments[] = {name, nullptr};
  pid_t child = 0;
  const int error =
      posix_spawnp(&child, name, &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[0]);
  if (error != 0) {
    close(ends[1]);
    return absl::NotFoundError(
        "no plot: gnuplot is not installed; on Debian: apt-get install "
        "gnuplot-nox");
  }
  for (size_t at = 0; at < script.size();) {
    const ssize_t wrote =
        write(ends[1], script.data() + at, script.size() - at);
    if (wrote < 0 && errno != EINTR) break;  // its exit status tells
    at += std::max<ssize_t>(wrote, 0);
  }
  close(ends[1]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  return absl::UnknownError("no plot: gnuplot failed");
}

}  // namespace millrace::cli
