#include "services/rpc/serving.h"

#include "services/errors/errors.h"

namespace millrace::rpc {

absl::StatusOr<const Serving*> ServingGate::Get() const {
  const Serving* serving = serving_;
  if (serving != nullptr) return serving;
  errors::Details details;
  details.retry_after = absl::Seconds(1);
  return errors::MakeError(absl::StatusCode::kUnavailable,
                           errors::Reason::kModelLoading,
                           "the model is being loaded", details);
}

}  // namespace millrace::rpc
