// A comparison: one text scored under several cache policies, by text position.
//
//   Comparison comparison = ...;                  // a Contender per policy
//   comparison.bucket_tokens = BucketTokens(4096);              // 256
//   for (const Bucket& b : Buckets(comparison, contender)) ...  // 16 of them
//
// Knows no connection and no terminal. Not thread-safe.
#ifndef MILLRACE_CLIENTS_CLI_COMPARISON_H_
#define MILLRACE_CLIENTS_CLI_COMPARISON_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "clients/cli/scoring.h"
#include "millrace/v1/control.pb.h"
#include "millrace/v1/inference.pb.h"
#include "millrace/v1/model_info.pb.h"

namespace millrace::cli {

// How many tokens the newest token sees, along a text: linear between points.
class VisibleTrace {
 public:
  struct Point {
    uint64_t position = 0;  // tokens of the text so far
    uint64_t visible = 0;
  };

  // Every event of a Score whose `per_token` is true and whose
  // `cache_update_interval_tokens` is 1, in order.
  void Note(const v1::ScoreResponse& event);

  // REQUIRES: no event is outstanding.
  uint64_t At(uint64_t position) const;
  const std::vector<Point>& points() const { return points_; }

 private:
  std::vector<Point> points_ = {{0, 0}};
  uint64_t evicted_ = 0;
  uint64_t read_ = 0;  // as far as the last chunk tells
};

// Why a policy did not read the whole text.
struct Ending {
  std::string reason;   // "CACHE_FULL"
  std::string message;  // the server's
};

// How one policy fared.
struct Contender {
  std::string policy;  // as it was asked for
  Scored scored;
  std::vector<float> nll;  // of tokens 1, 2, ...
  VisibleTrace visible;
  std::optional<Ending> ended;

  bool forgot_something() const {
    return scored.visible_tokens < scored.tokens;
  }
};

struct Comparison {
  std::string text_name;
  std::string model;
  uint64_t tokens = 0;
  uint64_t bucket_tokens = 0;
  uint64_t kv_bytes_per_token = 0;
  std::vector<Contender> contenders;
};

// The tokens that every policy has read.
uint64_t CommonTokens(const Comparison& comparison);

// Over the first `tokens` tokens; 1 if none of them has a value.
double PerplexityOfFirst(const Contender& contender, uint64_t tokens);

// Tokens first .. end - 1 of a text.
struct Bucket {
  uint64_t first = 0, end = 0;
  double mean_nll = 0;   // nats
  uint64_t visible = 0;  // to the last of them

  double perplexity() const;
};

// A power of two, at least 64, that makes at most 24 buckets of a text.
uint64_t BucketTokens(uint64_t tokens);

// Those that the policy has reached; the last one may be shorter, none is
// without a scored token. REQUIRES: bucket_tokens > 0.
std::vector<Bucket> Buckets(const Comparison& comparison,
                            const Contender& contender);

// K/V memory of the tokens held at the worst moment.
uint64_t KvBytes(const Comparison& comparison, const Contender& contender);

// Of `full`, `window` and `sinks` those that the server has: the latter two
// with a cache of 1,024 tokens, less where the model's trained context is below
// 8,192 (an eighth of it) or the memory of a request holds fewer than twice as
// many (half of them), and never below 16.
std::vector<std::string> DefaultPolicies(
    const v1::GetServerInfoResponse& server, const v1::ModelInfo& model);

}  // namespace millrace::cli

#endif  // MILLRACE_CLIENTS_CLI_COMPARISON_H_
