#include "services/text/utf8_assembler.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace millrace::text {
namespace {

struct Case {
  const char* name;
  std::vector<std::string> bytes;
  std::vector<std::string> text;  // after each, and at the end
};

TEST(Utf8Assembler, WholeCharactersComeOutAndNothingElse) {
  const std::string r = "\uFFFD";
  for (const Case& c : std::vector<Case>{
           {"ASCII", {"a", "bc"}, {"a", "bc", ""}},
           {"a character in two pieces", {"\xC3", "\xA9"}, {"", "\u00e9", ""}},
           {"one in four",
            {"\xF0", "\x9F", "\x8C", "\x8D!"},
            {"", "", "", "\U0001F30D!", ""}},
           {"a lone continuation", {"\xA9"}, {r, ""}},
           {"broken off by a letter", {"\xE2\x82", "a"}, {"", r + "a", ""}},
           {"broken off by a lead",
            {"\xE2\x82", "\xC3\xA9"},
            {"", r + "\u00e9", ""}},
           {"broken off by the end", {"\xE2\x82"}, {"", r}},
           {"overlong", {"\xE0\x80\x80"}, {r + r + r, ""}},
           {"a surrogate", {"\xED\xA0\x80"}, {r + r + r, ""}},
           {"no byte of UTF-8", {"\xFF"}, {r, ""}},
       }) {
    Utf8Assembler assembler;
    for (size_t i = 0; i < c.bytes.size(); ++i) {
      EXPECT_EQ(assembler.Add(c.bytes[i]), c.text[i]) << c.name;
    }
    EXPECT_EQ(assembler.Finish(), c.text.back()) << c.name;
    EXPECT_FALSE(assembler.pending()) << c.name;
  }
}

}  // namespace
}  // namespace millrace::text
