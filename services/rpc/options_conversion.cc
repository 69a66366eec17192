#include "services/rpc/options_conversion.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "services/errors/errors.h"
#include "services/rpc/policy_conversion.h"
#include "services/rpc/time_conversion.h"

namespace millrace::rpc {
namespace {

constexpr int kMaxStopTokens = 1024;
constexpr uint32_t kMaxWindow = 8192;  // of penalties and repetition guard
constexpr uint32_t kMinGuard = 4;

std::string Under(absl::string_view field, absl::string_view name) {
  return absl::StrCat(field, ".", name);
}

std::string At(absl::string_view field, absl::string_view name, int index) {
  return absl::StrCat(field, ".", name, "[", index, "]");
}

// A closed range; `open_low` leaves out the lower end.
struct Range {
  double low, high;
  bool open_low = false;
};

// INVALID_FIELD unless `value` is in the range; NaN never is.
absl::Status Check(double value, Range range, absl::string_view field) {
  const bool high_enough =
      range.open_low ? value > range.low : value >= range.low;
  if (high_enough && value <= range.high) return absl::OkStatus();
  return errors::InvalidField(
      field,
      absl::StrCat(field, "=", value, " is not ",
                   range.open_low ? "above " : "from ", range.low,
                   range.open_low ? " and at most " : " to ", range.high));
}

absl::Status CheckCount(int64_t count, int64_t limit, absl::string_view field) {
  if (count <= limit) return absl::OkStatus();
  return errors::InvalidField(
      field, absl::StrCat(field, " has ", count, " entries; at most ", limit,
                          " are allowed"));
}

absl::Status CheckTokenId(uint32_t id, const RequestLimits& limits,
                          absl::string_view field) {
  const uint32_t size = limits.tokenizer->vocabulary_size();
  if (id < size) return absl::OkStatus();
  return errors::InvalidField(
      field,
      absl::StrCat(field, "=", id, " is not below the vocabulary size ", size));
}

uint64_t RandomSeed() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

absl::Status CheckSampling(const engine::SamplingOptions& options,
                           absl::string_view field) {
  const struct {
    double value;
    Range range;
    const char* name;
  } checks[] = {
      {options.temperature, {0, 100}, "temperature"},
      {options.top_p, {0, 1, true}, "top_p"},
      {options.min_p, {0, 1}, "min_p"},
      {options.repetition_penalty, {0, 10, true}, "repetition_penalty"},
      {options.presence_penalty, {-2, 2}, "presence_penalty"},
      {options.frequency_penalty, {-2, 2}, "frequency_penalty"},
      {static_cast<double>(options.penalty_window_tokens),
       {0, kMaxWindow},
       "penalty_window_tokens"},
  };
  for (const auto& check : checks) {
    absl::Status status =
        Check(check.value, check.range, Under(field, check.name));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// SPECULATION_UNSPECIFIED leaves the server's choice.
absl::Status ReadSpeculation(const v1::SamplingParams& params,
                             absl::string_view field,
                             engine::SamplingOptions& out) {
  switch (params.speculation()) {
    case v1::SPECULATION_UNSPECIFIED:
      return absl::OkStatus();
    case v1::SPECULATION_NONE:
      out.speculation = engine::Speculation::kNone;
      return absl::OkStatus();
    case v1::SPECULATION_NGRAM:
      out.speculation = engine::Speculation::kNgram;
      return absl::OkStatus();
    default:
      return errors::InvalidField(
          Under(field, "speculation"),
          absl::StrCat(field,
                       ".speculation=", static_cast<int>(params.speculation()),
                       " is no value of Speculation"));
  }
}

absl::Status ReadLogitBias(const v1::SamplingParams& params,
                           const RequestLimits& limits, absl::string_view field,
                           engine::SamplingOptions& out) {
  absl::Status status =
      CheckCount(params.logit_bias_size(), limits.max_logit_bias,
                 Under(field, "logit_bias"));
  absl::flat_hash_set<uint32_t> seen;
  for (int i = 0; i < params.logit_bias_size() && status.ok(); ++i) {
    const v1::LogitBias& entry = params.logit_bias(i);
    const std::string path = At(field, "logit_bias", i);
    status = CheckTokenId(entry.token_id(), limits, Under(path, "token_id"));
    if (status.ok()) {
      status = Check(entry.bias(), {-100, 100}, Under(path, "bias"));
    }
    if (status.ok() && !seen.insert(entry.token_id()).second) {
      status = errors::InvalidField(
          Under(path, "token_id"),
          absl::StrCat(path, ".token_id=", entry.token_id(), " came before"));
    }
    out.logit_bias.emplace_back(entry.token_id(), entry.bias());
  }
  return status;
}

absl::Status ReadBudget(const v1::StoppingOptions& options,
                        const RequestLimits& limits, absl::string_view field,
                        engine::StoppingOptions& out) {
  const uint64_t cap = limits.max_turn_tokens.value_or(UINT64_MAX);
  if (options.has_unlimited()) {
    if (limits.max_turn_tokens) {
      return errors::InvalidField(
          Under(field, "unlimited"),
          absl::StrCat("this server ends turns after ", cap,
                       " tokens at most; "
                       "set max_tokens"));
    }
    out.max_tokens.reset();
    return absl::OkStatus();
  }
  if (!options.has_max_tokens()) {
    out.max_tokens = std::min(limits.default_turn_tokens, cap);
    return absl::OkStatus();
  }
  out.max_tokens = options.max_tokens();
  if (options.max_tokens() >= 1 && options.max_tokens() <= cap) {
    return absl::OkStatus();
  }
  return errors::InvalidField(
      Under(field, "max_tokens"),
      absl::StrCat(field, ".max_tokens=", options.max_tokens(),
                   limits.max_turn_tokens
                       ? absl::StrCat(" is not from 1 to ", cap)
                       : " is below 1"));
}

absl::Status ReadStops(const v1::StoppingOptions& options,
                       const RequestLimits& limits, absl::string_view field,
                       engine::StoppingOptions& out) {
  absl::Status status =
      CheckCount(options.stop_strings_size(), limits.max_stop_strings,
                 Under(field, "stop_strings"));
  for (int i = 0; i < options.stop_strings_size() && status.ok(); ++i) {
    const std::string& stop = options.stop_strings(i);
    const std::string path = At(field, "stop_strings", i);
    if (stop.empty() ||
        stop.size() > static_cast<size_t>(limits.max_stop_bytes)) {
      status = errors::InvalidField(
          path, absl::StrCat(path, " has ", stop.size(), " bytes; 1 to ",
                             limits.max_stop_bytes, " are allowed"));
    }
    out.stop_strings.push_back(stop);
  }
  if (status.ok()) {
    status = CheckCount(options.stop_token_ids_size(), kMaxStopTokens,
                        Under(field, "stop_token_ids"));
  }
  for (int i = 0; i < options.stop_token_ids_size() && status.ok(); ++i) {
    status = CheckTokenId(options.stop_token_ids(i), limits,
                          At(field, "stop_token_ids", i));
    out.stop_token_ids.push_back(options.stop_token_ids(i));
  }
  return status;
}

absl::Status ReadTimeLimit(const v1::StoppingOptions& options,
                           const RequestLimits& limits, absl::string_view field,
                           engine::StoppingOptions& out) {
  out.time_limit = limits.max_turn_duration;
  if (!options.has_time_limit()) return absl::OkStatus();
  const std::string path = Under(field, "time_limit");
  const auto limit = FromProto(options.time_limit(), path);
  if (!limit.ok()) return limit.status();
  out.time_limit = *limit;
  if (*limit > absl::ZeroDuration() && *limit <= limits.max_turn_duration) {
    return absl::OkStatus();
  }
  return errors::InvalidField(
      path, absl::StrCat(path, "=", absl::FormatDuration(*limit),
                         " is not above 0 and at most ",
                         absl::FormatDuration(limits.max_turn_duration)));
}

v1::SamplingParams ToProto(const engine::SamplingOptions& options) {
  v1::SamplingParams out;
  out.set_temperature(options.temperature);
  out.set_top_k(options.top_k);
  out.set_top_p(options.top_p);
  out.set_min_p(options.min_p);
  out.set_repetition_penalty(options.repetition_penalty);
  out.set_presence_penalty(options.presence_penalty);
  out.set_frequency_penalty(options.frequency_penalty);
  out.set_penalty_window_tokens(options.penalty_window_tokens);
  out.set_seed(options.seed);
  out.set_speculation(options.speculation == engine::Speculation::kNone
                          ? v1::SPECULATION_NONE
                          : v1::SPECULATION_NGRAM);
  for (const auto& [id, bias] : options.logit_bias) {
    v1::LogitBias* entry = out.add_logit_bias();
    entry->set_token_id(id);
    entry->set_bias(bias);
  }
  return out;
}

v1::StoppingOptions ToProto(const engine::StoppingOptions& options) {
  v1::StoppingOptions out;
  if (options.max_tokens) {
    out.set_max_tokens(*options.max_tokens);
  } else {
    out.mutable_unlimited();
  }
  out.set_min_tokens(options.min_tokens);
  for (const std::string& stop : options.stop_strings) {
    out.add_stop_strings(stop);
  }
  for (int32_t id : options.stop_token_ids) out.add_stop_token_ids(id);
  out.set_ignore_end_of_turn(options.ignore_end_of_turn);
  if (options.time_limit != absl::InfiniteDuration()) {
    *out.mutable_time_limit() = rpc::ToProto(options.time_limit);
  }
  out.set_repetition_guard(options.repetition_guard);
  return out;
}

v1::ResponseOptions ToProto(const engine::ResponseOptions& options) {
  v1::ResponseOptions out;
  if (options.logprobs >= 0) out.set_logprobs(options.logprobs);
  out.set_text(options.text);
  out.set_token_ids(options.token_ids);
  out.set_cache_update_interval_tokens(options.cache_update_interval_tokens);
  return out;
}

}  // namespace

absl::StatusOr<engine::SamplingOptions> FromProto(
    const v1::SamplingParams& params, const RequestLimits& limits,
    absl::string_view field) {
  engine::SamplingOptions out;
  if (params.has_temperature()) out.temperature = params.temperature();
  // No model has more tokens than an int holds: beyond that, all stay.
  out.top_k = static_cast<int>(std::min<uint32_t>(params.top_k(), INT32_MAX));
  if (params.has_top_p()) out.top_p = params.top_p();
  if (params.has_min_p()) out.min_p = params.min_p();
  if (params.has_repetition_penalty()) {
    out.repetition_penalty = params.repetition_penalty();
  }
  out.presence_penalty = params.presence_penalty();
  out.frequency_penalty = params.frequency_penalty();
  if (params.has_penalty_window_tokens()) {
    out.penalty_window_tokens = static_cast<int>(
        std::min<uint32_t>(params.penalty_window_tokens(), INT32_MAX));
  }
  out.seed = params.has_seed() ? params.seed() : RandomSeed();
  out.speculation = limits.speculation;
  absl::Status status = CheckSampling(out, field);
  if (status.ok()) status = ReadSpeculation(params, field, out);
  if (status.ok()) status = ReadLogitBias(params, limits, field, out);
  if (!status.ok()) return status;
  return out;
}

absl::StatusOr<engine::StoppingOptions> FromProto(
    const v1::StoppingOptions& options, const RequestLimits& limits,
    absl::string_view field) {
  engine::StoppingOptions out;
  absl::Status status = ReadBudget(options, limits, field, out);
  if (status.ok()) status = ReadStops(options, limits, field, out);
  if (status.ok()) status = ReadTimeLimit(options, limits, field, out);
  if (!status.ok()) return status;
  out.min_tokens = options.min_tokens();
  if (out.max_tokens && out.min_tokens > *out.max_tokens) {
    return errors::InvalidField(
        Under(field, "min_tokens"),
        absl::StrCat(field, ".min_tokens=", out.min_tokens,
                     " exceeds max_tokens=", *out.max_tokens));
  }
  out.ignore_end_of_turn = options.ignore_end_of_turn();
  if (options.has_repetition_guard()) {
    const uint32_t guard = options.repetition_guard();
    if (guard != 0 && (guard < kMinGuard || guard > kMaxWindow)) {
      return errors::InvalidField(Under(field, "repetition_guard"),
                                  absl::StrCat(field, ".repetition_guard=",
                                               guard, " is neither 0 nor from ",
                                               kMinGuard, " to ", kMaxWindow));
    }
    out.repetition_guard = static_cast<int>(guard);
  }
  return out;
}

absl::StatusOr<engine::ResponseOptions> FromProto(
    const v1::ResponseOptions& options, const RequestLimits& limits,
    absl::string_view field) {
  engine::ResponseOptions out;
  if (options.has_logprobs()) {
    absl::Status status = Check(
        options.logprobs(), {0, static_cast<double>(limits.max_top_logprobs)},
        Under(field, "logprobs"));
    if (!status.ok()) return status;
    out.logprobs = static_cast<int>(options.logprobs());
  }
  if (options.has_text()) out.text = options.text();
  if (options.has_token_ids()) out.token_ids = options.token_ids();
  if (options.has_cache_update_interval_tokens()) {
    absl::Status status =
        Check(options.cache_update_interval_tokens(), {1, INT32_MAX},
              Under(field, "cache_update_interval_tokens"));
    if (!status.ok()) return status;
    out.cache_update_interval_tokens =
        static_cast<int>(options.cache_update_interval_tokens());
  }
  return out;
}

v1::EffectiveOptions ToProto(const engine::GenerationOptions& options,
                             absl::string_view policy,
                             const std::string& model) {
  v1::EffectiveOptions out;
  out.set_model(model);
  *out.mutable_cache_policy() = PolicyFromText(policy);
  *out.mutable_sampling() = ToProto(options.sampling);
  *out.mutable_stopping() = ToProto(options.stopping);
  *out.mutable_response() = ToProto(options.response);
  return out;
}

}  // namespace millrace::rpc
