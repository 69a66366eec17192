// Client talks to one millraced.
//
//   auto client = Client::Create({.address = "127.0.0.1:9000"});
//   v1::GenerateRequest request;
//   request.add_inputs()->set_text("The capital of France is");
//   auto finished = (*client)->Generate(request, [](const auto& event) {
//     std::cout << event.output().text();
//     return true;
//   });
//
// Messages are those of proto/millrace/v1, whose comments are the manual.
// Errors carry the service's reason (clients/cpp/status.h).
//
// Thread-safe; calls block the calling thread, but StartGenerate.
#ifndef MILLRACE_CLIENTS_CPP_CLIENT_H_
#define MILLRACE_CLIENTS_CPP_CLIENT_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/cpp/session.h"
#include "millrace/v1/admin.pb.h"
#include "millrace/v1/control.pb.h"
#include "millrace/v1/inference.pb.h"
#include "millrace/v1/session.pb.h"

namespace millrace::client {

struct ClientOptions {
  std::string address = "127.0.0.1:9000";  // or "unix:/path"
  std::string root_certificates;           // PEM; empty: plaintext
  std::string bearer_token;                // empty: none
  // For calls with one answer, and for the first answer of streams.
  absl::Duration deadline = absl::Seconds(10);
};

class Client {
 public:
  // Connects when the first call is made.
  static std::unique_ptr<Client> Create(const ClientOptions& options);

  virtual ~Client() = default;

  // Calls `on_event` with every event until the call ends; false cancels it
  // (CANCELLED). An error within the stream becomes the status.
  virtual absl::StatusOr<v1::GenerateFinished> Generate(
      const v1::GenerateRequest& request,
      const std::function<bool(const v1::GenerateResponse&)>& on_event) = 0;

  // The same without a thread of the caller's: returns at once. `on_event`, and
  // then `on_end`, are called one at a time by threads that all such calls
  // share: they return soon, and make no call that blocks. For hundreds of
  // streams at once: a thread for each costs more than reading them.
  virtual void StartGenerate(
      const v1::GenerateRequest& request,
      std::function<bool(const v1::GenerateResponse&)> on_event,
      std::function<void(absl::StatusOr<v1::GenerateFinished>)> on_end) = 0;

  // Scores a text that `next_piece` hands out piece by piece, nullopt at its
  // end. Pieces are valid UTF-8 each, of at most 1 MiB.
  virtual absl::StatusOr<v1::ScoreFinished> Score(
      const v1::ScoreSetup& setup,
      const std::function<std::optional<v1::Input>()>& next_piece,
      const std::function<bool(const v1::ScoreResponse&)>& on_event) = 0;

  virtual absl::StatusOr<v1::TokenizeResponse> Tokenize(
      const v1::TokenizeRequest& request) = 0;
  virtual absl::StatusOr<v1::DetokenizeResponse> Detokenize(
      const v1::DetokenizeRequest& request) = 0;

  virtual absl::StatusOr<v1::GetServerInfoResponse> GetServerInfo() = 0;
  virtual absl::StatusOr<v1::GetModelInfoResponse> GetModelInfo() = 0;
  virtual absl::StatusOr<v1::GetLoadResponse> GetLoad() = 0;

  // On the admin listener.
  virtual absl::StatusOr<v1::ListSessionsResponse> ListSessions(
      const v1::ListSessionsRequest& request) = 0;
  virtual absl::Status DeleteSession(const std::string& session_id) = 0;

  // Opens an endless session. The client outlives it.
  virtual absl::StatusOr<std::unique_ptr<Session>> OpenSession(
      const v1::OpenSession& open) = 0;
};

}  // namespace millrace::client

#endif  // MILLRACE_CLIENTS_CPP_CLIENT_H_
