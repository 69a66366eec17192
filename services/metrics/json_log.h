// JsonLog writes what operators should know: one JSON object a line.
//
//   log.Write(Level::kInfo, "drain", "no new sessions", {{"sessions", 3}});
//   // {"ts":"2026-01-01T00:00:00.000000Z","level":"info","event":"drain",
//   //  "msg":"no new sessions","sessions":3}
//
// Never hand it prompts, outputs, tokens, keys or certificates: what a client
// wrote or read is no business of a log, at any level. Names that clients chose
// are cut at 128 bytes, invalid UTF-8 is replaced.
//
// At most 100 lines a second of one event are written; the next line of that
// event says how many were left out ("suppressed").
//
// Thread-safe.
#ifndef MILLRACE_SERVICES_METRICS_JSON_LOG_H_
#define MILLRACE_SERVICES_METRICS_JSON_LOG_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace millrace::metrics {

enum class Level { kDebug, kInfo, kWarning, kError };

// "debug", "info", "warning", "error".
absl::StatusOr<Level> ParseLevel(absl::string_view name);

using LogValue = std::variant<std::string, int64_t, double, bool>;
using LogFields = std::vector<std::pair<std::string, LogValue>>;

// How a session is named in logs: the first 8 hexadecimal digits of the
// SHA-256 of its id.
std::string SessionTag(absl::string_view session_id);

class JsonLog {
 public:
  // `write` takes whole lines, newline included, one call at a time.
  explicit JsonLog(Level least, std::function<void(absl::string_view)> write,
                   std::function<absl::Time()> now = absl::Now);

  // A log on standard error.
  static JsonLog ToStderr(Level least);

  // `event` is a stable name for programs, `message` is for people.
  void Write(Level level, absl::string_view event, absl::string_view message,
             const LogFields& fields = {});

 private:
  struct Rate {
    absl::Time second;
    int lines = 0;
    int64_t suppressed = 0;
  };

  const Level least_;
  const std::function<void(absl::string_view)> write_;
  const std::function<absl::Time()> now_;
  absl::Mutex mutex_;
  std::map<std::string, Rate, std::less<>> rates_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace::metrics

#endif  // MILLRACE_SERVICES_METRICS_JSON_LOG_H_
