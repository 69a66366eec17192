#include "services/text/chat_format.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/errors/errors.h"
#include "services/text/jinja/interpreter.h"
#include "services/text/jinja/parser.h"
#include "services/text/marked_text.h"

namespace millrace::text {
namespace {

using errors::Reason;
using jinja::Value;

absl::Status NotIncremental(absl::string_view why) {
  return errors::MakeError(absl::StatusCode::kFailedPrecondition,
                           Reason::kChatTemplateNotIncremental,
                           absl::StrCat("chat template: ", why));
}

absl::string_view RoleName(Role role) {
  constexpr absl::string_view kNames[] = {"system", "user", "assistant"};
  return kNames[static_cast<int>(role)];
}

MarkedText Template(absl::string_view text) {
  return MarkedText::Of(text, MarkedText::kTemplate);
}

jinja::Dict Variables(absl::Span<const ChatMessage> messages,
                      bool add_assistant_header,
                      const jinja::Dict& special_tokens) {
  jinja::List list;
  for (const ChatMessage& message : messages) {
    list.push_back(Value::Of(jinja::Dict{
        {"role", Value::OfTemplate(RoleName(message.role))},
        {"content",
         Value::Of(MarkedText::Of(message.content, MarkedText::kContent))},
    }));
  }
  jinja::Dict variables = special_tokens;
  variables.emplace_back("messages", Value::Of(std::move(list)));
  variables.emplace_back("add_generation_prompt",
                         Value::Of(add_assistant_header));
  return variables;
}

// Grows with what is rendered, and with nothing else.
jinja::Limits LimitsFor(absl::Span<const ChatMessage> messages) {
  int64_t bytes = 0;
  for (const ChatMessage& message : messages) bytes += message.content.size();
  const auto count = static_cast<int64_t>(messages.size());
  jinja::Limits limits;
  limits.steps += 2000 * count;
  limits.bytes += 32 * bytes + 16384 * count;
  return limits;
}

// What the template writes around contents of one role.
struct Frame {
  std::string header;
  std::string footer;  // through the end-of-turn token
};

class TemplateFormat final : public ChatFormat {
 public:
  explicit TemplateFormat(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}

  absl::Status Load(absl::string_view source);

  std::vector<int32_t> SystemBlock(
      std::optional<absl::string_view> prompt) const override;
  std::vector<int32_t> Message(Role role,
                               absl::string_view content) const override {
    return EncodeMarked(*tokenizer_, Framed(FrameOf(role), content));
  }
  const std::vector<int32_t>& AssistantHeader() const override {
    return assistant_header_;
  }
  const std::vector<int32_t>& EndMessage() const override {
    return end_message_;
  }
  const std::vector<int32_t>& ClosingGlue() const override { return glue_ids_; }
  absl::StatusOr<RenderedChat> Render(absl::Span<const ChatMessage> messages,
                                      bool add_assistant_header) const override;

 private:
  // A piece of what the template wrote: its own text, or a content.
  struct Piece {
    bool is_content = false;
    std::string text;
  };
  using Pieces = std::vector<Piece>;

  absl::StatusOr<MarkedText> RenderMarked(
      absl::Span<const ChatMessage> messages, bool add_assistant_header) const;
  // Renders a conversation of these roles, with contents of our own. Fails
  // unless each content stands there once, in order, between template text.
  absl::StatusOr<Pieces> Probe(absl::Span<const Role> roles) const;
  absl::Status LearnFrames();
  absl::Status LearnSystem();
  absl::Status LearnAssistantHeader();
  absl::Status LearnEnds();
  absl::Status Verify() const;
  absl::Status VerifyOne(absl::Span<const Role> roles,
                         absl::string_view content) const;

  const Frame& FrameOf(Role role) const {
    return frames_[static_cast<int>(role)];
  }
  Frame& FrameOf(Role role) { return frames_[static_cast<int>(role)]; }
  MarkedText Framed(const Frame& frame, absl::string_view content) const;
  // The ids of what a conversation starts with.
  std::vector<int32_t> FromStart(const MarkedText& text) const;

  const Tokenizer* const tokenizer_;
  jinja::Dict special_tokens_;  // by the names that templates use
  jinja::Block block_;
  Frame frames_[3];     // by role
  bool trims_ = false;  // contents lose the white space around them
  std::string default_system_;
  Frame system_block_;  // footer: with its glue
  std::string glue_;
  std::vector<int32_t> assistant_header_, end_message_, glue_ids_;
};

MarkedText TemplateFormat::Framed(const Frame& frame,
                                  absl::string_view content) const {
  constexpr absl::string_view kWhiteSpace = " \t\n\r\v\f\x1c\x1d\x1e\x1f";
  if (trims_) {
    const size_t begin = content.find_first_not_of(kWhiteSpace);
    if (begin == absl::string_view::npos) {
      content = "";
    } else {
      const size_t end = content.find_last_not_of(kWhiteSpace) + 1;
      content = content.substr(begin, end - begin);
    }
  }
  MarkedText text = Template(frame.header);
  text.Append(MarkedText::Of(content, MarkedText::kContent));
  text.Append(Template(frame.footer));
  return text;
}

std::vector<int32_t> TemplateFormat::SystemBlock(
    std::optional<absl::string_view> prompt) const {
  return FromStart(prompt.has_value() ? Framed(system_block_, *prompt)
                                      : Template(default_system_));
}

std::vector<int32_t> TemplateFormat::FromStart(const MarkedText& text) const {
  std::vector<int32_t> ids = EncodeMarked(*tokenizer_, text);
  if (const auto sink = tokenizer_->sink_id()) ids.insert(ids.begin(), *sink);
  return ids;
}

absl::StatusOr<MarkedText> TemplateFormat::RenderMarked(
    absl::Span<const ChatMessage> messages, bool add_assistant_header) const {
  return jinja::Render(
      block_, Variables(messages, add_assistant_header, special_tokens_),
      LimitsFor(messages));
}

absl::StatusOr<RenderedChat> TemplateFormat::Render(
    absl::Span<const ChatMessage> messages, bool add_assistant_header) const {
  auto text = RenderMarked(messages, add_assistant_header);
  if (!text.ok()) {
    return errors::InvalidField("messages", text.status().message());
  }
  return RenderedChat{text->bytes, FromStart(*text)};
}

// ---- Learning the frames ----

std::string ProbeContent(size_t i) { return absl::StrCat("Q", i, "uiz"); }

std::vector<ChatMessage> ProbeMessages(absl::Span<const Role> roles) {
  std::vector<ChatMessage> messages;
  for (Role role : roles) {
    messages.push_back({role, ProbeContent(messages.size())});
  }
  return messages;
}

absl::StatusOr<TemplateFormat::Pieces> TemplateFormat::Probe(
    absl::Span<const Role> roles) const {
  auto text = RenderMarked(ProbeMessages(roles), false);
  if (!text.ok()) return NotIncremental(text.status().message());
  Pieces pieces = {{}};
  for (size_t begin = 0; begin < text->bytes.size();) {
    const char mark = text->marks[begin];
    const size_t end = std::min(text->marks.find_first_not_of(mark, begin),
                                text->bytes.size());
    const bool is_content = mark == MarkedText::kContent;
    if (is_content == pieces.back().is_content) {
      pieces.back().text += text->bytes.substr(begin, end - begin);
    } else {
      pieces.push_back({is_content, text->bytes.substr(begin, end - begin)});
    }
    begin = end;
  }
  if (pieces.back().is_content) pieces.push_back({});
  bool right = pieces.size() == 2 * roles.size() + 1;
  for (size_t i = 0; right && i < roles.size(); ++i) {
    right = pieces[2 * i + 1].text == ProbeContent(i);
  }
  if (!right) {
    return NotIncremental(
        "it does not write every message once, as it stands and in order");
  }
  return pieces;
}

// The text after `prefix`; an error if the template does not go on from there.
absl::StatusOr<std::string> After(absl::string_view prefix,
                                  const std::string& text) {
  if (!absl::StartsWith(text, prefix)) {
    return NotIncremental(
        "a message is written differently once another follows");
  }
  return text.substr(prefix.size());
}

// Footers hold their glue until LearnEnds.
absl::Status TemplateFormat::LearnFrames() {
  const auto u = Probe({Role::kUser});
  if (!u.ok()) return u.status();
  const auto ua = Probe({Role::kUser, Role::kAssistant});
  if (!ua.ok()) return ua.status();
  const auto uau = Probe({Role::kUser, Role::kAssistant, Role::kUser});
  if (!uau.ok()) return uau.status();
  Frame& user = FrameOf(Role::kUser);
  Frame& assistant = FrameOf(Role::kAssistant);
  user.footer = (*u)[2].text;
  const auto assistant_header = After(user.footer, (*ua)[2].text);
  if (!assistant_header.ok()) return assistant_header.status();
  assistant = {*assistant_header, (*ua)[4].text};
  const auto user_header = After(assistant.footer, (*uau)[4].text);
  if (!user_header.ok()) return user_header.status();
  user.header = *user_header;
  if ((*uau)[6].text != user.footer ||
      !absl::EndsWith((*u)[0].text, user.header)) {
    return NotIncremental("the first message is written differently");
  }
  default_system_ =
      (*u)[0].text.substr(0, (*u)[0].text.size() - user.header.size());
  return LearnSystem();
}

absl::Status TemplateFormat::LearnSystem() {
  const auto su = Probe({Role::kSystem, Role::kUser});
  if (!su.ok()) return su.status();
  const std::string& user_header = FrameOf(Role::kUser).header;
  const std::string& between = (*su)[2].text;
  if (!absl::EndsWith(between, user_header) ||
      (*su)[4].text != FrameOf(Role::kUser).footer) {
    return NotIncremental("a system prompt is written into another message");
  }
  system_block_ = {(*su)[0].text,
                   between.substr(0, between.size() - user_header.size())};
  // A later one is written as the template does, if it does.
  const auto uas = Probe({Role::kUser, Role::kAssistant, Role::kSystem});
  const std::string& before = FrameOf(Role::kAssistant).footer;
  if (uas.ok() && absl::StartsWith((*uas)[4].text, before)) {
    FrameOf(Role::kSystem) = {(*uas)[4].text.substr(before.size()),
                              (*uas)[6].text};
    return absl::OkStatus();
  }
  Frame& later = FrameOf(Role::kSystem);
  later = system_block_;
  const auto bos = jinja::Find(special_tokens_, "bos_token");
  if (bos != nullptr && absl::StartsWith(later.header, bos->AsText()->bytes)) {
    later.header.erase(0, bos->AsText()->bytes.size());
  }
  return absl::OkStatus();
}

absl::Status TemplateFormat::LearnAssistantHeader() {
  const auto messages = ProbeMessages({Role::kUser});
  const auto without = RenderMarked(messages, false);
  const auto with = RenderMarked(messages, true);
  if (!without.ok() || !with.ok()) {
    return NotIncremental(with.status().message());
  }
  const auto header = After(without->bytes, with->bytes);
  if (!header.ok()) return header.status();
  // White space that is missing is for the model to write (Mistral).
  const std::string& in_history = FrameOf(Role::kAssistant).header;
  if (!absl::StartsWith(in_history, *header) ||
      in_history.find_first_not_of(' ', header->size()) != std::string::npos) {
    return NotIncremental(
        "a reply begins differently when it is written and when it is read");
  }
  assistant_header_ = EncodeMarked(*tokenizer_, Template(*header));
  return absl::OkStatus();
}

// Where the last end-of-turn token of the footer ends; 0 if there is none.
size_t EndOfTurnIn(const Tokenizer& tokenizer, const std::string& footer) {
  size_t end = 0;
  for (const int32_t id : tokenizer.end_of_turn_ids()) {
    const std::string spelling(tokenizer.Spelling(id));
    const size_t at = spelling.empty() ? footer.npos : footer.rfind(spelling);
    if (at != footer.npos) end = std::max(end, at + spelling.size());
  }
  return end;
}

// Cuts the glue from footers: what stands after their end-of-turn token.
absl::Status TemplateFormat::LearnEnds() {
  Frame& assistant = FrameOf(Role::kAssistant);
  const size_t end = EndOfTurnIn(*tokenizer_, assistant.footer);
  if (end == 0) return NotIncremental("it does not end a reply with a token");
  glue_ = assistant.footer.substr(end);
  assistant.footer.resize(end);
  for (Role role : {Role::kUser, Role::kSystem}) {
    std::string& footer = FrameOf(role).footer;
    if (!absl::EndsWith(footer, glue_)) {
      return NotIncremental("messages of different roles end differently");
    }
    footer.resize(footer.size() - glue_.size());
  }
  end_message_ = EncodeMarked(*tokenizer_, Template(assistant.footer));
  glue_ids_ = EncodeMarked(*tokenizer_, Template(glue_));
  return absl::OkStatus();
}

// ---- Checking that the pieces make the whole ----

absl::Status TemplateFormat::VerifyOne(absl::Span<const Role> roles,
                                       absl::string_view content) const {
  std::vector<ChatMessage> messages;
  for (Role role : roles) messages.push_back({role, std::string(content)});
  const auto whole = Render(messages, false);
  if (!whole.ok()) return NotIncremental(whole.status().message());
  const bool has_system = roles[0] == Role::kSystem;
  std::vector<int32_t> ids = SystemBlock(
      has_system ? std::optional<absl::string_view>(content) : std::nullopt);
  for (size_t i = has_system ? 1 : 0; i < roles.size(); ++i) {
    for (int32_t id : Message(roles[i], content)) ids.push_back(id);
    ids.insert(ids.end(), glue_ids_.begin(), glue_ids_.end());
  }
  if (ids == whole->ids) return absl::OkStatus();
  return NotIncremental("messages one by one are not the whole conversation");
}

absl::Status TemplateFormat::Verify() const {
  constexpr Role kS = Role::kSystem, kU = Role::kUser, kA = Role::kAssistant;
  const std::vector<std::vector<Role>> conversations = {
      {kU}, {kU, kA}, {kU, kA, kU, kA, kU}, {kS, kU}, {kS, kU, kA, kU, kA},
  };
  for (const auto& roles : conversations) {
    for (absl::string_view content :
         {"x", " two words\n", "", "<|im_end|> {{ x }}", "\u00e9 1'll\n\n"}) {
      const absl::Status status = VerifyOne(roles, content);
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

absl::Status TemplateFormat::Load(absl::string_view source) {
  auto block = jinja::Parse(source);
  if (!block.ok()) return NotIncremental(block.status().message());
  block_ = *std::move(block);
  const std::optional<int32_t> bos = tokenizer_->bos_id();
  const auto& ends = tokenizer_->end_of_turn_ids();
  special_tokens_ = {
      {"bos_token",
       Value::OfTemplate(bos.has_value() ? tokenizer_->Spelling(*bos)
                                         : absl::string_view())},
      {"eos_token",
       Value::OfTemplate(ends.empty() ? absl::string_view()
                                      : tokenizer_->Spelling(ends[0]))},
  };
  const auto padded =
      RenderMarked({{Role::kUser, " x "}}, /*add_assistant_header=*/false);
  trims_ = padded.ok() && !absl::StrContains(padded->bytes, " x ");
  for (const auto learn :
       {&TemplateFormat::LearnFrames, &TemplateFormat::LearnAssistantHeader,
        &TemplateFormat::LearnEnds}) {
    const absl::Status status = (this->*learn)();
    if (!status.ok()) return status;
  }
  return Verify();
}

}  // namespace

absl::StatusOr<std::unique_ptr<const ChatFormat>> ChatFormat::Create(
    absl::string_view chat_template, const Tokenizer* tokenizer) {
  if (chat_template.empty()) {
    return errors::MakeError(absl::StatusCode::kFailedPrecondition,
                             Reason::kNoChatTemplate,
                             "the model has no chat template; use PLAIN");
  }
  auto format = std::make_unique<TemplateFormat>(tokenizer);
  const absl::Status status = format->Load(chat_template);
  if (!status.ok()) return status;
  return std::unique_ptr<const ChatFormat>(std::move(format));
}

}  // namespace millrace::text
