// Session is one endless session: messages out and events in, both at any time.
//
//   auto session = client.OpenSession(open);
//   v1::ConnectRequest request;
//   *request.mutable_append()->add_inputs() = ...;
//   (*session)->Send(request);
//   while (true) {
//     auto event = (*session)->Next();
//     if (!event.ok()) break;       // OUT_OF_RANGE: the session has ended
//   }
//
// A lost connection is taken up again without a gap: events come once and in
// order, and messages that were not answered are sent again.
//
// One thread calls Next, any thread the rest.
#ifndef MILLRACE_CLIENTS_CPP_SESSION_H_
#define MILLRACE_CLIENTS_CPP_SESSION_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "millrace/v1/session.pb.h"

namespace millrace::client {

class Session {
 public:
  // Cancels the stream, without a word to the server: the session waits there
  // for a while. Send `close` for a good end.
  virtual ~Session() = default;

  virtual const v1::SessionOpened& opened() const = 0;

  // Numbers the message and sends it; returns its client_seq. Never waits for
  // an answer, which comes as an event.
  virtual uint64_t Send(v1::ConnectRequest request) = 0;

  // No more messages: the server ends the session once it has done what was
  // asked.
  virtual void HalfClose() = 0;

  // The next event; heartbeats are left out. OUT_OF_RANGE after the last one.
  // Else the error that ended the stream, when taking it up again has failed.
  virtual absl::StatusOr<v1::ConnectResponse> Next() = 0;

  // Makes Next return CANCELLED, now and later.
  virtual void Cancel() = 0;

  // Called, in Next, when the connection was lost and found again.
  virtual void SetOnResumed(std::function<void()> on_resumed) = 0;
};

}  // namespace millrace::client

#endif  // MILLRACE_CLIENTS_CPP_SESSION_H_
