#include "services/text/byte_alphabet.h"

#include <array>
#include <vector>

namespace millrace::text {
namespace {

// Code points are below U+0144.
constexpr int kCodePoints = 0x144;

struct Alphabet {
  std::array<std::string, 256> characters;
  std::array<int, kCodePoints> bytes;
};

bool StandsForItself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) ||
         (byte >= 0xAE && byte <= 0xFF);
}

const Alphabet& TheAlphabet() {
  static const Alphabet* alphabet = [] {
    auto* made = new Alphabet;
    made->bytes.fill(-1);
    int next = 0x100;  // for bytes that cannot be printed
    for (int byte = 0; byte < 256; ++byte) {
      const int point = StandsForItself(byte) ? byte : next++;
      made->bytes[point] = byte;
      std::string& character = made->characters[byte];
      if (point < 0x80) {
        character = std::string(1, static_cast<char>(point));
      } else {
        character = {static_cast<char>(0xC0 | (point >> 6)),
                     static_cast<char>(0x80 | (point & 0x3F))};
      }
    }
    return made;
  }();
  return *alphabet;
}

}  // namespace

absl::string_view CharacterOf(uint8_t byte) {
  return TheAlphabet().characters[byte];
}

std::optional<std::string> BytesOf(absl::string_view characters) {
  std::string bytes;
  for (size_t i = 0; i < characters.size(); ++i) {
    const auto lead = static_cast<uint8_t>(characters[i]);
    int point = lead;
    if (lead >= 0x80) {
      if ((lead & 0xE0) != 0xC0 || i + 1 >= characters.size()) return {};
      point =
          (lead & 0x1F) << 6 | (static_cast<uint8_t>(characters[++i]) & 0x3F);
    }
    if (point >= kCodePoints || TheAlphabet().bytes[point] < 0) return {};
    bytes += static_cast<char>(TheAlphabet().bytes[point]);
  }
  return bytes;
}

}  // namespace millrace::text
