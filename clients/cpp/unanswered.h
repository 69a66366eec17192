// Unanswered keeps the messages that the server has not yet answered, so that
// they can be sent again after a lost connection. The server drops what it
// already has, by client_seq.
//
// Not thread-safe.
#ifndef MILLRACE_CLIENTS_CPP_UNANSWERED_H_
#define MILLRACE_CLIENTS_CPP_UNANSWERED_H_

#include <cstdint>
#include <map>

#include "millrace/v1/session.pb.h"

namespace millrace::client {

class Unanswered {
 public:
  // REQUIRES: request.client_seq() is larger than any before.
  void Add(const v1::ConnectRequest& request);

  // Drops the messages that the event answers.
  void Take(const v1::ConnectResponse& event);

  // By client_seq.
  const std::map<uint64_t, v1::ConnectRequest>& requests() const {
    return requests_;
  }

 private:
  void DropFirst(std::initializer_list<v1::ConnectRequest::MessageCase> kinds);

  std::map<uint64_t, v1::ConnectRequest> requests_;
};

}  // namespace millrace::client

#endif  // MILLRACE_CLIENTS_CPP_UNANSWERED_H_
