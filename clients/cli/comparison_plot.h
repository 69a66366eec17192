// A comparison as a picture, drawn by gnuplot: perplexity by text position
// above, tokens and K/V memory in view below, a line for each policy.
#ifndef MILLRACE_CLIENTS_CLI_COMPARISON_PLOT_H_
#define MILLRACE_CLIENTS_CLI_COMPARISON_PLOT_H_

#include <string>

#include "absl/status/status.h"
#include "clients/cli/comparison.h"

namespace millrace::cli {

// INVALID_ARGUMENT unless the name ends with .svg or .png.
absl::Status CheckPlotName(const std::string& path);

// What gnuplot is told, data included. REQUIRES: CheckPlotName(path).ok()
std::string GnuplotScript(const Comparison& comparison,
                          const std::string& path);

// Hands a script to gnuplot through a pipe and waits until it has ended.
// NOT_FOUND says how to install gnuplot; UNKNOWN if it failed, which it has
// told on standard error.
absl::Status RunGnuplot(const std::string& script);

}  // namespace millrace::cli

#endif  // MILLRACE_CLIENTS_CLI_COMPARISON_PLOT_H_
