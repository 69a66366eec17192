#include "clients/cli/pieces.h"

#include <gtest/gtest.h>

#include <string>

#include "clients/cli/horizon.h"

namespace millrace::cli {
namespace {

TEST(Pieces, ShortTextIsOnePiece) { EXPECT_EQ(FirstPiece("abc", 4), "abc"); }

TEST(Pieces, NoPieceEndsWithinACharacter) {
  const std::string text = "ab\u00e9\u20ac";  // 2 + 2 + 3 bytes
  EXPECT_EQ(FirstPiece(text, 4), "ab\u00e9");
  EXPECT_EQ(FirstPiece(text, 5), "ab\u00e9");
  EXPECT_EQ(FirstPiece(text, 7), text);
}

TEST(Pieces, PiecesJoinToTheText) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "a\u00e9\u20ac\U0001F30D";
  std::string joined;
  for (absl::string_view rest = text; !rest.empty();) {
    const auto piece = FirstPiece(rest, 7);
    ASSERT_FALSE(piece.empty());
    EXPECT_FALSE(FindInvalidUtf8(piece).has_value());
    joined += std::string(piece);
    rest.remove_prefix(piece.size());
  }
  EXPECT_EQ(joined, text);
}

TEST(Pieces, TheFirstInvalidByteIsFound) {
  EXPECT_EQ(FindInvalidUtf8(""), std::nullopt);
  EXPECT_EQ(FindInvalidUtf8("caf\u00e9 \U0001F30D"), std::nullopt);
  EXPECT_EQ(FindInvalidUtf8("ab\xff"), 2u);
  EXPECT_EQ(FindInvalidUtf8("ab\xc3"), 2u);            // cut off
  EXPECT_EQ(FindInvalidUtf8("a\xc0\x80"), 1u);         // overlong
  EXPECT_EQ(FindInvalidUtf8("\xc0\x80"), 0u);          // overlong
  EXPECT_EQ(FindInvalidUtf8("a\xed\xa0\x80"), 1u);     // surrogate
  EXPECT_EQ(FindInvalidUtf8("\xf4\x90\x80\x80"), 0u);  // beyond U+10FFFF
}

TEST(Horizon, ShowsTheOldestWordsThatAreSeen) {
  Horizon horizon;
  horizon.Add(10, "one ");
  horizon.Add(20, "two\n");
  horizon.Add(30, "three");
  horizon.Forget(15);
  EXPECT_EQ(horizon.Words(), "two three");
}

TEST(Horizon, TellsOnceThatItMoved) {
  Horizon horizon;
  EXPECT_FALSE(horizon.TakeMoved());
  horizon.Forget(5);
  EXPECT_TRUE(horizon.TakeMoved());
  EXPECT_FALSE(horizon.TakeMoved());
}

TEST(Horizon, WordsAreShort) {
  Horizon horizon;
  horizon.Add(0, std::string(1000, 'x'));
  EXPECT_EQ(horizon.Words().size(), 32u);
}

}  // namespace
}  // namespace millrace::cli
