#include "services/auth/bearer_token.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <fstream>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace millrace::auth {
namespace {

constexpr absl::string_view kScheme = "Bearer ";
constexpr size_t kMinBytes = 16, kMaxBytes = 4096;

}  // namespace

absl::StatusOr<BearerToken> BearerToken::FromFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxBytes + 64, '\0');
  file.read(text.data(), text.size());
  if (!file.eof() || file.bad()) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot read a token of at most ", kMaxBytes,
                     " bytes from '", path, "'"));
  }
  text.resize(file.gcount());
  auto token = FromString(absl::StripAsciiWhitespace(text));
  if (token.ok()) return token;
  return absl::InvalidArgumentError(
      absl::StrCat("'", path, "': ", token.status().message()));
}

absl::StatusOr<BearerToken> BearerToken::FromString(absl::string_view secret) {
  const auto visible = [](char c) { return absl::ascii_isgraph(c); };
  if (secret.size() >= kMinBytes && secret.size() <= kMaxBytes &&
      absl::c_all_of(secret, visible)) {
    return BearerToken(Hash(secret));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("a token is ", kMinBytes, " to ", kMaxBytes,
                   " visible ASCII characters without spaces"));
}

bool BearerToken::Matches(absl::string_view authorization) const {
  const bool scheme = absl::StartsWithIgnoreCase(authorization, kScheme);
  // Digests are of one length, so nothing about the secret's shows either.
  const Digest given =
      Hash(scheme ? authorization.substr(kScheme.size()) : authorization);
  return CRYPTO_memcmp(given.data(), digest_.data(), digest_.size()) == 0 &&
         scheme;
}

BearerToken::Digest BearerToken::Hash(absl::string_view text) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         digest.data());
  return digest;
}

}  // namespace millrace::auth
