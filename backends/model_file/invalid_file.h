// The one way in which a model file is refused: a status that says where in
// the file what is wrong, with a reason that programs can read.
//
//   return InvalidFile(offset, "key 'llama.block_count'",
//                      "is 0; 1 to 512 are supported");
#ifndef MILLRACE_BACKENDS_MODEL_FILE_INVALID_FILE_H_
#define MILLRACE_BACKENDS_MODEL_FILE_INVALID_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace millrace::backends {

// The payload of a status under this URL is the reason, in capitals; services
// hand it to clients and logs.
inline constexpr absl::string_view kReasonTypeUrl = "millrace/reason";
inline constexpr absl::string_view kModelFileInvalid = "MODEL_FILE_INVALID";

// Text from a file, fit to be shown: bytes outside of printable ASCII as \xNN,
// and no more than 80 of them.
std::string Printable(absl::string_view bytes);

// INVALID_ARGUMENT "byte <offset>: <field> <problem>", with the reason. Text
// that comes from the file goes through Printable() first.
absl::Status InvalidFile(uint64_t offset, absl::string_view field,
                         absl::string_view problem);

// The same status with the reason attached.
absl::Status WithModelFileReason(absl::Status status);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_INVALID_FILE_H_
