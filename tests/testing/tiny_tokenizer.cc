#include "tests/testing/tiny_tokenizer.h"

#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace::testing {
namespace {

// As in services/text/byte_alphabet.cc, written down once more: a test that
// read it from there would not notice if it were wrong.
std::string Character(int byte) {
  const auto printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  };
  int point = byte;
  if (!printable(byte)) {
    point = 256;
    for (int b = 0; b < byte; ++b) point += printable(b) ? 0 : 1;
  }
  if (point < 128) return std::string(1, static_cast<char>(point));
  return {static_cast<char>(0xC0 | point >> 6),
          static_cast<char>(0x80 | (point & 63))};
}

}  // namespace

backends::TokenizerMetadata TinyTokenizerMetadata() {
  backends::TokenizerMetadata metadata;
  metadata.model = "gpt2";
  metadata.pre_tokenizer = "smollm";
  const auto add = [&](std::string token, backends::TokenType type) {
    metadata.tokens.push_back(std::move(token));
    metadata.token_types.push_back(type);
  };
  for (const char* special : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    add(special, backends::TokenType::kControl);
  }
  for (int byte = 0; byte < 256; ++byte) {
    add(Character(byte), backends::TokenType::kNormal);
  }
  const std::string space = Character(' ');
  const std::pair<std::string, std::string> merges[] = {
      {"h", "e"},  {"l", "l"},       {"he", "ll"},   {"hell", "o"},
      {"t", "he"}, {space, "the"},   {"i", "n"},     {"in", "g"},
      {"a", "n"},  {space, "hello"}, {"e", "r"},     {"r", "i"},
      {"ri", "v"}, {"riv", "er"},    {"river", "s"}, {space, "rivers"},
  };
  for (const auto& [left, right] : merges) {
    add(left + right, backends::TokenType::kNormal);
    metadata.merges.push_back(absl::StrCat(left, " ", right));
  }
  metadata.eos_id = 2;
  metadata.chat_template = kTinyChatTemplate;
  return metadata;
}

std::unique_ptr<const text::Tokenizer> TinyTokenizer() {
  auto tokenizer = text::Tokenizer::Create(TinyTokenizerMetadata());
  if (!tokenizer.ok()) std::abort();
  return *std::move(tokenizer);
}

}  // namespace millrace::testing
