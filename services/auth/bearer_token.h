// BearerToken is the one secret that lets clients in, from a file.
//
//   auto token = BearerToken::FromFile("/run/secrets/token");
//   token->Matches("Bearer s3cret")    // metadata `authorization`
//
// Comparing takes the same time whatever is compared. Thread-safe: immutable.
#ifndef MILLRACE_SERVICES_AUTH_BEARER_TOKEN_H_
#define MILLRACE_SERVICES_AUTH_BEARER_TOKEN_H_

#include <array>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace millrace::auth {

class BearerToken {
 public:
  // The file's text without white space around it, 16 to 4,096 visible ASCII
  // characters. INVALID_ARGUMENT names the file, never what is in it.
  static absl::StatusOr<BearerToken> FromFile(const std::string& path);
  static absl::StatusOr<BearerToken> FromString(absl::string_view secret);

  // Whether the value of `authorization` is "Bearer " and the secret.
  bool Matches(absl::string_view authorization) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  explicit BearerToken(Digest digest) : digest_(digest) {}
  static Digest Hash(absl::string_view text);

  Digest digest_;  // of the secret, which is not kept
};

}  // namespace millrace::auth

#endif  // MILLRACE_SERVICES_AUTH_BEARER_TOKEN_H_
