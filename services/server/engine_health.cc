#include "services/server/engine_health.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace millrace::server {

absl::Status EngineHealth(const engine::EngineStats& stats,
                          absl::Duration longest_step) {
  if (!stats.last_step.ok()) {
    return absl::UnavailableError(
        absl::StrCat("the last step failed: ", stats.last_step.message()));
  }
  const absl::Duration patience =
      std::max(absl::Seconds(60), 20 * longest_step);
  if (stats.progress_age >= patience) {
    return absl::UnavailableError(
        absl::StrCat("the engine has work and has made no progress for ",
                     absl::FormatDuration(stats.progress_age)));
  }
  return absl::OkStatus();
}

}  // namespace millrace::server
