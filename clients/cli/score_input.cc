#include "clients/cli/score_input.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cli/pieces.h"

namespace millrace::cli {
namespace {

constexpr size_t kPieceBytes = 64 << 10;
// Longer than the context of most models: a text that is too long for a policy
// that never evicts is refused before any of it is computed.
constexpr size_t kPieceTokens = 256 << 10;

// Where a text is cut changes the tokens near the cut, so a margin is tokenised
// with those that are wanted.
constexpr uint64_t kMarginTokens = 64;

// Tokens are seldom longer than this.
size_t BytesToTry(uint64_t tokens) {
  constexpr uint64_t kMax = ScoreInput::kMaxTokenizedBytes;
  return std::min(6 * std::min(tokens, kMax) + 4096, kMax);
}

}  // namespace

ScoreInput ScoreInput::Text(std::string text) {
  ScoreInput input;
  input.text_ = std::move(text);
  return input;
}

absl::StatusOr<ScoreInput> ScoreInput::FirstTokens(client::Client& client,
                                                   absl::string_view text,
                                                   uint64_t count) {
  const auto model = client.GetModelInfo();
  if (!model.ok()) return model.status();
  // Score puts the sink and beginning-of-text tokens in front itself.
  const v1::TokenizerInfo& tokenizer = model->model().tokenizer();
  const uint64_t given = uint64_t{tokenizer.has_sink_token_id()} +
                         uint64_t{tokenizer.adds_beginning_of_text()};
  size_t bytes = BytesToTry(count);
  while (true) {
    v1::TokenizeRequest request;
    const auto piece = FirstPiece(text, bytes);
    request.add_inputs()->set_text(std::string(piece));
    const auto response = client.Tokenize(request);
    if (!response.ok()) return response.status();
    const uint64_t got = response->token_ids_size();
    const bool enough = got >= kMarginTokens && got - kMarginTokens >= count;
    if (enough || piece.size() == text.size()) {
      ScoreInput input;
      input.tokens_ = std::min(got, count);
      const auto& ids = response->token_ids();
      input.ids_.assign(ids.begin() + std::min(given, *input.tokens_),
                        ids.begin() + *input.tokens_);
      return input;
    }
    if (bytes == kMaxTokenizedBytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--max_input_tokens=", count, " is more than ", got,
          ", which is what fits into one request; leave it out to score the "
          "whole text"));
    }
    bytes = std::min(2 * bytes, kMaxTokenizedBytes);
  }
}

std::function<std::optional<v1::Input>()> ScoreInput::Pieces() const {
  return [this, at = size_t{0}]() mutable -> std::optional<v1::Input> {
    v1::Input input;
    if (at < ids_.size()) {
      const size_t end = std::min(at + kPieceTokens, ids_.size());
      for (; at < end; ++at) input.mutable_token_ids()->add_ids(ids_[at]);
      return input;
    }
    if (at >= text_.size()) return std::nullopt;
    const auto piece =
        FirstPiece(absl::string_view(text_).substr(at), kPieceBytes);
    at += piece.size();
    input.set_text(std::string(piece));
    return input;
  };
}

}  // namespace millrace::cli
