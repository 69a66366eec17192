// The tokenizer's part of a GGUF file's keys.
#ifndef MILLRACE_BACKENDS_MODEL_FILE_GGUF_TOKENIZER_H_
#define MILLRACE_BACKENDS_MODEL_FILE_GGUF_TOKENIZER_H_

#include "absl/status/statusor.h"
#include "backends/model_file/gguf_metadata.h"
#include "backends/model_file/tokenizer_metadata.h"

namespace millrace::backends {

// Checks every entry, then copies them. Tokens are unique, not empty, valid
// UTF-8 and as many as types; a merge is "left right" with both and their
// concatenation among the tokens; ids are ids of tokens. Only "gpt2", byte-
// level BPE, is supported; so is no "tokenizer." key that we do not know.
absl::StatusOr<TokenizerMetadata> ReadTokenizer(GgufMetadata& metadata);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_GGUF_TOKENIZER_H_
