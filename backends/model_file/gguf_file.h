// GGUF files of `llama` models: one more format for the list in registry.cc.
#ifndef MILLRACE_BACKENDS_MODEL_FILE_GGUF_FILE_H_
#define MILLRACE_BACKENDS_MODEL_FILE_GGUF_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "backends/model_file/file_bytes.h"
#include "backends/model_file/model_file.h"

namespace millrace::backends {

// Whether a file that starts with `bytes` is meant to be GGUF.
bool IsGguf(absl::Span<const uint8_t> bytes);

// Reads and checks the header, then everything else.
absl::StatusOr<std::unique_ptr<const ModelFile>> ReadGguf(
    std::unique_ptr<FileBytes> file, const std::string& path);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_GGUF_FILE_H_
