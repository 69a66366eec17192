// The alphabet in which byte-level BPE writes bytes: one printable character
// for each, as GPT-2's vocabulary has it ("Ġ" is a space).
#ifndef MILLRACE_SERVICES_TEXT_BYTE_ALPHABET_H_
#define MILLRACE_SERVICES_TEXT_BYTE_ALPHABET_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace millrace::text {

// The character of a byte, in UTF-8.
absl::string_view CharacterOf(uint8_t byte);

// The bytes that a string of the alphabet stands for; nullopt if it has any
// other character.
std::optional<std::string> BytesOf(absl::string_view characters);

}  // namespace millrace::text

#endif  // MILLRACE_SERVICES_TEXT_BYTE_ALPHABET_H_
