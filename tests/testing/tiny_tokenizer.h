// A tokenizer that fits on a page: 256 bytes, a few merges, and the special
// tokens of ChatML. For tests that need the real code and no model file.
#ifndef MILLRACE_TESTS_TESTING_TINY_TOKENIZER_H_
#define MILLRACE_TESTS_TESTING_TINY_TOKENIZER_H_

#include <memory>

#include "backends/model_file/tokenizer_metadata.h"
#include "services/text/tokenizer.h"

namespace millrace::testing {

// Ids: 0 <|endoftext|>, 1 <|im_start|>, 2 <|im_end|> (ends a turn), 3 .. 258
// the bytes 0 .. 255, then the merged tokens.
backends::TokenizerMetadata TinyTokenizerMetadata();

std::unique_ptr<const text::Tokenizer> TinyTokenizer();

// A ChatML template without a system prompt of its own.
inline constexpr char kTinyChatTemplate[] =
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_TINY_TOKENIZER_H_
