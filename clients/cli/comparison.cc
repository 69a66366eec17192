#include "clients/cli/comparison.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"

namespace millrace::cli {

void VisibleTrace::Note(const v1::ScoreResponse& event) {
  if (event.has_cache_update()) {
    const v1::CacheUpdate& update = event.cache_update();
    evicted_ = update.total_evicted_tokens();
    points_.push_back({update.text_position(), update.visible_tokens()});
    read_ = 0;  // the chunk before it is part of what it tells
    return;
  }
  if (event.has_finished()) {
    const v1::Usage& usage = event.finished().usage();
    points_.push_back({usage.text_position(), usage.visible_tokens()});
    return;
  }
  if (!event.has_chunk()) return;
  // A chunk that no update has followed evicted nothing.
  if (read_ > 0) points_.push_back({read_, read_ - evicted_});
  // The row of a token scores the one after it.
  read_ =
      event.chunk().first_position() + event.chunk().log_likelihoods_size() - 1;
}

uint64_t VisibleTrace::At(uint64_t position) const {
  const auto after = std::lower_bound(
      points_.begin(), points_.end(), position,
      [](const Point& point, uint64_t p) { return point.position < p; });
  if (after == points_.end()) return points_.back().visible;
  if (after->position == position) return after->visible;
  const Point& before = *std::prev(after);
  const double share = static_cast<double>(position - before.position) /
                       static_cast<double>(after->position - before.position);
  const double visible = static_cast<double>(before.visible);
  return static_cast<uint64_t>(std::llround(
      visible + share * (static_cast<double>(after->visible) - visible)));
}

uint64_t CommonTokens(const Comparison& comparison) {
  uint64_t common = comparison.tokens;
  for (const Contender& c : comparison.contenders) {
    common = std::min(common, c.scored.tokens);
  }
  return common;
}

double PerplexityOfFirst(const Contender& contender, uint64_t tokens) {
  // Token 0 has no value.
  const size_t values =
      std::min<size_t>(contender.nll.size(), tokens > 0 ? tokens - 1 : 0);
  if (values == 0) return 1;
  const double sum = std::accumulate(contender.nll.begin(),
                                     contender.nll.begin() + values, 0.0);
  return std::exp(sum / static_cast<double>(values));
}

double Bucket::perplexity() const { return std::exp(mean_nll); }

uint64_t BucketTokens(uint64_t tokens) {
  constexpr uint64_t kSmallest = 64, kMostBuckets = 24;
  uint64_t width = kSmallest;
  while (tokens > width * kMostBuckets) width *= 2;
  return width;
}

std::vector<Bucket> Buckets(const Comparison& comparison,
                            const Contender& contender) {
  std::vector<Bucket> buckets;
  const uint64_t reached = contender.nll.size() + 1;
  const uint64_t width = comparison.bucket_tokens;
  // Nothing comes before token 0, which has no value.
  for (uint64_t first = 0; std::max<uint64_t>(first, 1) < reached;
       first += width) {
    Bucket bucket{.first = first, .end = std::min(first + width, reached)};
    double sum = 0;
    const uint64_t scored = std::max<uint64_t>(first, 1);
    for (uint64_t p = scored; p < bucket.end; ++p) sum += contender.nll[p - 1];
    if (bucket.end == scored) continue;
    bucket.mean_nll = sum / static_cast<double>(bucket.end - scored);
    bucket.visible = contender.visible.At(bucket.end);
    buckets.push_back(bucket);
  }
  return buckets;
}

uint64_t KvBytes(const Comparison& comparison, const Contender& contender) {
  return contender.scored.peak_resident_tokens * comparison.kv_bytes_per_token;
}

std::vector<std::string> DefaultPolicies(
    const v1::GetServerInfoResponse& server, const v1::ModelInfo& model) {
  constexpr uint64_t kTokens = 1024, kFewest = 16, kSinks = 4;
  uint64_t cache =
      std::min<uint64_t>(kTokens, model.trained_context_tokens() / 8);
  if (model.kv_bytes_per_token() > 0) {
    cache = std::min(cache, server.limits().session_kv_memory_bytes() /
                                model.kv_bytes_per_token() / 2);
  }
  cache = std::max(cache, kFewest);
  // Each sees `cache` tokens, the newest included.
  const std::pair<std::string, std::string> wanted[] = {
      {"full", "full"},
      {"window", absl::StrCat("window:window_tokens=", cache - 1)},
      {"sinks", absl::StrCat("sinks:sink_tokens=", kSinks,
                             ",window_tokens=", cache - kSinks - 1)}};
  std::vector<std::string> policies;
  for (const auto& [name, text] : wanted) {
    for (const v1::PolicyInfo& policy : server.policies()) {
      if (policy.name() == name && policy.supported()) policies.push_back(text);
    }
  }
  return policies;
}

}  // namespace millrace::cli
