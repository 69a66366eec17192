#include "clients/cpp/unanswered.h"

#include <algorithm>

namespace millrace::client {

using Request = v1::ConnectRequest;
using Response = v1::ConnectResponse;

void Unanswered::Add(const Request& request) {
  requests_.emplace(request.client_seq(), request);
}

void Unanswered::Take(const Response& event) {
  switch (event.event_case()) {
    case Response::kInputQueued:
      requests_.erase(event.input_queued().client_seq());
      break;
    case Response::kRejected:
      requests_.erase(event.rejected().client_seq());
      break;
    case Response::kTurnStarted:
      requests_.erase(event.turn_started().started_by());
      break;
    case Response::kTurnFinished:
      DropFirst({Request::kInterrupt});
      break;
    case Response::kOptionsUpdated:
      DropFirst({Request::kUpdate, Request::kReset});
      break;
    case Response::kClosed:
      requests_.clear();
      break;
    default:
      break;
  }
}

void Unanswered::DropFirst(std::initializer_list<Request::MessageCase> kinds) {
  const auto found =
      std::find_if(requests_.begin(), requests_.end(), [&](const auto& entry) {
        return std::find(kinds.begin(), kinds.end(),
                         entry.second.message_case()) != kinds.end();
      });
  if (found != requests_.end()) requests_.erase(found);
}

}  // namespace millrace::client
