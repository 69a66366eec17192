#include "services/rpc/request_conversion.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "services/errors/errors.h"
#include "services/rpc/options_conversion.h"
#include "services/rpc/policy_conversion.h"
#include "services/rpc/time_conversion.h"

namespace millrace::rpc {
namespace {

using errors::InvalidField;
using errors::Reason;

constexpr size_t kMaxTagBytes = 128;
constexpr int kMaxRequiredFeatures = 64;
constexpr uint32_t kMaxRollbackTokens = 8192;

absl::Status CheckToken(uint32_t id, const RequestLimits& limits,
                        absl::string_view field, int index) {
  const uint32_t size = limits.tokenizer->vocabulary_size();
  const auto path = [&] { return absl::StrCat(field, "[", index, "]"); };
  if (id >= size) {
    return InvalidField(path(), absl::StrCat(path(), "=", id,
                                             " is not below the vocabulary "
                                             "size ",
                                             size));
  }
  if (!limits.allow_special_tokens &&
      limits.tokenizer->IsSpecial(static_cast<int32_t>(id))) {
    return InvalidField(
        path(), absl::StrCat(path(), "=", id,
                             " is a special token, which this server does not "
                             "take from clients"));
  }
  return absl::OkStatus();
}

absl::StatusOr<session::Input> FromTokenIds(const v1::TokenIds& tokens,
                                            const RequestLimits& limits,
                                            absl::string_view field) {
  const std::string path = absl::StrCat(field, ".token_ids.ids");
  std::vector<int32_t> ids;
  ids.reserve(tokens.ids_size());
  for (int i = 0; i < tokens.ids_size(); ++i) {
    absl::Status status = CheckToken(tokens.ids(i), limits, path, i);
    if (!status.ok()) return status;
    ids.push_back(static_cast<int32_t>(tokens.ids(i)));
  }
  return session::Input(std::move(ids));
}

absl::StatusOr<session::Input> FromMessage(const v1::ChatMessage& message,
                                           absl::string_view field) {
  session::MessageInput out;
  switch (message.role()) {
    case v1::ROLE_SYSTEM:
      out.role = text::Role::kSystem;
      break;
    case v1::ROLE_USER:
      out.role = text::Role::kUser;
      break;
    case v1::ROLE_ASSISTANT:
      out.role = text::Role::kAssistant;
      break;
    default:
      return InvalidField(
          absl::StrCat(field, ".message.role"),
          absl::StrCat(field, ".message.role=", message.role(),
                       " is none of SYSTEM, USER and ASSISTANT"));
  }
  if (!message.has_text()) {
    return InvalidField(
        absl::StrCat(field, ".message"),
        absl::StrCat(field, ".message has no content this server knows"));
  }
  out.content = message.text();
  return session::Input(std::move(out));
}

int64_t Bytes(const session::Input& input) {
  if (const auto* text = std::get_if<session::TextInput>(&input)) {
    return static_cast<int64_t>(text->text.size());
  }
  if (const auto* message = std::get_if<session::MessageInput>(&input)) {
    return static_cast<int64_t>(message->content.size());
  }
  return static_cast<int64_t>(sizeof(int32_t) *
                              std::get<std::vector<int32_t>>(input).size());
}

bool IsMessage(const session::Input& input) {
  return std::holds_alternative<session::MessageInput>(input);
}

// A duration from 0 to `limit`, which is also the default.
absl::StatusOr<absl::Duration> UpTo(absl::Duration limit, bool present,
                                    const google::protobuf::Duration& value,
                                    absl::string_view field,
                                    bool zero_allowed) {
  if (!present) return limit;
  const auto duration = FromProto(value, field);
  if (!duration.ok()) return duration;
  const bool high_enough = zero_allowed ? *duration >= absl::ZeroDuration()
                                        : *duration > absl::ZeroDuration();
  if (high_enough && *duration <= limit) return *duration;
  return InvalidField(
      field, absl::StrCat(field, "=", absl::FormatDuration(*duration), " is ",
                          high_enough ? "more" : "not", " than ",
                          high_enough ? absl::FormatDuration(limit)
                                      : (zero_allowed ? "0 or more" : "0")));
}

absl::Status CheckFeatures(const v1::OpenSession& open,
                           const RequestLimits& limits) {
  if (open.required_features_size() > kMaxRequiredFeatures) {
    return InvalidField(
        "required_features",
        absl::StrCat("required_features has ", open.required_features_size(),
                     " entries; at most ", kMaxRequiredFeatures,
                     " are allowed"));
  }
  for (const std::string& feature : open.required_features()) {
    if (absl::c_linear_search(limits.features, feature)) continue;
    errors::Details details;
    details.field = "required_features";
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     Reason::kFeatureMissing,
                     absl::StrCat("this server has no feature '",
                                  feature.substr(0, 64), "'"),
                     details);
  }
  return absl::OkStatus();
}

absl::Status ReadFormat(const v1::OpenSession& open,
                        session::OpenOptions& out) {
  switch (open.format()) {
    case v1::FORMAT_UNSPECIFIED:
      return absl::OkStatus();
    case v1::FORMAT_CHAT:
      out.format = session::Format::kChat;
      return absl::OkStatus();
    case v1::FORMAT_PLAIN:
      out.format = session::Format::kPlain;
      return absl::OkStatus();
    default:
      return InvalidField("format", absl::StrCat("format=", open.format(),
                                                 " is neither CHAT nor PLAIN"));
  }
}

absl::Status ReadTimeouts(const v1::OpenSession& open,
                          const RequestLimits& limits,
                          session::OpenOptions& out) {
  const auto idle =
      UpTo(limits.session_idle_timeout, open.has_idle_timeout(),
           open.idle_timeout(), "idle_timeout", /*zero_allowed=*/false);
  if (!idle.ok()) return idle.status();
  const auto detach =
      UpTo(limits.detach_timeout, open.has_detach_timeout(),
           open.detach_timeout(), "detach_timeout", /*zero_allowed=*/true);
  if (!detach.ok()) return detach.status();
  out.idle_timeout = *idle;
  out.detach_timeout = *detach;
  return absl::OkStatus();
}

absl::Status ReadSmallFields(const v1::OpenSession& open,
                             session::OpenOptions& out) {
  if (open.client_tag().size() > kMaxTagBytes) {
    return InvalidField(
        "client_tag",
        absl::StrCat("client_tag has ", open.client_tag().size(),
                     " bytes; at most ", kMaxTagBytes, " are allowed"));
  }
  if (open.has_rollback_tokens() &&
      open.rollback_tokens() > kMaxRollbackTokens) {
    return InvalidField("rollback_tokens",
                        absl::StrCat("rollback_tokens=", open.rollback_tokens(),
                                     " is not from 0 to ", kMaxRollbackTokens));
  }
  out.client_tag = open.client_tag();
  if (open.has_rollback_tokens()) out.rollback_tokens = open.rollback_tokens();
  if (open.has_system_prompt()) out.system_prompt = open.system_prompt();
  return absl::OkStatus();
}

absl::StatusOr<session::StartTurn> FromStartTurn(const v1::StartTurn& turn,
                                                 const RequestLimits& limits,
                                                 absl::string_view prefix) {
  session::StartTurn out;
  if (turn.has_sampling()) {
    auto sampling =
        FromProto(turn.sampling(), limits, absl::StrCat(prefix, "sampling"));
    if (!sampling.ok()) return sampling.status();
    out.sampling = *std::move(sampling);
  }
  if (turn.has_stopping()) {
    auto stopping =
        FromProto(turn.stopping(), limits, absl::StrCat(prefix, "stopping"));
    if (!stopping.ok()) return stopping.status();
    out.stopping = *std::move(stopping);
  }
  if (turn.has_response()) {
    auto response =
        FromProto(turn.response(), limits, absl::StrCat(prefix, "response"));
    if (!response.ok()) return response.status();
    out.response = *response;
  }
  out.new_message = turn.new_message();
  return out;
}

absl::Status CheckAppend(const session::AppendInput& append,
                         const RequestLimits& limits) {
  if (append.inputs.empty()) {
    return InvalidField("inputs", "an append needs at least one input");
  }
  int64_t bytes = 0;
  for (const session::Input& input : append.inputs) bytes += Bytes(input);
  if (bytes > limits.max_pending_input_bytes) {
    return InvalidField("inputs",
                        absl::StrCat("inputs of ", bytes, " bytes exceed ",
                                     limits.max_pending_input_bytes,
                                     ", the most that may wait; send them in "
                                     "smaller messages, with more_follows"));
  }
  const bool any_message = absl::c_any_of(append.inputs, IsMessage);
  if (any_message && !absl::c_all_of(append.inputs, IsMessage) &&
      !append.placement) {
    return InvalidField("placement",
                        "chat messages and other inputs in one append need a "
                        "placement");
  }
  if (append.more_follows && append.then_generate) {
    return InvalidField("then_generate",
                        "then_generate goes with the last piece, whose "
                        "more_follows is unset");
  }
  return absl::OkStatus();
}

absl::StatusOr<session::AppendInput> FromAppend(const v1::AppendInput& append,
                                                const RequestLimits& limits) {
  session::AppendInput out;
  auto inputs = FromProto(append.inputs(), limits);
  if (!inputs.ok()) return inputs.status();
  out.inputs = *std::move(inputs);
  if (append.has_next_step()) out.placement = session::NextStep{};
  if (append.has_after_turn()) out.placement = session::AfterTurn{};
  if (append.has_at_text_position()) {
    out.placement = session::AtTextPosition{append.at_text_position()};
  }
  if (append.has_only_in_turn_started_by()) {
    out.only_in_turn_started_by = append.only_in_turn_started_by();
  }
  out.more_follows = append.more_follows();
  if (append.has_then_generate()) {
    auto turn = FromStartTurn(append.then_generate(), limits, "then_generate.");
    if (!turn.ok()) return turn.status();
    out.then_generate = *std::move(turn);
  }
  absl::Status status = CheckAppend(out, limits);
  if (!status.ok()) return status;
  return out;
}

session::Interrupt FromInterrupt(const v1::Interrupt& interrupt) {
  session::Interrupt out;
  if (interrupt.has_started_by()) out.started_by = interrupt.started_by();
  if (interrupt.has_keep_until_text_position()) {
    out.keep_until_text_position = interrupt.keep_until_text_position();
  }
  out.drop_pending_input = interrupt.drop_pending_input();
  return out;
}

// The same fields, with the same meaning, as of a turn to come.
absl::StatusOr<session::UpdateOptions> FromUpdate(
    const v1::UpdateOptions& update, const RequestLimits& limits) {
  v1::StartTurn turn;
  if (update.has_sampling()) *turn.mutable_sampling() = update.sampling();
  if (update.has_stopping()) *turn.mutable_stopping() = update.stopping();
  if (update.has_response()) *turn.mutable_response() = update.response();
  auto options = FromStartTurn(turn, limits, "");
  if (!options.ok()) return options.status();
  return session::UpdateOptions{std::move(options->sampling),
                                std::move(options->stopping),
                                options->response};
}

using Body = decltype(session::ClientMessage::body);

template <typename T>
Body OrRefused(absl::StatusOr<T> converted) {
  if (!converted.ok()) return session::Refused{converted.status()};
  return *std::move(converted);
}

Body FromArm(const v1::ConnectRequest& request, const RequestLimits& limits) {
  switch (request.message_case()) {
    case v1::ConnectRequest::kAppend: {
      auto append = FromAppend(request.append(), limits);
      if (append.ok()) return *std::move(append);
      // A piece of a text: what follows it is refused too.
      return session::Refused{append.status(), /*append=*/true,
                              request.append().more_follows()};
    }
    case v1::ConnectRequest::kGenerate:
      return OrRefused(FromStartTurn(request.generate(), limits, ""));
    case v1::ConnectRequest::kInterrupt:
      return FromInterrupt(request.interrupt());
    case v1::ConnectRequest::kUpdate:
      return OrRefused(FromUpdate(request.update(), limits));
    case v1::ConnectRequest::kReset:
      return session::ResetSession{};
    case v1::ConnectRequest::kClose:
      return session::CloseSession{};
    default:
      return session::Refused{
          MakeError(absl::StatusCode::kInvalidArgument, Reason::kUnknownMessage,
                    "the message has no arm that this server knows")};
  }
}

}  // namespace

absl::StatusOr<session::Input> FromProto(const v1::Input& input,
                                         const RequestLimits& limits,
                                         absl::string_view field) {
  switch (input.kind_case()) {
    case v1::Input::kText:
      return session::Input(session::TextInput{input.text(), false});
    case v1::Input::kTextWithSpecialTokens:
      if (!limits.allow_special_tokens) {
        return InvalidField(
            absl::StrCat(field, ".text_with_special_tokens"),
            "this server does not take special tokens from clients; use text");
      }
      return session::Input(
          session::TextInput{input.text_with_special_tokens(), true});
    case v1::Input::kTokenIds:
      return FromTokenIds(input.token_ids(), limits, field);
    case v1::Input::kMessage:
      return FromMessage(input.message(), field);
    default:
      return InvalidField(field, absl::StrCat(field,
                                              " has no kind that this server "
                                              "knows"));
  }
}

absl::StatusOr<std::vector<session::Input>> FromProto(
    const google::protobuf::RepeatedPtrField<v1::Input>& inputs,
    const RequestLimits& limits) {
  std::vector<session::Input> out;
  out.reserve(inputs.size());
  for (int i = 0; i < inputs.size(); ++i) {
    auto input = FromProto(inputs[i], limits, absl::StrCat("inputs[", i, "]"));
    if (!input.ok()) return input.status();
    out.push_back(*std::move(input));
  }
  return out;
}

absl::Status CheckModelName(const std::string& name,
                            const RequestLimits& limits) {
  if (name == limits.model_name) return absl::OkStatus();
  return InvalidField(
      "model", absl::StrCat("this server's model is '", limits.model_name,
                            "', not '", name.substr(0, 128), "'"));
}

absl::StatusOr<session::OpenOptions> FromProto(const v1::OpenSession& open,
                                               const RequestLimits& limits) {
  session::OpenOptions out;
  absl::Status status = CheckFeatures(open, limits);
  if (status.ok() && open.has_model()) {
    status = CheckModelName(open.model(), limits);
  }
  if (status.ok()) status = ReadFormat(open, out);
  if (status.ok()) status = ReadTimeouts(open, limits, out);
  if (status.ok()) status = ReadSmallFields(open, out);
  if (!status.ok()) return status;
  if (open.has_cache_policy()) {
    auto policy = FromProto(open.cache_policy(), "cache_policy");
    if (!policy.ok()) return policy.status();
    out.policy = *std::move(policy);
  }
  auto generation = GenerationFrom(open, limits);
  if (!generation.ok()) return generation.status();
  out.generation = *std::move(generation);
  return out;
}

session::ClientMessage FromProto(const v1::ConnectRequest& request,
                                 const RequestLimits& limits) {
  session::ClientMessage out{.client_seq = std::nullopt,
                             .body = FromArm(request, limits)};
  if (request.has_client_seq()) out.client_seq = request.client_seq();
  return out;
}

}  // namespace millrace::rpc
