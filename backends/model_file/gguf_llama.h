// The shape of a `llama` model from the keys of its GGUF file.
#ifndef MILLRACE_BACKENDS_MODEL_FILE_GGUF_LLAMA_H_
#define MILLRACE_BACKENDS_MODEL_FILE_GGUF_LLAMA_H_

#include "absl/status/statusor.h"
#include "backends/model_file/gguf_metadata.h"
#include "backends/model_file/model_config.h"

namespace millrace::backends {

// The most tokens of a vocabulary.
inline constexpr int64_t kLargestVocabulary = 256 * 1024;

// Everything of the config but tied_embedding, which tensors tell. Refuses
// other architectures, numbers out of range and out of proportion, and every
// "llama." key that would change results and that we do not implement, such
// as scaled rotary positions, experts and sliding windows.
absl::StatusOr<ModelConfig> ReadLlamaConfig(GgufMetadata& metadata);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_GGUF_LLAMA_H_
