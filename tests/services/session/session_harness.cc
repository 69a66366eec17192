#include "tests/services/session/session_harness.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cache/policies/registry.h"
#include "services/errors/errors.h"

namespace millrace::session {
namespace {

using text::SpecialTokens;

constexpr int64_t kTrainedContext = 8192;

void Add(const std::vector<int32_t>& ids, std::vector<int32_t>* out) {
  out->insert(out->end(), ids.begin(), ids.end());
}

std::vector<int32_t> Framed(absl::string_view role, absl::string_view content,
                            const text::Tokenizer& tokenizer) {
  std::vector<int32_t> ids = {kStart};
  Add(tokenizer.Encode(role, SpecialTokens::kAsText), &ids);
  Add(tokenizer.Encode(content, SpecialTokens::kAsText), &ids);
  ids.push_back(kEndOfTurn);
  return ids;
}

}  // namespace

ByteTokenizer::ByteTokenizer() {
  for (int byte = 0; byte < 256; ++byte) {
    bytes_.push_back(std::string(1, static_cast<char>(byte)));
  }
  bytes_.push_back("");
  bytes_.push_back("");
  bytes_.push_back("th");
}

std::vector<int32_t> ByteTokenizer::Encode(absl::string_view text,
                                           SpecialTokens special) const {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text.substr(i, 2) == "th") {
      ids.push_back(kTh);
      ++i;
    } else {
      ids.push_back(static_cast<uint8_t>(text[i]));
    }
  }
  return ids;
}

absl::string_view ByteTokenizer::TokenBytes(int32_t id) const {
  return bytes_[static_cast<size_t>(id)];
}

std::string ByteTokenizer::Decode(absl::Span<const int32_t> ids,
                                  SpecialTokens special) const {
  std::string text;
  for (const int32_t id : ids) absl::StrAppend(&text, TokenBytes(id));
  return text;
}

absl::string_view ByteTokenizer::Spelling(int32_t id) const {
  if (id == kStart) return "<s>";
  if (id == kEndOfTurn) return "</s>";
  return TokenBytes(id);
}

std::optional<int32_t> ByteTokenizer::FindSpecial(
    absl::string_view spelling) const {
  if (spelling == "<s>") return kStart;
  if (spelling == "</s>") return kEndOfTurn;
  return std::nullopt;
}

bool ByteTokenizer::IsSpecial(int32_t id) const {
  return id == kStart || id == kEndOfTurn;
}

size_t ByteTokenizer::LastSafeCut(absl::string_view text,
                                  SpecialTokens special) const {
  if (text.empty()) return 0;
  return text.back() == 't' ? text.size() - 1 : text.size();
}

std::vector<int32_t> LetterFormat::SystemBlock(
    std::optional<absl::string_view> prompt) const {
  if (!prompt) return {};
  std::vector<int32_t> ids = Framed("S:", *prompt, *tokenizer_);
  Add(glue_, &ids);
  return ids;
}

std::vector<int32_t> LetterFormat::Message(text::Role role,
                                           absl::string_view content) const {
  const absl::string_view name = role == text::Role::kSystem ? "S:"
                                 : role == text::Role::kUser ? "U:"
                                                             : "A:";
  return Framed(name, content, *tokenizer_);
}

absl::StatusOr<text::RenderedChat> LetterFormat::Render(
    absl::Span<const text::ChatMessage> messages,
    bool add_assistant_header) const {
  return absl::UnimplementedError("whole conversations are for Generate");
}

HandSequence::HandSequence(cache::CacheManager* cache,
                           std::shared_ptr<const cache::CachePolicy> policy,
                           int64_t rollback_tokens, int64_t chunk_tokens)
    : cache_(cache),
      options_{.policy = std::move(policy),
               .max_chunk_tokens = chunk_tokens,
               .rollback_tokens = rollback_tokens + 1},
      id_(*cache->Open(options_)) {}

bool HandSequence::Step(
    engine::SequenceClient* client,
    const std::function<int32_t(int64_t position)>& next_token) {
  if (paused_ || pending_tokens() == 0) return false;
  const int64_t first = computed_tokens();
  const int64_t count = std::min(pending_tokens(), options_.max_chunk_tokens);
  if (const auto view = cache_->Reserve(id_, count); !view.ok()) {
    ids_.resize(static_cast<size_t>(first));
    client->OnError(view.status());
    return true;
  }
  cache_->Commit(id_);
  std::vector<float> logits;
  if (wanted_ == engine::Logits::kLast && pending_tokens() == 0) {
    logits.assign(kVocabulary, 0);
    logits[static_cast<size_t>(next_token(first + count))] = 10;
  }
  client->OnRows(first, count, logits);
  return true;
}

void HandSequence::Fail(engine::SequenceClient* client) {
  ids_.resize(static_cast<size_t>(computed_tokens()));
  client->OnError(absl::InternalError("step 7: the device is gone"));
}

void HandSequence::Append(absl::Span<const int32_t> ids) {
  ids_.insert(ids_.end(), ids.begin(), ids.end());
}

void HandSequence::WantLogits(engine::Logits which) {
  wanted_ = which;
  if (which != engine::Logits::kLast || pending_tokens() > 0 || ids_.empty()) {
    return;
  }
  if (!cache_->Truncate(id_, computed_tokens() - 1).ok()) std::abort();
}

absl::Status HandSequence::Truncate(int64_t length) {
  if (length < EarliestCut() || length > this->length()) {
    return absl::OutOfRangeError("too deep a cut");
  }
  ids_.resize(static_cast<size_t>(length));
  if (length >= computed_tokens()) return absl::OkStatus();
  return cache_->Truncate(id_, length);
}

int64_t HandSequence::EarliestCut() const {
  const int64_t earliest = cache_->EarliestCut(id_);
  return earliest == 0 ? 0 : std::min(earliest + 1, length());
}

void HandSequence::Clear() {
  ids_.clear();
  cache_->Clear(id_);
}

int64_t HandSequence::reserved_bytes() const {
  const cache::KvSpec& spec = cache_->spec();
  return cache::MaxBlocks(options_, spec.dtype) * spec.BytesPerBlock();
}

engine::GenerationOptions ConversationOptions::Greedy() {
  engine::GenerationOptions options;
  options.sampling.temperature = 0;
  options.stopping.repetition_guard = 0;
  return options;
}

MessageInput User(std::string content) {
  return {.role = text::Role::kUser, .content = std::move(content)};
}

StartTurn Generate(std::optional<uint64_t> max_tokens) {
  engine::StoppingOptions stopping;
  stopping.max_tokens = max_tokens;
  stopping.repetition_guard = 0;
  StartTurn start;
  start.stopping = stopping;
  return start;
}

AppendInput Append(std::vector<Input> inputs,
                   std::optional<Placement> placement) {
  AppendInput append;
  append.inputs = std::move(inputs);
  append.placement = placement;
  return append;
}

AppendInput Ask(std::string content) {
  AppendInput append = Append({User(std::move(content))});
  append.then_generate = Generate();
  return append;
}

AppendInput Text(std::string text) {
  return Append({TextInput{.text = std::move(text)}});
}

Conversation::Conversation(const ConversationOptions& options)
    : next_token([](int64_t position) {
        return static_cast<int32_t>('a' + position % 26);
      }),
      format(&tokenizer),
      log(options.log),
      credit(options.max_pending_input_bytes),
      cache({.num_layers = 1, .num_kv_heads = 1, .head_dim = 2}, 4096) {
  const bool chat = options.format == Format::kChat;
  std::vector<int32_t> system;
  if (chat) {
    system = format.SystemBlock(options.system_prompt);
  } else if (options.system_prompt) {
    system = tokenizer.Encode(*options.system_prompt, SpecialTokens::kAsText);
  }
  cache::MadePolicy made = *cache::MakePolicy(
      *cache::ParsePolicy(options.policy),
      {.trained_context = kTrainedContext,
       .pinned_tokens = static_cast<int64_t>(system.size()),
       .max_resident_tokens = 1 << 20,
       .extra_tokens = options.chunk_tokens + options.rollback_tokens + 1});
  policy = made.policy;
  Session::Context context;
  context.tokenizer = &tokenizer;
  context.chat_format = chat ? &format : nullptr;
  context.log = &log;
  context.credit = &credit;
  context.now = [this] { return now; };
  context.on_event = [this](const EventBody& event) {
    events.push_back(event);
    if (on_event) on_event(event);
  };
  context.on_closed = [this](CloseReason reason) { closed = reason; };
  context.read_ahead_tokens = options.chunk_tokens;
  log.SetOnDrained([this] { session->OnDrained(); });
  inbox = std::make_unique<Inbox>(&tokenizer, context.chat_format, &credit);
  session = std::make_unique<Session>(
      context,
      EffectiveOptions{.format = options.format,
                       .policy = made.text,
                       .generation = options.generation,
                       .idle_timeout = absl::Minutes(30),
                       .detach_timeout = absl::Minutes(1),
                       .rollback_tokens = options.rollback_tokens},
      made, system);
  auto owned = std::make_unique<HandSequence>(
      &cache, policy, options.rollback_tokens, options.chunk_tokens);
  sequence = owned.get();
  session->Start(std::move(owned), {.session_id = "7"});
}

uint64_t Conversation::Say(decltype(ClientMessage::body) body,
                           std::optional<uint64_t> client_seq) {
  const uint64_t seq = client_seq.value_or(last_seq_ + 1);
  if (seq == last_seq_ + 1 && !std::holds_alternative<HalfClose>(body)) {
    last_seq_ = seq;
  }
  session->Handle(
      inbox->Prepare({.client_seq = client_seq, .body = std::move(body)}));
  return seq;
}

int Conversation::Steps(int count) {
  int steps = 0;
  while (steps < count && !closed &&
         sequence->Step(session.get(), next_token)) {
    ++steps;
  }
  return steps;
}

void Conversation::RunTo(int64_t length) {
  while (!closed && sequence->length() < length && Steps(1) == 1) {
  }
}

void Conversation::Read() {
  while (auto event = log.Take()) read.push_back(*std::move(event));
}

std::string Conversation::TextOf(uint64_t turn) {
  std::string text;
  for (const Output& output : Told<Output>()) {
    if (output.turn == turn) text += output.text;
  }
  return text;
}

std::string Conversation::Rejection() {
  const auto rejected = Told<Rejected>();
  return rejected.empty() ? "" : errors::ReasonOf(rejected.back().error);
}

}  // namespace millrace::session
