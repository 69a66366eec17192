// What a model file says about its tokenizer, checked entry by entry, in the
// file's own terms. services/text makes a tokenizer of it.
#ifndef MILLRACE_BACKENDS_MODEL_FILE_TOKENIZER_METADATA_H_
#define MILLRACE_BACKENDS_MODEL_FILE_TOKENIZER_METADATA_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace millrace::backends {

// As in GGUF's tokenizer.ggml.token_type.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,  // special: never matched in plain text, never shown
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct TokenizerMetadata {
  std::string model;                   // "gpt2": byte-level BPE
  std::string pre_tokenizer;           // "smollm", "llama-bpe", ...
  std::vector<std::string> tokens;     // by id, in the byte-to-unicode alphabet
  std::vector<TokenType> token_types;  // as many as tokens
  std::vector<std::string> merges;     // "left right", best first
  // Ids below tokens.size().
  std::optional<int32_t> bos_id, eos_id, unknown_id, padding_id;
  // The sink token of a model that was trained with it in front of every text
  // (https://arxiv.org/abs/2309.17453, section 3.3).
  std::optional<int32_t> sink_id;
  // Ids that end a turn besides eos_id (tokenizer.ggml.eot_token_id).
  std::vector<int32_t> end_of_turn_ids;
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = false;
  std::string chat_template;  // Jinja source; empty: none
};

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_TOKENIZER_METADATA_H_
