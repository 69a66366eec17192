#include "services/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_split.h"
#include "tests/services/text/reference_tokenizer.h"
#include "tests/testing/test_files.h"
#include "tests/testing/tiny_tokenizer.h"

namespace millrace::text {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// In TinyTokenizer.
constexpr int32_t kImStart = 1, kImEnd = 2;
int32_t Byte(char c) { return 3 + static_cast<uint8_t>(c); }

std::string Sha256(const std::vector<int32_t>& ids, size_t begin, size_t end) {
  std::string bytes;
  for (size_t i = begin; i < end; ++i) {
    bytes += static_cast<char>(ids[i] & 0xFF);
    bytes += static_cast<char>(ids[i] >> 8);
  }
  unsigned char hash[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         hash);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<char*>(hash), sizeof(hash)));
}

TEST(ReferenceTokenizer, OddTextHasTheReferenceIds) {
  SKIP_WITHOUT_MODEL();
  const auto expected =
      nlohmann::json::parse(testing::TestData("reference/odd_text.ids.json"));
  const std::vector<int32_t> ids =
      expected.is_array() ? expected : expected.at("ids");
  EXPECT_EQ(
      ReferenceTokenizer()->Encode(testing::TestData("reference/odd_text.txt"),
                                   SpecialTokens::kAsText),
      ids);
}

TEST(ReferenceTokenizer, TheWholeNovelHasTheReferenceIds) {
  SKIP_WITHOUT_MODEL();
  const std::vector<int32_t> ids = ReferenceTokenizer()->Encode(
      testing::TestData("war_and_peace.txt.xz"), SpecialTokens::kAsText);
  EXPECT_EQ(ids.size(), 766940u);
  const std::string hashes =
      testing::TestData("reference/war_and_peace.ids.sha256");
  size_t begin = 0;
  for (absl::string_view hash :
       absl::StrSplit(hashes, '\n', absl::SkipEmpty())) {
    const size_t end = std::min(begin + 4096, ids.size());
    ASSERT_EQ(Sha256(ids, begin, end), hash) << "ids from " << begin;
    begin = end;
  }
  EXPECT_EQ(begin, ids.size());
}

TEST(ReferenceTokenizer, DecodingTheIdsGivesTheText) {
  SKIP_WITHOUT_MODEL();
  const std::string text = testing::TestData("reference/odd_text.txt");
  EXPECT_EQ(ReferenceTokenizer()->Decode(
                ReferenceTokenizer()->Encode(text, SpecialTokens::kAsText),
                SpecialTokens::kAsText),
            text);
}

TEST(Tokenizer, MergesWhatWasLearntFirst) {
  const auto tokenizer = testing::TinyTokenizer();
  const auto ids = tokenizer->Encode("the hello", SpecialTokens::kAsText);
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(tokenizer->TokenBytes(ids[0]), "the");
  EXPECT_EQ(tokenizer->TokenBytes(ids[1]), " hello");
}

TEST(Tokenizer, BytesThatNoMergeKnowsStandForThemselves) {
  const auto tokenizer = testing::TinyTokenizer();
  EXPECT_THAT(tokenizer->Encode("\u00e9", SpecialTokens::kAsText),
              ElementsAre(Byte('\xC3'), Byte('\xA9')));
}

TEST(Tokenizer, EmptyTextHasNoTokens) {
  EXPECT_THAT(testing::TinyTokenizer()->Encode("", SpecialTokens::kAsText),
              IsEmpty());
}

TEST(Tokenizer, SpecialTokensAreTextUnlessParsed) {
  const auto tokenizer = testing::TinyTokenizer();
  EXPECT_THAT(tokenizer->Encode("<|im_end|>", SpecialTokens::kParsed),
              ElementsAre(kImEnd));
  const auto as_text = tokenizer->Encode("<|im_end|>", SpecialTokens::kAsText);
  EXPECT_THAT(as_text, ::testing::Not(::testing::Contains(kImEnd)));
  EXPECT_EQ(tokenizer->Decode(as_text, SpecialTokens::kAsText), "<|im_end|>");
}

TEST(Tokenizer, SpecialTokensAreSpeltOnlyIfAskedFor) {
  const auto tokenizer = testing::TinyTokenizer();
  const std::vector<int32_t> ids = {kImStart, Byte('a'), kImEnd};
  EXPECT_EQ(tokenizer->Decode(ids, SpecialTokens::kAsText), "a");
  EXPECT_EQ(tokenizer->Decode(ids, SpecialTokens::kParsed),
            "<|im_start|>a<|im_end|>");
  EXPECT_EQ(tokenizer->TokenBytes(kImEnd), "");
}

TEST(Tokenizer, EndsOfTurnAreKnownByIdAndByName) {
  const auto tokenizer = testing::TinyTokenizer();
  EXPECT_TRUE(tokenizer->IsEndOfTurn(kImEnd));
  EXPECT_TRUE(tokenizer->IsEndOfTurn(0));  // <|endoftext|>
  EXPECT_FALSE(tokenizer->IsEndOfTurn(kImStart));
}

TEST(Tokenizer, BrokenBytesDecodeToReplacementCharacters) {
  EXPECT_EQ(testing::TinyTokenizer()->Decode({Byte('\xC3'), Byte('a')},
                                             SpecialTokens::kAsText),
            "\uFFFD"
            "a");
}

TEST(Tokenizer, PrefixIsWhatTheModelAsksFor) {
  auto metadata = testing::TinyTokenizerMetadata();
  EXPECT_THAT((*Tokenizer::Create(metadata))->text_prefix(), IsEmpty());
  metadata.bos_id = 1;
  metadata.add_bos = true;
  EXPECT_THAT((*Tokenizer::Create(metadata))->text_prefix(), ElementsAre(1));
}

TEST(Tokenizer, ASinkTokenStandsBeforeTheBeginningOfText) {
  auto metadata = testing::TinyTokenizerMetadata();
  metadata.sink_id = 7;
  EXPECT_THAT((*Tokenizer::Create(metadata))->text_prefix(), ElementsAre(7));
  metadata.bos_id = 1;
  metadata.add_bos = true;
  const auto tokenizer = *Tokenizer::Create(metadata);
  EXPECT_THAT(tokenizer->text_prefix(), ElementsAre(7, 1));
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_THAT(tokenizer->Encode("a", SpecialTokens::kAsText),
              ElementsAre(Byte('a')));
}

TEST(Tokenizer, ASinkTokenThatIsAskedForTakesThePlaceOfTheFiles) {
  auto metadata = testing::TinyTokenizerMetadata();
  EXPECT_EQ((*Tokenizer::Create(metadata))->sink_id(), std::nullopt);
  EXPECT_EQ((*Tokenizer::Create(metadata, 0))->sink_id(), 0);
  metadata.sink_id = 7;
  EXPECT_THAT((*Tokenizer::Create(metadata, 9))->text_prefix(), ElementsAre(9));
}

TEST(Tokenizer, AMegabyteOfOneLetterTakesNoLongTime) {
  auto metadata = testing::TinyTokenizerMetadata();
  metadata.tokens.push_back("aa");
  metadata.token_types.push_back(backends::TokenType::kNormal);
  metadata.merges.push_back("a a");
  const auto tokenizer = Tokenizer::Create(metadata);
  ASSERT_TRUE(tokenizer.ok());
  // Quadratic merging would take hours here.
  const auto ids =
      (*tokenizer)->Encode(std::string(1'000'000, 'a'), SpecialTokens::kAsText);
  EXPECT_EQ(ids.size(), 500'000u);
}

TEST(Tokenizer, LongAndShortPiecesAreMergedAlike) {
  const auto tokenizer = testing::TinyTokenizer();
  std::string word;
  for (int i = 0; i < 20; ++i) word += "thehelloingrivers";
  const auto ids = tokenizer->Encode(word, SpecialTokens::kAsText);
  const auto once =
      tokenizer->Encode("thehelloingrivers", SpecialTokens::kAsText);
  std::vector<int32_t> repeated;
  for (int i = 0; i < 20; ++i) {
    repeated.insert(repeated.end(), once.begin(), once.end());
  }
  EXPECT_EQ(ids, repeated);
}

TEST(Tokenizer, UnknownKindsAreRefusedByName) {
  auto metadata = testing::TinyTokenizerMetadata();
  metadata.model = "llama";
  EXPECT_THAT(Tokenizer::Create(metadata).status().message(),
              HasSubstr("'llama' is not there; there is gpt2"));
  metadata.model = "gpt2";
  metadata.pre_tokenizer = "klingon";
  EXPECT_THAT(Tokenizer::Create(metadata).status().message(),
              HasSubstr("'klingon' is not there; there are smollm, gpt-2"));
}

TEST(Tokenizer, AByteWithoutATokenIsLeftOut) {
  auto metadata = testing::TinyTokenizerMetadata();
  metadata.tokens[3 + 'q'] = "qq";
  const auto tokenizer = Tokenizer::Create(metadata);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT((*tokenizer)->Encode("aqb", SpecialTokens::kAsText),
              ElementsAre(Byte('a'), Byte('b')));
  EXPECT_EQ(
      (*tokenizer)->Encode(std::string(50, 'q') + "b", SpecialTokens::kAsText),
      std::vector<int32_t>{Byte('b')});
}

TEST(Tokenizer, AMergeOfMissingTokensIsRefused) {
  auto metadata = testing::TinyTokenizerMetadata();
  metadata.merges.push_back("x yz");
  EXPECT_THAT(Tokenizer::Create(metadata).status().message(),
              HasSubstr("merge 16 'x yz' names a token that is missing"));
}

// Without merges a token is a byte, so pieces are told by LastSafeCut.
TEST(PreTokenizers, CutsAreSafeWhereNoTextToComeCanMoveThem) {
  auto metadata = testing::TinyTokenizerMetadata();
  for (const auto& [name, text, cut] :
       std::vector<std::tuple<std::string, std::string, size_t>>{
           {"smollm", "hello", 0},  // could go on
           {"smollm", "hello ", 5},
           {"smollm", "hello  ", 5},  // the last space may join a word
           {"smollm", "it'", 2},      // 's, 't, 're ...
           {"smollm", "it'r", 2},
           {"smollm", "12", 2},        // a digit stands for itself ...
           {"gpt-2", "12", 0},         // ... or goes on
           {"llama-bpe", "a \n ", 1},  // more line ends may join
       }) {
    metadata.pre_tokenizer = name;
    const auto tokenizer = Tokenizer::Create(metadata);
    ASSERT_TRUE(tokenizer.ok());
    EXPECT_EQ((*tokenizer)->LastSafeCut(text, SpecialTokens::kAsText), cut)
        << name << " '" << text << "'";
  }
}

}  // namespace
}  // namespace millrace::text
