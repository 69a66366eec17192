// What a policy gives the registry: its description, and how to make it of the
// options that somebody asked for.
#ifndef MILLRACE_CACHE_POLICIES_POLICY_DEFINITION_H_
#define MILLRACE_CACHE_POLICIES_POLICY_DEFINITION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cache/policies/registry.h"

namespace millrace::cache {

// Reads the options of a PolicyConfig. The registry has checked their names;
// a value that cannot be read is INVALID_ARGUMENT and names the option.
class PolicyOptionReader {
 public:
  // `config` is borrowed.
  explicit PolicyOptionReader(const PolicyConfig* config) : config_(config) {}

  bool Has(absl::string_view name) const { return Find(name) != nullptr; }

  // A count of tokens, 0 to 2^32 - 1.
  absl::StatusOr<int64_t> Tokens(absl::string_view name,
                                 int64_t default_value) const;
  // A finite number, such as "0.5".
  absl::StatusOr<double> Number(absl::string_view name,
                                double default_value) const;
  // "true" or "false".
  absl::StatusOr<bool> Bool(absl::string_view name, bool default_value) const;
  // One of two words; the answer says whether it is the second.
  absl::StatusOr<bool> Choice(absl::string_view name, absl::string_view first,
                              absl::string_view second) const;

 private:
  const std::string* Find(absl::string_view name) const;

  const PolicyConfig* const config_;
};

// What policies that keep a prefix have in common: how much of the text's start
// somebody wants to keep for ever.
struct Pins {
  bool pin_system_prompt = true;
  int64_t pin_tokens = 0;  // as asked for
  int64_t pinned = 0;      // the system prompt's tokens if those are more
};
absl::StatusOr<Pins> ReadPins(const PolicyOptionReader& options,
                              const PolicyContext& context,
                              int64_t default_pin_tokens = 0);
// ",pin_system_prompt=true,pin_tokens=0"
std::string PinsText(const Pins& pins);
// The same, with what is pinned told as a count: good for any system prompt.
std::string PinnedText(int64_t pinned);
// The rules of a policy that keeps the first `kept` tokens, and does not see
// the `dropped` ones behind them: what is kept comes nearer by so many.
std::vector<RunRule> KeptAndNewest(int64_t kept, int64_t dropped);
// The options' descriptions, to be put behind a policy's own. The second
// argument is `pin_tokens` of a model with a sink token, if that differs.
std::vector<PolicyOptionInfo> WithPins(
    std::vector<PolicyOptionInfo> own,
    absl::string_view pins_with_sink_token = "");

// The sinks of a policy that is told no number: 4, as StreamingLLM advises for
// models that were trained without a sink token, and 1 for those with one
// (https://arxiv.org/abs/2309.17453, tables 2 and 3).
int64_t DefaultSinkTokens(const PolicyContext& context);
// The description of the option that says how many.
PolicyOptionInfo SinkTokensInfo(std::string name, std::string range);

struct PolicyDefinition {
  PolicyInfo info;
  absl::StatusOr<MadePolicy> (*make)(const PolicyOptionReader& options,
                                     const PolicyContext& context) = nullptr;
};

// The start of what somebody wrote, to quote in a message: at most 64 bytes,
// cut between characters and followed by "..." if there is more; control
// characters are escaped.
std::string Excerpt(absl::string_view text);

// INVALID_ARGUMENT with the reason INVALID_CACHE_POLICY, about an option.
absl::Status InvalidPolicy(absl::string_view option, absl::string_view message);

// The same, if the policy holds more than the context allows.
absl::Status CheckMemory(const CachePolicy& policy,
                         const PolicyContext& context,
                         absl::string_view option);

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_POLICIES_POLICY_DEFINITION_H_
