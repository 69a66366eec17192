#include "services/text/tokenizer.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/text/byte_alphabet.h"
#include "services/text/byte_pair_merger.h"
#include "services/text/pre_tokenizer.h"
#include "services/text/special_tokens.h"
#include "services/text/utf8_assembler.h"

namespace millrace::text {
namespace {

using backends::TokenizerMetadata;
using backends::TokenType;

// Tokens that end a turn, whether the file says so or not: by these names the
// chat formats in use know them.
constexpr absl::string_view kEndOfTurnSpellings[] = {
    "<|im_end|>",    "<|eot_id|>",    "<|end_of_text|>",
    "<|endoftext|>", "<end_of_turn>", "<|end|>",
    "</s>",
};

class BytePairTokenizer final : public Tokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Create(
      const TokenizerMetadata& metadata, std::optional<int32_t> sink_id);

  std::vector<int32_t> Encode(absl::string_view text,
                              SpecialTokens special) const override;
  absl::string_view TokenBytes(int32_t id) const override { return bytes_[id]; }
  std::string Decode(absl::Span<const int32_t> ids,
                     SpecialTokens special) const override;
  absl::string_view Spelling(int32_t id) const override {
    return IsSpecial(id) ? spellings_[id] : bytes_[id];
  }
  std::optional<int32_t> FindSpecial(
      absl::string_view spelling) const override {
    return special_.Id(spelling);
  }
  std::optional<SpecialMatch> FirstSpecial(
      absl::string_view text) const override {
    return special_.First(text);
  }
  bool IsSpecial(int32_t id) const override {
    return types_[id] == TokenType::kControl ||
           types_[id] == TokenType::kUnknown;
  }
  bool IsEndOfTurn(int32_t id) const override {
    return std::binary_search(end_of_turn_.begin(), end_of_turn_.end(), id);
  }
  const std::vector<int32_t>& end_of_turn_ids() const override {
    return end_of_turn_;
  }
  int32_t vocabulary_size() const override {
    return static_cast<int32_t>(bytes_.size());
  }
  std::optional<int32_t> sink_id() const override { return sink_; }
  std::optional<int32_t> bos_id() const override { return bos_; }
  size_t LastSafeCut(absl::string_view text,
                     SpecialTokens special) const override;

 private:
  BytePairTokenizer(const TokenizerMetadata& metadata,
                    std::unique_ptr<const PreTokenizer> pre_tokenizer,
                    BytePairMerger merger)
      : pre_tokenizer_(std::move(pre_tokenizer)),
        merger_(std::move(merger)),
        // Llama 3 takes a piece that is a token as it is.
        whole_pieces_(metadata.pre_tokenizer == "llama-bpe") {}

  absl::Status AddTokens(const TokenizerMetadata& metadata);
  void AddEndOfTurn(const TokenizerMetadata& metadata);
  void EncodePlain(absl::string_view text, std::vector<int32_t>& ids) const;

  const std::unique_ptr<const PreTokenizer> pre_tokenizer_;
  const BytePairMerger merger_;
  const bool whole_pieces_;
  std::vector<std::string> bytes_;      // by id; empty for special tokens
  std::vector<std::string> spellings_;  // by id; of special tokens
  std::vector<TokenType> types_;        // by id
  absl::flat_hash_map<std::string, int32_t> ids_;  // by bytes
  SpecialTokenFinder special_;
  std::vector<int32_t> end_of_turn_;   // ascending
  std::optional<int32_t> sink_, bos_;  // bos_: where a text starts with it
};

using TokenIds = absl::flat_hash_map<absl::string_view, int32_t>;

// Vocabularies leave out bytes that no text of their training had.
std::array<int32_t, 256> ByteIds(const TokenIds& ids) {
  std::array<int32_t, 256> byte_ids;
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids.find(CharacterOf(static_cast<uint8_t>(byte)));
    byte_ids[byte] =
        found == ids.end() ? BytePairMerger::kNoToken : found->second;
  }
  return byte_ids;
}

absl::StatusOr<BytePairMerger> MakeMerger(const TokenizerMetadata& metadata) {
  TokenIds ids;
  for (size_t i = 0; i < metadata.tokens.size(); ++i) {
    ids.emplace(metadata.tokens[i], static_cast<int32_t>(i));
  }
  BytePairMerger merger(ByteIds(ids));
  for (size_t rank = 0; rank < metadata.merges.size(); ++rank) {
    const std::pair<absl::string_view, absl::string_view> sides =
        absl::StrSplit(metadata.merges[rank], absl::MaxSplits(' ', 1));
    const auto left = ids.find(sides.first), right = ids.find(sides.second);
    const auto merged = ids.find(absl::StrCat(sides.first, sides.second));
    if (left == ids.end() || right == ids.end() || merged == ids.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer: merge ", rank, " '", metadata.merges[rank],
                       "' names a token that is missing"));
    }
    merger.Add(left->second, right->second,
               {static_cast<int32_t>(rank), merged->second});
  }
  return merger;
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> BytePairTokenizer::Create(
    const TokenizerMetadata& metadata, std::optional<int32_t> sink_id) {
  auto pre_tokenizer = PreTokenizer::Create(metadata.pre_tokenizer);
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  auto merger = MakeMerger(metadata);
  if (!merger.ok()) return merger.status();
  auto tokenizer = std::unique_ptr<BytePairTokenizer>(new BytePairTokenizer(
      metadata, *std::move(pre_tokenizer), *std::move(merger)));
  const absl::Status added = tokenizer->AddTokens(metadata);
  if (!added.ok()) return added;
  tokenizer->AddEndOfTurn(metadata);
  tokenizer->sink_ = sink_id.has_value() ? sink_id : metadata.sink_id;
  if (metadata.add_bos) tokenizer->bos_ = metadata.bos_id;
  return tokenizer;
}

absl::Status BytePairTokenizer::AddTokens(const TokenizerMetadata& metadata) {
  types_ = metadata.token_types;
  bytes_.resize(metadata.tokens.size());
  spellings_.resize(metadata.tokens.size());
  for (size_t i = 0; i < metadata.tokens.size(); ++i) {
    const std::string& token = metadata.tokens[i];
    const auto id = static_cast<int32_t>(i);
    if (IsSpecial(id)) {
      spellings_[i] = token;
      if (!token.empty()) special_.Add(token, id);
      continue;
    }
    if (types_[i] == TokenType::kUserDefined) {
      bytes_[i] = token;
      if (!token.empty()) special_.Add(token, id);
      continue;
    }
    const auto bytes = BytesOf(token);
    if (!bytes.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer: token ", i,
                       " has characters outside the "
                       "byte alphabet"));
    }
    bytes_[i] = *bytes;
    ids_.emplace(*bytes, id);
  }
  return absl::OkStatus();
}

void BytePairTokenizer::AddEndOfTurn(const TokenizerMetadata& metadata) {
  end_of_turn_ = metadata.end_of_turn_ids;
  if (metadata.eos_id.has_value()) end_of_turn_.push_back(*metadata.eos_id);
  for (absl::string_view spelling : kEndOfTurnSpellings) {
    const auto id = special_.Id(spelling);
    if (id.has_value() && IsSpecial(*id)) end_of_turn_.push_back(*id);
  }
  std::sort(end_of_turn_.begin(), end_of_turn_.end());
  end_of_turn_.erase(std::unique(end_of_turn_.begin(), end_of_turn_.end()),
                     end_of_turn_.end());
}

void BytePairTokenizer::EncodePlain(absl::string_view text,
                                    std::vector<int32_t>& ids) const {
  pre_tokenizer_->ForEach(text, [&](absl::string_view piece) {
    if (whole_pieces_) {
      const auto whole = ids_.find(piece);
      if (whole != ids_.end()) return ids.push_back(whole->second);
    }
    merger_.Encode(piece, ids);
  });
}

std::vector<int32_t> BytePairTokenizer::Encode(absl::string_view text,
                                               SpecialTokens special) const {
  std::vector<int32_t> ids;
  if (special == SpecialTokens::kParsed) {
    while (const auto found = special_.First(text)) {
      EncodePlain(text.substr(0, found->begin), ids);
      ids.push_back(found->id);
      text.remove_prefix(found->end);
    }
  }
  EncodePlain(text, ids);
  return ids;
}

std::string BytePairTokenizer::Decode(absl::Span<const int32_t> ids,
                                      SpecialTokens special) const {
  Utf8Assembler assembler;
  std::string text;
  for (const int32_t id : ids) {
    if (!IsSpecial(id)) {
      text += assembler.Add(bytes_[id]);
    } else if (special == SpecialTokens::kParsed) {
      text += assembler.Finish();
      text += spellings_[id];
    }
  }
  return text + assembler.Finish();
}

size_t BytePairTokenizer::LastSafeCut(absl::string_view text,
                                      SpecialTokens special) const {
  size_t begin = 0, end = text.size();
  if (special == SpecialTokens::kParsed) {
    while (const auto found = special_.First(text, begin)) begin = found->end;
    end = special_.UnfinishedAt(text.substr(begin)) + begin;
  }
  const size_t stable =
      begin + pre_tokenizer_->LastStableBoundary(text.substr(begin));
  return std::max(begin, std::min(stable, end));
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Create(
    const TokenizerMetadata& metadata, std::optional<int32_t> sink_id) {
  if (metadata.model != "gpt2") {
    return absl::UnimplementedError(
        absl::StrCat("tokenizer '", metadata.model,
                     "' is not there; there is gpt2 (byte-level BPE)"));
  }
  if (metadata.add_space_prefix) {
    return absl::UnimplementedError(
        "tokenizer: add_space_prefix is not there for byte-level BPE");
  }
  return BytePairTokenizer::Create(metadata, sink_id);
}

std::vector<int32_t> Tokenizer::text_prefix() const {
  std::vector<int32_t> prefix;
  for (const std::optional<int32_t> id : {sink_id(), bos_id()}) {
    if (id.has_value()) prefix.push_back(*id);
  }
  return prefix;
}

}  // namespace millrace::text
