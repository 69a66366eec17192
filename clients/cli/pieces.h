// Cuts a long text into pieces that fit into a message.
#ifndef MILLRACE_CLIENTS_CLI_PIECES_H_
#define MILLRACE_CLIENTS_CLI_PIECES_H_

#include <cstddef>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace millrace::cli {

// The largest prefix of at most `max_bytes` that ends at a character of the
// UTF-8 text. REQUIRES: max_bytes >= 4.
absl::string_view FirstPiece(absl::string_view text, size_t max_bytes);

// The offset of the first byte that makes the text invalid UTF-8.
std::optional<size_t> FindInvalidUtf8(absl::string_view text);

// INVALID_ARGUMENT names that byte.
absl::Status CheckUtf8(absl::string_view text);

}  // namespace millrace::cli

#endif  // MILLRACE_CLIENTS_CLI_PIECES_H_
