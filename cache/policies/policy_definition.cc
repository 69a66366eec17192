#include "cache/policies/policy_definition.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace millrace::cache {

const std::string* PolicyOptionReader::Find(absl::string_view name) const {
  for (const auto& [option, value] : config_->options) {
    if (option == name) return &value;
  }
  return nullptr;
}

absl::StatusOr<int64_t> PolicyOptionReader::Tokens(
    absl::string_view name, int64_t default_value) const {
  const std::string* value = Find(name);
  if (value == nullptr) return default_value;
  uint32_t tokens = 0;
  if (!absl::SimpleAtoi(*value, &tokens)) {
    return InvalidPolicy(name, absl::StrCat(name, "=", Excerpt(*value),
                                            ": not a number of tokens"));
  }
  return tokens;
}

absl::StatusOr<double> PolicyOptionReader::Number(absl::string_view name,
                                                  double default_value) const {
  const std::string* value = Find(name);
  if (value == nullptr) return default_value;
  double number = 0;
  if (!absl::SimpleAtod(*value, &number) || !std::isfinite(number)) {
    return InvalidPolicy(
        name, absl::StrCat(name, "=", Excerpt(*value), ": not a number"));
  }
  return number;
}

absl::StatusOr<bool> PolicyOptionReader::Bool(absl::string_view name,
                                              bool default_value) const {
  if (!Has(name)) return default_value;
  return Choice(name, "false", "true");
}

absl::StatusOr<bool> PolicyOptionReader::Choice(
    absl::string_view name, absl::string_view first,
    absl::string_view second) const {
  const std::string* value = Find(name);
  if (value == nullptr || *value == first) return false;
  if (*value == second) return true;
  return InvalidPolicy(name, absl::StrCat(name, "=", Excerpt(*value),
                                          ": must be ", first, " or ", second));
}

absl::StatusOr<Pins> ReadPins(const PolicyOptionReader& options,
                              const PolicyContext& context,
                              int64_t default_pin_tokens) {
  const auto pin = options.Bool("pin_system_prompt", true);
  if (!pin.ok()) return pin.status();
  const auto pin_tokens = options.Tokens("pin_tokens", default_pin_tokens);
  if (!pin_tokens.ok()) return pin_tokens.status();
  return Pins{
      .pin_system_prompt = *pin,
      .pin_tokens = *pin_tokens,
      .pinned = std::max(*pin_tokens, *pin ? context.pinned_tokens : 0)};
}

std::string PinsText(const Pins& pins) {
  return absl::StrCat(
      ",pin_system_prompt=", pins.pin_system_prompt ? "true" : "false",
      ",pin_tokens=", pins.pin_tokens);
}

std::string PinnedText(int64_t pinned) {
  return PinsText({.pin_system_prompt = false, .pin_tokens = pinned});
}

std::vector<RunRule> KeptAndNewest(int64_t kept, int64_t dropped) {
  const RunRule newest{.begin = kept + dropped};
  if (kept == 0) return {newest};
  return {RunRule{.end = kept, .shift = dropped}, newest};
}

std::vector<PolicyOptionInfo> WithPins(std::vector<PolicyOptionInfo> own,
                                       absl::string_view pins_with_sink_token) {
  own.push_back({.name = "pin_system_prompt",
                 .type = "bool",
                 .default_value = "true",
                 .range = "true, false",
                 .summary = "whether the system prompt is kept"});
  own.push_back({.name = "pin_tokens",
                 .type = "uint",
                 .default_value = "0",
                 .range = "0 to trained context - 2",
                 .summary = "more tokens to keep from the start",
                 .default_with_sink_token = std::string(pins_with_sink_token)});
  return own;
}

int64_t DefaultSinkTokens(const PolicyContext& context) {
  return context.has_sink_token ? 1 : 4;
}

PolicyOptionInfo SinkTokensInfo(std::string name, std::string range) {
  return {.name = std::move(name),
          .type = "uint",
          .default_value = "4",
          .range = std::move(range),
          .summary = "tokens kept from the start of the text",
          .default_with_sink_token = "1"};
}

std::string Excerpt(absl::string_view text) {
  constexpr size_t kLongest = 64;
  if (text.size() <= kLongest) return absl::Utf8SafeCEscape(text);
  size_t end = kLongest;
  // 10xxxxxx continues a UTF-8 character, and no character has four of them.
  for (int i = 0; i < 3 && (text[end] & 0xC0) == 0x80; ++i) --end;
  return absl::StrCat(absl::Utf8SafeCEscape(text.substr(0, end)), "...");
}

absl::Status InvalidPolicy(absl::string_view option,
                           absl::string_view message) {
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload("millrace/reason", absl::Cord("INVALID_CACHE_POLICY"));
  status.SetPayload("millrace/field", absl::Cord(Excerpt(option)));
  return status;
}

absl::Status CheckMemory(const CachePolicy& policy,
                         const PolicyContext& context,
                         absl::string_view option) {
  const int64_t twice =
      context.wide_prefix ? policy.traits().protected_prefix : 0;
  const int64_t held = policy.MaxResidentTokens(context.extra_tokens);
  if (held + twice <= context.max_resident_tokens) return absl::OkStatus();
  return InvalidPolicy(
      option,
      absl::StrCat(
          policy.ToString(), " holds up to ", held, " tokens, of which ",
          context.extra_tokens, " are chunk and rollback",
          twice > 0 ? absl::StrCat(" and ", twice, " count twice") : "",
          "; a session may hold ", context.max_resident_tokens));
}

}  // namespace millrace::cache
