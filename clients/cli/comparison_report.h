// A comparison in words and figures: for people, for programs, for a
// spreadsheet.
#ifndef MILLRACE_CLIENTS_CLI_COMPARISON_REPORT_H_
#define MILLRACE_CLIENTS_CLI_COMPARISON_REPORT_H_

#include <nlohmann/json.hpp>
#include <string>

#include "clients/cli/comparison.h"

namespace millrace::cli {

// A short name for each policy: "sinks", or "sinks 2" if there are several.
std::vector<std::string> ShortNames(const Comparison& comparison);

// Two tables, a row for each policy and one for each bucket, then remarks.
std::string ComparisonTable(const Comparison& comparison);

nlohmann::json ComparisonJson(const Comparison& comparison);

// A line for each policy and bucket, after a line of names.
std::string ComparisonCsv(const Comparison& comparison);

}  // namespace millrace::cli

#endif  // MILLRACE_CLIENTS_CLI_COMPARISON_REPORT_H_
