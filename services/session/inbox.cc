#include "services/session/inbox.h"

#include <utility>
#include <variant>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "services/errors/errors.h"

namespace millrace::session {
namespace {

using errors::InvalidField;
using errors::MakeError;
using errors::Reason;
using text::SpecialTokens;

int64_t BytesOf(const Input& input) {
  if (const auto* text = std::get_if<TextInput>(&input)) {
    return static_cast<int64_t>(text->text.size());
  }
  if (const auto* message = std::get_if<MessageInput>(&input)) {
    return static_cast<int64_t>(message->content.size());
  }
  return static_cast<int64_t>(4 * std::get<std::vector<int32_t>>(input).size());
}

int64_t BytesOf(const AppendInput& append) {
  int64_t bytes = 0;
  for (const Input& input : append.inputs) bytes += BytesOf(input);
  return bytes;
}

bool IsMessage(const Input& input) {
  return std::holds_alternative<MessageInput>(input);
}

bool IsText(const Input& input) {
  return std::holds_alternative<TextInput>(input);
}

Placement DefaultPlacement(const AppendInput& append) {
  if (append.placement) return *append.placement;
  if (IsMessage(append.inputs.front())) return AfterTurn{};
  return NextStep{};
}

absl::Status Gap(uint64_t client_seq, uint64_t expected) {
  return MakeError(absl::StatusCode::kFailedPrecondition, Reason::kSequenceGap,
                   absl::StrCat("client_seq=", client_seq,
                                " leaves a gap; expected ", expected),
                   {.metadata = {{"expected_seq", absl::StrCat(expected)}}});
}

// The part that tokens go to: the last one, unless that is a message.
std::vector<int32_t>* TokensOf(PreparedInput* prepared) {
  if (prepared->parts.empty() || prepared->parts.back().is_message) {
    prepared->parts.emplace_back();
  }
  return &prepared->parts.back().ids;
}

void AddTokens(const std::vector<int32_t>& ids, PreparedInput* prepared) {
  std::vector<int32_t>* const tokens = TokensOf(prepared);
  tokens->insert(tokens->end(), ids.begin(), ids.end());
}

}  // namespace

Command Inbox::Prepare(ClientMessage message) {
  if (std::holds_alternative<HalfClose>(message.body)) {
    return {.client_seq = 0, .body = HalfClose{}};
  }
  const uint64_t seq = message.client_seq.value_or(next_seq_);
  if (seq > next_seq_) {
    return {.client_seq = seq, .body = OutOfOrder{Gap(seq, next_seq_)}};
  }
  if (seq < next_seq_) return {.client_seq = seq, .body = Repeated{}};
  ++next_seq_;
  if (auto* append = std::get_if<AppendInput>(&message.body)) {
    return PrepareAppend(seq, std::move(*append));
  }
  Command command{.client_seq = seq};
  std::visit(
      [&](auto& body) {
        using Body = std::decay_t<decltype(body)>;
        if constexpr (!std::is_same_v<Body, AppendInput>) {
          command.body = std::move(body);
        }
      },
      message.body);
  if (const auto* refused = std::get_if<Refused>(&command.body)) {
    if (refused->append) {
      text_.reset();
      more_follows_ = refused->more_follows;
    }
  }
  return command;
}

Command Inbox::PrepareAppend(uint64_t client_seq, AppendInput append) {
  const bool continues = std::exchange(more_follows_, append.more_follows);
  const int64_t bytes = BytesOf(append);
  absl::Status status = Check(append);
  if (status.ok() && !credit_->Take(bytes)) {
    status = MakeError(
        absl::StatusCode::kResourceExhausted, Reason::kInputQueueFull,
        absl::StrCat(credit_->pending(), " bytes of input wait, and ", bytes,
                     " more exceed ", credit_->limit(),
                     "; send it again when input_accepted shows that less "
                     "waits"));
  }
  if (!status.ok()) {
    text_.reset();
    return {.client_seq = client_seq,
            .body = Refused{.status = status,
                            .append = continues || append.more_follows,
                            .more_follows = append.more_follows}};
  }
  PreparedInput prepared{
      .parts = {},
      .placement = DefaultPlacement(append),
      .only_in_turn_started_by = append.only_in_turn_started_by,
      .continues = continues,
      .more_follows = append.more_follows,
      .then_generate = std::move(append.then_generate),
      .bytes = bytes};
  for (const Input& input : append.inputs) Add(input, &prepared);
  if (!append.more_follows) FinishText(&prepared);
  return {.client_seq = client_seq, .body = std::move(prepared)};
}

absl::Status Inbox::Check(const AppendInput& append) const {
  if (append.inputs.empty()) {
    return InvalidField("inputs", "an append needs at least one input");
  }
  const bool messages = absl::c_any_of(append.inputs, IsMessage);
  if (messages && chat_format_ == nullptr) {
    return InvalidField("inputs",
                        "the session's format is plain: it takes text and "
                        "token ids, no chat messages");
  }
  if (messages && !append.placement &&
      !absl::c_all_of(append.inputs, IsMessage)) {
    return InvalidField("placement",
                        "chat messages and other inputs in one append need a "
                        "placement");
  }
  if (append.more_follows && !IsText(append.inputs.back())) {
    return InvalidField("more_follows",
                        "more_follows is for text: the last input is none");
  }
  if (append.more_follows && append.then_generate) {
    return InvalidField("then_generate",
                        "then_generate goes with the last piece, whose "
                        "more_follows is unset");
  }
  const int64_t bytes = BytesOf(append);
  if (bytes <= credit_->limit()) return absl::OkStatus();
  return InvalidField(
      "inputs",
      absl::StrCat("inputs of ", bytes, " bytes exceed ", credit_->limit(),
                   ", the most that may wait; send them in smaller "
                   "messages, with more_follows"));
}

void Inbox::Add(const Input& input, PreparedInput* prepared) {
  if (const auto* text = std::get_if<TextInput>(&input)) {
    return AddText(*text, prepared);
  }
  FinishText(prepared);
  if (const auto* message = std::get_if<MessageInput>(&input)) {
    prepared->parts.push_back(
        {.is_message = true,
         .ids = chat_format_->Message(message->role, message->content)});
  } else {
    AddTokens(std::get<std::vector<int32_t>>(input), prepared);
  }
}

// Adjacent texts are one text, as far as both or neither may spell special
// tokens.
void Inbox::AddText(const TextInput& input, PreparedInput* prepared) {
  if (text_ && text_->parses_special_tokens != input.parse_special_tokens) {
    FinishText(prepared);
  }
  if (!text_) {
    text_ = {
        .encoder = text::StreamingEncoder(
            tokenizer_, input.parse_special_tokens ? SpecialTokens::kParsed
                                                   : SpecialTokens::kAsText),
        .parses_special_tokens = input.parse_special_tokens};
  }
  AddTokens(text_->encoder.Add(input.text), prepared);
}

void Inbox::FinishText(PreparedInput* prepared) {
  if (!text_) return;
  AddTokens(text_->encoder.Finish(), prepared);
  text_.reset();
}

}  // namespace millrace::session
