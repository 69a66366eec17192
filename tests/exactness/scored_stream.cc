#include "tests/exactness/scored_stream.h"

#include <algorithm>
#include <optional>

namespace millrace::testing {
namespace {

// The first `tokens` numbers of each head.
template <class T>
ByHead<T> FirstOf(const cache::HeadTable<T>& table, int64_t tokens) {
  ByHead<T> all(table.num_layers());
  for (int layer = 0; layer < table.num_layers(); ++layer) {
    for (int head = 0; head < table.num_kv_heads(); ++head) {
      const auto at = table.At(layer, head).first(tokens);
      all[layer].emplace_back(at.begin(), at.end());
    }
  }
  return all;
}

// Where the input ends that position `next` is in; `next`: it is written.
int64_t InputEnd(absl::Span<const Input> inputs, int64_t next) {
  for (const Input& input : inputs) {
    if (next >= input.begin && next < input.end) return input.end;
  }
  return next;
}

}  // namespace

ScoredStream ReadScored(ModelRunner& runner, cache::SequenceId id,
                        absl::Span<const int32_t> text,
                        absl::Span<const Input> inputs, int chunk) {
  cache::CacheManager& manager = runner.manager();
  ScoredStream out;
  const cache::HeadTable<float>* table = nullptr;
  int64_t dropped = 0;
  for (auto next = manager.Length(id); next < std::ssize(text);) {
    const int64_t end = InputEnd(inputs, next);
    manager.SetInputEnd(id, end);
    const int64_t rows =
        end == next
            ? 1
            : std::min({int64_t{chunk}, manager.MaxChunk(id), end - next});
    StreamedCut cut{.length = next, .sums = {}, .kept = {}};
    if (table != nullptr) cut.sums = FirstOf(*table, next - dropped);
    const cache::KvView view = manager.Reserve(id, rows).value();
    if (view.row_offset > dropped) {
      dropped = view.row_offset;
      if (view.key_positions != nullptr) {
        cut.kept = FirstOf(*view.key_positions, next - dropped);
      }
      out.cuts.push_back(std::move(cut));
    }
    if (view.attention.has_value()) table = view.attention->sums;
    out.farthest = std::max(out.farthest, next + rows - 1 - dropped);
    const std::vector<int32_t> ids(text.begin() + next,
                                   text.begin() + next + rows);
    const Rows logits =
        runner.Forward({.chunks = {{.token_ids = ids,
                                    .first_position = next,
                                    .view = &view,
                                    .num_logits = static_cast<int>(rows)}}});
    out.logits.insert(out.logits.end(), logits.begin(), logits.end());
    manager.Commit(id);
    next += rows;
  }
  return out;
}

}  // namespace millrace::testing
