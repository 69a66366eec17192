#include "clients/cli/usage_json.h"

namespace millrace::cli {

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() * 1e-9;
}

nlohmann::json UsageJson(const v1::Usage& usage) {
  return {{"input_tokens", usage.input_tokens()},
          {"generated_tokens", usage.generated_tokens()},
          {"evicted_tokens", usage.evicted_tokens()},
          {"text_position", usage.text_position()},
          {"visible_tokens", usage.visible_tokens()},
          {"peak_resident_tokens", usage.peak_resident_tokens()},
          {"drafted_tokens", usage.drafted_tokens()},
          {"accepted_tokens", usage.accepted_tokens()}};
}

nlohmann::json TimingJson(const v1::Usage& usage) {
  return {{"queued_seconds", Seconds(usage.queued())},
          {"time_to_first_token_seconds", Seconds(usage.time_to_first_token())},
          {"decode_seconds", Seconds(usage.decode())},
          {"tokens_per_second", DecodeTokensPerSecond(usage)}};
}

double DecodeTokensPerSecond(const v1::Usage& usage) {
  const double seconds = Seconds(usage.decode());
  // `decode` runs from the first token to the last.
  if (usage.generated_tokens() < 2 || seconds <= 0) return 0;
  return (usage.generated_tokens() - 1) / seconds;
}

}  // namespace millrace::cli
