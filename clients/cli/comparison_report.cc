#include "clients/cli/comparison_report.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/common.h"

namespace millrace::cli {
namespace {

std::string PolicyTable(const Comparison& comparison) {
  size_t width = 0;
  for (const Contender& c : comparison.contenders) {
    width = std::max(width, c.policy.size());
  }
  std::string text = absl::StrFormat(
      "%-*s %7s %10s %9s %8s %9s %11s\n", width, "policy", "tokens",
      "perplexity", "tokens/s", "visible", "resident", "K/V memory");
  for (const Contender& c : comparison.contenders) {
    absl::StrAppendFormat(&text, "%-*s %7s %10.2f %9.0f %8s %9s %11s\n", width,
                          c.policy, WithCommas(c.scored.tokens),
                          c.scored.perplexity(), c.scored.tokens_per_second,
                          WithCommas(c.scored.visible_tokens),
                          WithCommas(c.scored.peak_resident_tokens),
                          Bytes(KvBytes(comparison, c)));
  }
  return text;
}

// Where one ended early, perplexities of whole texts do not compare.
std::string CommonRow(const Comparison& comparison, int column) {
  const uint64_t common = CommonTokens(comparison);
  if (common == comparison.tokens) return "";
  std::string text =
      absl::StrFormat("%-20s", absl::StrCat("first ", WithCommas(common)));
  for (const Contender& c : comparison.contenders) {
    absl::StrAppendFormat(&text, "%*.2f", column, PerplexityOfFirst(c, common));
  }
  return text + '\n';
}

std::string PositionTable(const Comparison& comparison) {
  constexpr int kColumn = 12;
  std::string text = absl::StrFormat("%-20s", "perplexity at");
  std::vector<std::vector<Bucket>> columns;
  size_t rows = 0;
  const std::vector<std::string> names = ShortNames(comparison);
  for (size_t i = 0; i < names.size(); ++i) {
    absl::StrAppendFormat(&text, "%*s", kColumn, names[i]);
    columns.push_back(Buckets(comparison, comparison.contenders[i]));
    rows = std::max(rows, columns.back().size());
  }
  text += '\n';
  for (size_t row = 0; row < rows; ++row) {
    const uint64_t first = row * comparison.bucket_tokens;
    const uint64_t end =
        std::min(first + comparison.bucket_tokens, comparison.tokens);
    absl::StrAppendFormat(&text, "%9s .. %7s", WithCommas(first),
                          WithCommas(end - 1));
    for (const auto& column : columns) {
      absl::StrAppendFormat(
          &text, "%*s", kColumn,
          row < column.size()
              ? absl::StrFormat("%.2f", column[row].perplexity())
              : "-");
    }
    text += '\n';
  }
  return text + CommonRow(comparison, kColumn);
}

std::string Remarks(const Comparison& comparison) {
  std::string text;
  bool forgot = false;
  for (const Contender& c : comparison.contenders) {
    forgot |= c.forgot_something() || c.ended.has_value();
    if (!c.ended) continue;
    absl::StrAppend(&text, "\n", c.policy, " ended at ",
                    WithCommas(c.scored.tokens), " tokens, ", c.ended->reason,
                    ":\n", c.ended->message, "\n");
  }
  if (!forgot) {
    absl::StrAppend(&text,
                    "\nNo policy has forgotten anything: the text is shorter "
                    "than their caches. Give a\nlonger text, or smaller caches "
                    "with --policies.\n");
  }
  return text;
}

}  // namespace

std::vector<std::string> ShortNames(const Comparison& comparison) {
  std::vector<std::string> names;
  std::map<std::string, int> seen;
  for (const Contender& c : comparison.contenders) {
    const std::string name = c.policy.substr(0, c.policy.find(':'));
    const int number = ++seen[name];
    names.push_back(number == 1 ? name : absl::StrCat(name, " ", number));
  }
  return names;
}

std::string ComparisonTable(const Comparison& comparison) {
  return absl::StrCat(PolicyTable(comparison), "\n", PositionTable(comparison),
                      Remarks(comparison));
}

nlohmann::json ComparisonJson(const Comparison& comparison) {
  nlohmann::json policies = nlohmann::json::array();
  for (const Contender& c : comparison.contenders) {
    nlohmann::json policy = ScoredJson(c.scored);
    policy["policy"] = c.policy;
    policy["common_perplexity"] =
        PerplexityOfFirst(c, CommonTokens(comparison));
    policy["kv_memory_bytes"] = KvBytes(comparison, c);
    policy["ended"] = nullptr;
    if (c.ended) {
      policy["ended"] = {{"reason", c.ended->reason},
                         {"message", c.ended->message}};
    }
    policy["buckets"] = nlohmann::json::array();
    for (const Bucket& bucket : Buckets(comparison, c)) {
      policy["buckets"].push_back({{"first_position", bucket.first},
                                   {"end_position", bucket.end},
                                   {"mean_nll", bucket.mean_nll},
                                   {"perplexity", bucket.perplexity()},
                                   {"visible_tokens", bucket.visible}});
    }
    policies.push_back(std::move(policy));
  }
  return {{"text", comparison.text_name},
          {"model", comparison.model},
          {"tokens", comparison.tokens},
          {"common_tokens", CommonTokens(comparison)},
          {"bucket_tokens", comparison.bucket_tokens},
          {"kv_bytes_per_token", comparison.kv_bytes_per_token},
          {"policies", std::move(policies)}};
}

std::string ComparisonCsv(const Comparison& comparison) {
  std::string text =
      "policy,first_position,end_position,mean_nll,perplexity,visible_tokens,"
      "visible_bytes\n";
  for (const Contender& c : comparison.contenders) {
    for (const Bucket& b : Buckets(comparison, c)) {
      // The text form of a policy has commas.
      absl::StrAppendFormat(&text, "\"%s\",%d,%d,%.6f,%.6f,%d,%d\n", c.policy,
                            b.first, b.end, b.mean_nll, b.perplexity(),
                            b.visible,
                            b.visible * comparison.kv_bytes_per_token);
    }
  }
  return text;
}

}  // namespace millrace::cli
