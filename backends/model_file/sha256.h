// SHA-256 in pieces (OpenSSL, which uses the processor's own instructions).
#ifndef MILLRACE_BACKENDS_MODEL_FILE_SHA256_H_
#define MILLRACE_BACKENDS_MODEL_FILE_SHA256_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/types/span.h"

namespace millrace::backends {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(absl::Span<const uint8_t> bytes);

  // 64 lower-case hex digits. REQUIRES: called once, last.
  std::string Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_SHA256_H_
