// ScoreInput is the text that `score` and `compare` hand to the server.
//
//   auto input = ScoreInput::FirstTokens(client, text, 4096);
//   client.Score(setup, input->Pieces(), on_event);   // as often as wanted
//
// Not thread-safe while it is made; read-only afterwards.
#ifndef MILLRACE_CLIENTS_CLI_SCORE_INPUT_H_
#define MILLRACE_CLIENTS_CLI_SCORE_INPUT_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "clients/cpp/client.h"

namespace millrace::cli {

class ScoreInput {
 public:
  // The most bytes of text that are tokenised in one request.
  static constexpr size_t kMaxTokenizedBytes = size_t{3} << 20;

  // All of the text, of any length; the server cuts it to tokens.
  static ScoreInput Text(std::string text);

  // The first `count` tokens, fewer if the text has no more.
  // INVALID_ARGUMENT if so many do not fit into one request.
  static absl::StatusOr<ScoreInput> FirstTokens(client::Client& client,
                                                absl::string_view text,
                                                uint64_t count);

  // Each call starts at the front. The input outlives what it returns.
  std::function<std::optional<v1::Input>()> Pieces() const;

  // nullopt if only the server knows.
  std::optional<uint64_t> tokens() const { return tokens_; }

 private:
  std::string text_;
  std::vector<uint32_t> ids_;
  std::optional<uint64_t> tokens_;
};

}  // namespace millrace::cli

#endif  // MILLRACE_CLIENTS_CLI_SCORE_INPUT_H_
