#include "services/session/attachment.h"

#include "services/errors/errors.h"

namespace millrace::session {

void Attachment::Attach(StreamId stream, StreamOwner* owner) {
  absl::MutexLock lock(&mutex_);
  if (owner_ != nullptr) {
    owner_->OnEnd(errors::MakeError(absl::StatusCode::kAborted,
                                    errors::Reason::kSessionFenced,
                                    "another stream has taken the session up"));
  }
  stream_ = stream;
  owner_ = owner;
}

bool Attachment::Detach(StreamId stream, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  if (owner_ == nullptr || stream_ != stream) return false;
  owner_ = nullptr;
  since_ = now;
  return true;
}

void Attachment::End(const absl::Status& status, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  if (owner_ == nullptr) return;
  owner_->OnEnd(status);
  owner_ = nullptr;
  since_ = now;
}

bool Attachment::Holds(StreamId stream) const {
  absl::MutexLock lock(&mutex_);
  return owner_ != nullptr && stream_ == stream;
}

std::optional<absl::Time> Attachment::detached_since() const {
  absl::MutexLock lock(&mutex_);
  if (owner_ != nullptr) return std::nullopt;
  return since_;
}

}  // namespace millrace::session
