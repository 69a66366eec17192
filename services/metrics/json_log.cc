#include "services/metrics/json_log.h"

#include <openssl/sha.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace millrace::metrics {
namespace {

constexpr int kMaxLinesPerSecond = 100;
constexpr size_t kMaxStringBytes = 128;  // of a field; messages are ours
constexpr absl::string_view kLevels[] = {"debug", "info", "warning", "error"};

using Json = nlohmann::ordered_json;

Json ToJson(const LogValue& value) {
  return std::visit(
      [](const auto& v) -> Json {
        if constexpr (std::is_same_v<std::decay_t<decltype(v)>, std::string>) {
          return v.substr(0, kMaxStringBytes);
        } else {
          return v;
        }
      },
      value);
}

}  // namespace

absl::StatusOr<Level> ParseLevel(absl::string_view name) {
  for (int i = 0; i < 4; ++i) {
    if (kLevels[i] == name) return static_cast<Level>(i);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "'", name, "' is no log level; there are debug, info, warning, error"));
}

std::string SessionTag(absl::string_view session_id) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(session_id.data()),
         session_id.size(), digest);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), 4));
}

JsonLog::JsonLog(Level least, std::function<void(absl::string_view)> write,
                 std::function<absl::Time()> now)
    : least_(least), write_(std::move(write)), now_(std::move(now)) {}

JsonLog JsonLog::ToStderr(Level least) {
  return JsonLog(least, [](absl::string_view line) {
    std::fwrite(line.data(), 1, line.size(), stderr);
  });
}

void JsonLog::Write(Level level, absl::string_view event,
                    absl::string_view message, const LogFields& fields) {
  if (level < least_) return;
  const absl::Time now = now_();
  absl::MutexLock lock(&mutex_);
  auto found = rates_.find(event);
  if (found == rates_.end()) {
    found = rates_.emplace(std::string(event), Rate{now}).first;
  }
  Rate& rate = found->second;
  if (now - rate.second >= absl::Seconds(1)) {
    rate.second = now;
    rate.lines = 0;
  }
  if (++rate.lines > kMaxLinesPerSecond) {
    ++rate.suppressed;
    return;
  }
  Json line;
  line["ts"] =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", now, absl::UTCTimeZone());
  line["level"] = std::string(kLevels[static_cast<int>(level)]);
  line["event"] = std::string(event);
  line["msg"] = std::string(message);
  for (const auto& [key, value] : fields) line[key] = ToJson(value);
  if (rate.suppressed > 0) {
    line["suppressed"] = std::exchange(rate.suppressed, 0);
  }
  write_(line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace millrace::metrics
