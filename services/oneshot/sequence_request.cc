#include "services/oneshot/sequence_request.h"

#include <utility>

namespace millrace::oneshot {

SequenceRequest::SequenceRequest(
    const Dependencies& deps, std::string id,
    std::shared_ptr<const cache::CachePolicy> policy, Admitted admitted)
    : deps_(deps),
      id_(std::move(id)),
      policy_(std::move(policy)),
      admitted_(std::move(admitted)),
      requested_(deps.now()) {}

void SequenceRequest::Start(const std::shared_ptr<SequenceRequest>& request) {
  request->deps_.active->Add(request);
  request->Post([raw = request.get()] { raw->Enqueue(); });
}

void SequenceRequest::Enqueue() {
  if (over_) return;
  if (absl::Status fits = CheckFits(); !fits.ok()) return Refuse(fits);
  self_ = shared_from_this();
  ticket_ = deps_.queue->Submit({.policy = policy_}, this, [this](auto opened) {
    OnAdmitted(std::move(opened));
  });
}

void SequenceRequest::OnAdmitted(
    absl::StatusOr<std::unique_ptr<engine::Sequence>> sequence) {
  if (!sequence.ok()) return Refuse(sequence.status());
  sequence_ = *std::move(sequence);
  started_ = deps_.now();
  Answer(absl::OkStatus());
  Begin();
}

void SequenceRequest::Refuse(const absl::Status& status) {
  Answer(status);
  Release();
}

// Whoever is called back may hold us: we let go of them.
void SequenceRequest::Answer(const absl::Status& status) {
  if (const Admitted admitted = std::exchange(admitted_, nullptr)) {
    admitted(status);
  }
}

void SequenceRequest::Release() {
  // The last one to hold us may be ourselves: we go on return.
  const std::shared_ptr<SequenceRequest> keep = std::move(self_);
  over_ = true;
  admitted_ = nullptr;
  deps_.queue->Cancel(ticket_);
  sequence_.reset();
}

void SequenceRequest::Cancel() {
  Post([this] {
    if (!over_) Release();
  });
}

void SequenceRequest::Drain() {
  Post([this] {
    if (sequence_) FinishDrained();
  });
}

void SequenceRequest::Post(std::function<void()> task) {
  deps_.engine->Post(
      [self = shared_from_this(), task = std::move(task)] { task(); });
}

void SequenceRequest::Observe(const session::EventBody& event) const {
  if (deps_.on_event) deps_.on_event(id_, policy_->Name(), event);
}

}  // namespace millrace::oneshot
