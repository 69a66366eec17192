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

// The x of a bucket.
double Middle(const Bucket& bucket) {
  return static_cast<double>(bucket.first + bucket.end) / 2;
}

std::string VisibleRows(const VisibleTrace& trace) {
  constexpr size_t kMostPoints = 400;
  const auto& points = trace.points();
  const size_t stride = points.size() / kMostPoints + 1;
  std::string text;
  for (size_t i = 0; i < points.size(); i += stride) {
    absl::StrAppend(&text, points[i].position, " ", points[i].visible, "\n");
  }
  const VisibleTrace::Point& last = points.back();
  if ((points.size() - 1) % stride == 0) return text;
  return absl::StrCat(text, last.position, " ", last.visible, "\n");
}

// $perplexity0, $visible0 and $end0 for policy 0, and so on.
std::string Data(const Comparison& comparison) {
  std::string text;
  for (size_t i = 0; i < comparison.contenders.size(); ++i) {
    const Contender& c = comparison.contenders[i];
    const std::vector<Bucket> buckets = Buckets(comparison, c);
    absl::StrAppend(&text, "$perplexity", i, " << EOD\n");
    for (const Bucket& bucket : buckets) {
      absl::StrAppendFormat(&text, "%.1f %.4f\n", Middle(bucket),
                            bucket.perplexity());
    }
    absl::StrAppend(&text, "EOD\n$visible", i, " << EOD\n",
                    VisibleRows(c.visible), "EOD\n$end", i, " << EOD\n");
    if (!buckets.empty()) {
      const VisibleTrace::Point& last = c.visible.points().back();
      absl::StrAppendFormat(&text, "%.1f %.4f %d %d\n", Middle(buckets.back()),
                            buckets.back().perplexity(), last.position,
                            last.visible);
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

std::string Settings(const Comparison& comparison, const std::string& path) {
  const std::string title =
      absl::StrCat(comparison.model, ", ", comparison.text_name, ", ",
                   WithCommas(comparison.tokens), " tokens");
  return absl::StrCat(
      "set terminal ",
      absl::EndsWith(path, ".svg") ? "svg font 'sans-serif,20'"
                                   : "pngcairo font 'sans,15'",
      " size 1280,800 background 'white' noenhanced\nset output ", Quoted(path),
      "\nset multiplot layout 2,1 title ", Quoted(title),
      ".\"\\n\"\nset border lc rgb '#404040'\nset grid lc rgb '#d0d0d0'\n"
      "set format x '%.0f'\nset lmargin 10\nset rmargin 12\nset xrange [0:",
      comparison.tokens, "]\n");
}

std::string UpperPanel(const Comparison& comparison) {
  return absl::StrCat(
      "set ylabel 'perplexity'\nset key above left Left reverse maxcols 1\n",
      WantsLogarithm(comparison) ? "set logscale y\n" : "set yrange [0:*]\n",
      Lines(comparison, "perplexity", /*key=*/true));
}

std::string LowerPanel(const Comparison& comparison) {
  constexpr double kMebibyte = 1 << 20;
  const double most = 1.1 * static_cast<double>(MostVisible(comparison));
  const double bytes =
      most * static_cast<double>(comparison.kv_bytes_per_token);
  return absl::StrFormat(
      "unset logscale y\nset yrange [0:%.0f]\nset y2range [0:%.4f]\n"
      "set ytics nomirror\nset y2tics\nset ylabel 'tokens in view'\n"
      "set y2label 'their K/V memory (MiB)'\n"
      "set xlabel 'text position (tokens)'\n%s",
      most, bytes / kMebibyte, Lines(comparison, "visible", /*key=*/false));
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
  return absl::StrCat(Data(comparison), Settings(comparison, path),
                      UpperPanel(comparison), LowerPanel(comparison),
                      "unset multiplot\nset output\n");
}

absl::Status RunGnuplot(const std::string& script) {
  int ends[2];
  if (pipe(ends) != 0) return absl::UnknownError(std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
  // Standard output is ours: the table, or JSON.
  posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  char name[] = "gnuplot";
  char defaults[] = "-d";  // whatever ~/.gnuplot says
  char* arguments[] = {name, defaults, nullptr};
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
