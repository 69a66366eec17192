// Call is what every RPC does besides its own work: credentials, metadata,
// status, metrics, one log line.
//
//   Call call(context, shared, "millrace.v1.ControlService/GetLoad");
//   if (absl::Status s = call.Authenticate(); !s.ok()) Finish(call.Over(s));
//   ...
//   call.Accept();               // headers may go out: echoes metadata
//   Finish(call.Over(status));   // the one place that converts a status
#ifndef MILLRACE_SERVICES_RPC_CALL_H_
#define MILLRACE_SERVICES_RPC_CALL_H_

#include <grpcpp/grpcpp.h>

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"
#include "services/rpc/serving.h"

namespace millrace::rpc {

// Whether the bytes are a message. Invalid UTF-8 in a string is none.
bool ParseFrom(const grpc::ByteBuffer& bytes,
               google::protobuf::MessageLite& message);
grpc::ByteBuffer Serialize(const google::protobuf::MessageLite& message);

// INVALID_ARGUMENT, MALFORMED_MESSAGE.
absl::Status Malformed();

// With google.rpc details.
grpc::Status ToGrpc(const absl::Status& status);

class Call {
 public:
  // `context` lives as long as the call. `method` is "package.Service/Method".
  Call(grpc::CallbackServerContext* context, const ServiceContext& shared,
       std::string method);
  // Counts and logs the call, if Over has not.
  ~Call();

  // UNAUTHENTICATED without the right token.
  absl::Status Authenticate();
  // Authenticate, then MODEL_LOADING until the model is there.
  absl::StatusOr<const Serving*> Admit();

  // Before headers are sent: echoes x-request-id.
  void Accept();
  void AddHeader(const std::string& key, const std::string& value);

  // For the log line.
  void SetSession(const std::string& session_id);

  // Converts the status and adds trailing metadata. Once.
  grpc::Status Over(const absl::Status& status);

  // A name unique among calls, for metrics.
  const std::string& id() const { return id_; }

 private:
  std::string Metadata(const char* key, size_t max_bytes) const;
  void Record(absl::StatusCode code, const std::string& reason);

  grpc::CallbackServerContext* const context_;
  const ServiceContext& shared_;
  const std::string method_;
  const std::string id_;
  const std::string request_id_, trace_id_;
  std::string session_;
  const absl::Time start_;
  bool accepted_ = false;
  bool recorded_ = false;
};

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_CALL_H_
