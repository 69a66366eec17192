#include "services/rpc/admin_service.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "millrace/v1/admin.grpc.pb.h"
#include "services/errors/errors.h"
#include "services/rpc/policy_conversion.h"
#include "services/rpc/time_conversion.h"
#include "services/rpc/unary_call.h"

namespace millrace::rpc {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

constexpr int kDefaultPage = 50, kMaxPage = 1000;
constexpr char kTokenPrefix[] = "after:";  // tells a token from any text

v1::SessionInfo ToMessage(const session::SessionInfo& info) {
  v1::SessionInfo out;
  out.set_session_id(info.id);
  out.set_state(ToProto(info.state));
  out.set_client_tag(info.client_tag);
  *out.mutable_cache_policy() = PolicyFromText(info.policy);
  *out.mutable_create_time() = ToProto(info.created);
  *out.mutable_last_active_time() = ToProto(info.last_active);
  *out.mutable_usage() = ToProto(info.usage);
  out.set_reserved_bytes(info.reserved_bytes);
  out.set_pending_input_bytes(info.pending_input_bytes);
  out.set_unread_bytes(info.unread_bytes);
  return out;
}

std::string PageToken(const std::string& last_id) {
  return absl::WebSafeBase64Escape(absl::StrCat(kTokenPrefix, last_id));
}

// The id after which a page begins.
absl::StatusOr<std::string> FromPageToken(const std::string& token) {
  if (token.empty()) return "";
  std::string text;
  if (absl::WebSafeBase64Unescape(token, &text) &&
      absl::StartsWith(text, kTokenPrefix)) {
    return text.substr(sizeof(kTokenPrefix) - 1);
  }
  return errors::InvalidField("page_token",
                              "page_token is none that this server gave");
}

absl::Status ListSessions(const Serving& serving,
                          const v1::ListSessionsRequest& request,
                          v1::ListSessionsResponse& response) {
  if (request.page_size() < 0) {
    return errors::InvalidField(
        "page_size",
        absl::StrCat("page_size=", request.page_size(), " is negative"));
  }
  const auto after = FromPageToken(request.page_token());
  if (!after.ok()) return after.status();
  const int size = request.page_size() == 0
                       ? kDefaultPage
                       : std::min(request.page_size(), kMaxPage);
  // One more than is shown tells whether there is a next page.
  const std::vector<session::SessionInfo> sessions =
      serving.store->List(*after, size + 1);
  for (const session::SessionInfo& info : sessions) {
    if (response.sessions_size() == size) {
      response.set_next_page_token(
          PageToken(response.sessions(size - 1).session_id()));
      break;
    }
    *response.add_sessions() = ToMessage(info);
  }
  return absl::OkStatus();
}

class AdminService final : public v1::AdminService::CallbackService {
 public:
  explicit AdminService(const ServiceContext& shared) : shared_(shared) {}

  ServerUnaryReactor* ListSessions(
      CallbackServerContext* context, const v1::ListSessionsRequest* request,
      v1::ListSessionsResponse* response) override {
    return AnswerUnary(context, shared_,
                       "millrace.v1.AdminService/ListSessions",
                       [&](const Serving& serving) {
                         return rpc::ListSessions(serving, *request, *response);
                       });
  }

  ServerUnaryReactor* GetSession(CallbackServerContext* context,
                                 const v1::GetSessionRequest* request,
                                 v1::GetSessionResponse* response) override {
    return AnswerUnary(context, shared_, "millrace.v1.AdminService/GetSession",
                       [&](const Serving& serving) {
                         const auto info =
                             serving.store->Get(request->session_id());
                         if (info.ok())
                           *response->mutable_session() = ToMessage(*info);
                         return info.status();
                       });
  }

  ServerUnaryReactor* DeleteSession(CallbackServerContext* context,
                                    const v1::DeleteSessionRequest* request,
                                    v1::DeleteSessionResponse*) override {
    return AnswerUnary(context, shared_,
                       "millrace.v1.AdminService/DeleteSession",
                       [&](const Serving& serving) {
                         return serving.store->Delete(request->session_id());
                       });
  }

 private:
  const ServiceContext& shared_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewAdminService(const ServiceContext& shared) {
  return std::make_unique<AdminService>(shared);
}

}  // namespace millrace::rpc
