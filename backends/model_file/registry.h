// Opens a model file of any known format. The visible list of formats is in
// registry.cc; adding one: README.md in this folder.
//
//   auto file = OpenModelFile(path, {.expected_sha256 = pin});
//   if (!file.ok()) ...   // "read model file 'a.gguf': byte 24, key ..."
#ifndef MILLRACE_BACKENDS_MODEL_FILE_REGISTRY_H_
#define MILLRACE_BACKENDS_MODEL_FILE_REGISTRY_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backends/model_file/model_file.h"

namespace millrace::backends {

struct OpenOptions {
  // The SHA-256 that the file must have, 64 hex digits. Empty: any.
  std::string expected_sha256;
};

// Names of the formats in this binary, such as "gguf".
std::vector<std::string> ModelFileFormats();

// Reads the whole file once, checks it and returns it. The format is told from
// the first bytes, not from the name.
//
// A file that cannot be opened, is not a regular file, is broken, has another
// hash than expected or changes while it is read is refused; what the header
// gives away costs at most 64 MiB and 100 ms (entries of a huge tokenizer, some
// tenths of a second). Symbolic links are followed.
// Every error carries the reason MODEL_FILE_INVALID (invalid_file.h) and names
// the file, the byte, the field and what would be right:
// NOT_FOUND if there is no such file, PERMISSION_DENIED if it may not be read,
// ABORTED if it changed while it was read, RESOURCE_EXHAUSTED if memory is too
// small for it, INVALID_ARGUMENT otherwise.
absl::StatusOr<std::unique_ptr<const ModelFile>> OpenModelFile(
    const std::string& path, const OpenOptions& options);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_REGISTRY_H_
