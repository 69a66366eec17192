#include "services/auth/bearer_token.h"

#include <gtest/gtest.h>

#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace millrace::auth {
namespace {

constexpr char kSecret[] = "0123456789abcdef";

std::string FileWith(const std::string& text) {
  const std::string path = absl::StrCat(testing::TempDir(), "/token");
  std::ofstream(path) << text;
  return path;
}

TEST(BearerToken, LetsInWhoKnowsIt) {
  const auto token = BearerToken::FromString(kSecret);
  ASSERT_TRUE(token.ok());
  EXPECT_TRUE(token->Matches("Bearer 0123456789abcdef"));
  EXPECT_TRUE(token->Matches("bearer 0123456789abcdef"));
}

TEST(BearerToken, LetsInNobodyElse) {
  const auto token = BearerToken::FromString(kSecret);
  ASSERT_TRUE(token.ok());
  for (const char* wrong :
       {"", "Bearer ", "0123456789abcdef", "Bearer 0123456789abcdeF",
        "Bearer 0123456789abcde", "Bearer 0123456789abcdef ",
        "Basic 0123456789abcdef"}) {
    EXPECT_FALSE(token->Matches(wrong)) << wrong;
  }
}

TEST(BearerToken, FileMayEndInANewline) {
  const auto token =
      BearerToken::FromFile(FileWith(absl::StrCat(kSecret, "\n")));
  ASSERT_TRUE(token.ok()) << token.status();
  EXPECT_TRUE(token->Matches("Bearer 0123456789abcdef"));
}

TEST(BearerToken, RefusesWeakAndStrangeFilesWithoutShowingThem) {
  for (const std::string& text :
       {std::string("short"), std::string("has spaces in the middle"),
        std::string(5000, 'x'), std::string("\xff\xfe binary secret!!")}) {
    const auto token = BearerToken::FromFile(FileWith(text));
    ASSERT_FALSE(token.ok()) << text;
    EXPECT_FALSE(absl::StrContains(token.status().message(), text));
    EXPECT_TRUE(absl::StrContains(token.status().message(), "/token"));
  }
}

TEST(BearerToken, NamesTheFileThatIsMissing) {
  const auto token = BearerToken::FromFile("/nonexistent/token");
  ASSERT_FALSE(token.ok());
  EXPECT_TRUE(
      absl::StrContains(token.status().message(), "/nonexistent/token"));
}

}  // namespace
}  // namespace millrace::auth
