#include "tests/testing/named_policy.h"

#include <cstdio>
#include <cstdlib>
#include <string>

#include "cache/policies/registry.h"

namespace millrace::testing {
namespace {

[[noreturn]] void Die(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::abort();
}

}  // namespace

std::shared_ptr<const cache::CachePolicy> NamedPolicy(absl::string_view text,
                                                      int64_t trained_context) {
  const auto config = cache::ParsePolicy(text);
  if (!config.ok()) Die(config.status());
  const auto made =
      cache::MakePolicy(*config, {.trained_context = trained_context,
                                  .max_resident_tokens = int64_t{1} << 20});
  if (!made.ok()) Die(made.status());
  return made->policy;
}

}  // namespace millrace::testing
