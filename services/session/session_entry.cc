#include "services/session/session_entry.h"

#include <utility>

#include "services/errors/errors.h"
#include "services/session/secrets.h"

namespace millrace::session {
namespace {

constexpr int kIdBytes = 16;
constexpr int kTokenBytes = 32;
// Messages of a client that may wait for the engine thread: what it sends
// within one step.
constexpr size_t kMaxCommands = 8192;

absl::Status SlowConsumer() {
  return errors::MakeError(
      absl::StatusCode::kAborted, errors::Reason::kSlowConsumer,
      "too many events were left unread; read them as they come, and resume");
}

const text::ChatFormat* FormatOf(const EffectiveOptions& options,
                                 const StoreDependencies& deps) {
  return options.format == Format::kChat ? deps.chat_format : nullptr;
}

}  // namespace

SessionEntry::SessionEntry(const OpenOptions& open, PreparedSession prepared,
                           const StoreOptions& options,
                           const StoreDependencies& deps, StreamId stream,
                           StreamOwner* owner, std::function<void()> on_closed,
                           std::function<void()> on_slow_consumer)
    : id_(RandomHex(kIdBytes)),
      resume_token_(RandomHex(kTokenBytes)),
      client_tag_(open.client_tag),
      policy_name_(prepared.policy.policy->Name()),
      options_(prepared.options),
      policy_(prepared.policy.policy),
      deps_(deps),
      on_closed_(std::move(on_closed)),
      on_slow_consumer_(std::move(on_slow_consumer)),
      created_(deps.now()),
      log_(options.log),
      credit_(options.max_pending_input_bytes),
      attachment_(stream, owner),
      inbox_(deps.tokenizer, FormatOf(options_, deps), &credit_) {
  session_ = std::make_unique<Session>(SessionContext(), options_,
                                       std::move(prepared.policy),
                                       std::move(prepared.system_ids));
}

Session::Context SessionEntry::SessionContext() {
  Session::Context context;
  context.tokenizer = deps_.tokenizer;
  context.chat_format = FormatOf(options_, deps_);
  context.log = &log_;
  context.credit = &credit_;
  context.now = deps_.now;
  if (deps_.on_event) {
    context.on_event = [this](const EventBody& event) {
      deps_.on_event(id_, policy_name_, event);
    };
  }
  context.on_closed = [this](CloseReason reason) { OnSessionClosed(reason); };
  context.read_ahead_tokens = deps_.engine->options().prefill_chunk_tokens;
  return context;
}

absl::Status SessionEntry::Start() {
  auto sequence =
      deps_.engine->Open({.policy = policy_,
                          .max_chunk_tokens = 0,  // the engine's own
                          .rollback_tokens = options_.rollback_tokens},
                         session_.get());
  if (!sequence.ok()) return sequence.status();
  reserved_bytes_ = (*sequence)->reserved_bytes();
  log_.SetOnDrained([weak = weak_from_this(), engine = deps_.engine] {
    engine->Post([weak] {
      if (const auto self = weak.lock()) self->session_->OnDrained();
    });
  });
  session_->Start(
      *std::move(sequence),
      {.session_id = id_,
       .resume_token = resume_token_,
       .max_pending_input_bytes = static_cast<uint64_t>(credit_.limit())});
  return absl::OkStatus();
}

bool SessionEntry::HasToken(absl::string_view resume_token) const {
  return EqualInConstantTime(resume_token, resume_token_);
}

bool SessionEntry::IsNobodysToken(absl::string_view resume_token) {
  static const std::string& nobodys = *new std::string(RandomHex(kTokenBytes));
  return EqualInConstantTime(resume_token, nobodys) && false;
}

void SessionEntry::Submit(StreamId stream, ClientMessage message) {
  if (!attachment_.Holds(stream)) return;
  absl::MutexLock lock(&inbox_mutex_);
  commands_.push_back(inbox_.Prepare(std::move(message)));
  if (commands_.size() == 1) {
    deps_.engine->Post([self = shared_from_this()] { self->RunInbox(); });
  } else if (commands_.size() > kMaxCommands) {
    EndSlowStream();
  }
}

void SessionEntry::RunInbox() {
  std::vector<Command> commands;
  {
    absl::MutexLock lock(&inbox_mutex_);
    commands.swap(commands_);
  }
  for (Command& command : commands) session_->Handle(std::move(command));
  if (log_.TooManyAnswers()) EndSlowStream();
}

void SessionEntry::EndSlowStream() {
  if (attachment_.detached_since()) return;
  on_slow_consumer_();
  attachment_.End(SlowConsumer(), deps_.now());
}

void SessionEntry::Detach(StreamId stream) {
  if (!attachment_.Detach(stream, deps_.now())) return;
  deps_.engine->Post([self = shared_from_this()] {
    if (!self->attachment_.detached_since()) return;  // taken up again
    self->log_.SetWakeUp(nullptr);
    if (self->options_.detach_timeout <= absl::ZeroDuration()) {
      self->session_->Close(CloseReason::kIdle);
    }
  });
}

void SessionEntry::Attach(StreamId stream, StreamOwner* owner,
                          uint64_t last_sequence_number) {
  attachment_.Attach(stream, owner);
  log_.SetWakeUp(nullptr);
  const bool found = log_.Seek(last_sequence_number);
  session_->OnResumed(/*gap=*/!found);
}

bool SessionEntry::Tick(absl::Time now, absl::Duration slow_reader_timeout) {
  const Session::Snapshot snapshot = session_->snapshot();
  if (snapshot.state == State::kClosed) return false;
  auto detached = attachment_.detached_since();
  if (!detached && snapshot.paused_since &&
      now - *snapshot.paused_since >= slow_reader_timeout) {
    EndSlowStream();
    detached = attachment_.detached_since();
  }
  const bool gone = detached && now - *detached >= options_.detach_timeout;
  const bool idle = snapshot.waits_for_client &&
                    now - snapshot.last_active >= options_.idle_timeout;
  if (!gone && !idle) return false;
  session_->Close(CloseReason::kIdle);
  return true;
}

void SessionEntry::OnSessionClosed(CloseReason reason) {
  on_closed_();
  attachment_.End(
      reason == CloseReason::kDrained
          ? errors::MakeError(absl::StatusCode::kUnavailable,
                              errors::Reason::kDraining,
                              "the server shuts down; open a new session",
                              {.retry_after = absl::Seconds(1)})
          : absl::OkStatus(),
      deps_.now());
}

SessionInfo SessionEntry::info() const {
  const Session::Snapshot snapshot = session_->snapshot();
  SessionInfo info{.id = id_, .state = snapshot.state};
  if (info.state != State::kClosed && attachment_.detached_since()) {
    info.state = State::kDetached;
  }
  info.client_tag = client_tag_;
  info.policy = options_.policy;
  info.created = created_;
  info.last_active = snapshot.last_active;
  info.usage = snapshot.usage;
  info.reserved_bytes = static_cast<uint64_t>(reserved_bytes_);
  info.pending_input_bytes = static_cast<uint64_t>(credit_.pending());
  info.unread_bytes = static_cast<uint64_t>(log_.unread_bytes());
  return info;
}

}  // namespace millrace::session
