#include "cache/policies/full_policy.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace millrace::cache {
namespace {

class FullPolicy final : public CachePolicy {
 public:
  explicit FullPolicy(const FullOptions& options) : options_(options) {}

  absl::string_view Name() const override { return "full"; }

  std::string ToString() const override {
    return absl::StrCat(
        "full:max_tokens=", options_.max_tokens,
        ",allow_beyond_trained_context=",
        options_.allow_beyond_trained_context ? "true" : "false");
  }

  PolicyTraits traits() const override { return {.unbounded_stream = false}; }

  int64_t MaxResidentTokens(int64_t) const override {
    return options_.max_tokens;
  }

  int64_t MaxDistance() const override { return options_.max_tokens - 1; }

  std::vector<RunRule> Rules(int64_t) const override { return {RunRule{}}; }

  absl::StatusOr<EvictionPlan> Plan(const SequenceView& view,
                                    int64_t num_new) const override {
    const int64_t room = options_.max_tokens - view.length;
    if (num_new <= room) return EvictionPlan{};
    return absl::FailedPreconditionError(
        absl::StrCat("append ", num_new, " tokens: policy 'full' has room for ",
                     room, " of ", options_.max_tokens,
                     "; open it with a bounded policy, such as 'sinks'"));
  }

 private:
  const FullOptions options_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const CachePolicy>> NewFullPolicy(
    const FullOptions& options, int64_t trained_context) {
  if (options.max_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens=", options.max_tokens, ": must be 1 or more"));
  }
  if (options.max_tokens > trained_context &&
      !options.allow_beyond_trained_context) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_tokens=", options.max_tokens,
        " exceeds the model's trained context of ", trained_context));
  }
  return std::make_shared<const FullPolicy>(options);
}

}  // namespace millrace::cache
