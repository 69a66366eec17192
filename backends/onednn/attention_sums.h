// How much attention rows pay to what is in the cache, for the views that ask
// (cache/kv_view.h): the columns of the matrix of probabilities, added up.
//
// Attention is not computed twice. While a layer is attended to, what soft-max
// leaves of each segment is kept, together with the segment's largest score;
// when a row is done, its largest score and its sum tell by which factor those
// are multiplied. Then each column is added up, rows in order:
//
//   probability = kept * exp(segment's largest - row's largest) / row's sum
//
// Kept is 4 bytes for each query head and position of the groups of rows that
// count: 5 MB for a chunk of 128 rows of 9 heads at 1,056 positions. The memory
// grows to the largest step that asks. A step where nobody asks pays nothing.
#ifndef MILLRACE_BACKENDS_ONEDNN_ATTENTION_SUMS_H_
#define MILLRACE_BACKENDS_ONEDNN_ATTENTION_SUMS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backends/model_file/model_config.h"
#include "backends/onednn/kernels/kernels.h"
#include "backends/onednn/step.h"
#include "backends/onednn/thread_pool.h"

namespace millrace::backends::onednn {

// Keep and Finish are called by any thread, for different KV heads and segments
// at once; the others by one, which also runs the pool.
class AttentionSums {
 public:
  // Borrows everything for its lifetime.
  AttentionSums(const ModelConfig& config, const Kernels& kernels,
                const Step& step, ThreadPool& pool);

  // ---- The plan of a step ----
  void Begin();
  // Rows first_row, ... of a chunk, which are attended to together; groups of a
  // chunk in ascending order. Returns the group's number, or kNobodyAsks.
  static constexpr int kNobodyAsks = -1;
  int AddGroup(int chunk, int first_row, int rows);
  // The next segment of the group that was added last, by the cache position of
  // its first token.
  void AddSegment(int64_t first_position);
  void EndPlan();

  // ---- A layer ----
  // What soft-max left of a segment of the group, [queries][64], and the
  // largest scores, [queries]; -infinity: the query sees nothing of it, and
  // what it left is 0.
  void Keep(int group, int kv_head, int segment, const float* probabilities,
            const float* largest);
  // All segments are kept; the queries' largest scores and sums.
  void Finish(int group, int kv_head, const float* largest, const float* sums);
  // All groups are finished: carries out what the views ask for.
  void AddUp(int layer);

 private:
  struct Group {
    int chunk, first_row, rows;
    int segments_begin, segments_end;  // in segments_
    // Index of its first record: [kv_head][segment][query].
    int64_t records;
  };
  // Cache positions begin .. end - 1 of a chunk that asks, for each KV head.
  struct Piece {
    int chunk;
    int groups_begin, groups_end;
    int64_t begin, end;
  };

  int queries(const Group& group) const {
    return group.rows * heads_per_kv_head_;
  }
  int64_t Record(const Group& group, int kv_head, int segment) const;
  void AddPiece(int layer, const Piece& piece, int kv_head) const;
  void AddRow(const Group& group, int row, float weight, const Piece& piece,
              int kv_head, float* sums) const;

  const ModelConfig& config_;
  const Kernels& kernels_;
  const Step& step_;
  ThreadPool& pool_;
  const int heads_per_kv_head_;

  std::vector<Group> groups_;
  std::vector<int64_t> segments_;  // first positions
  std::vector<Piece> pieces_;
  std::vector<float> kept_;     // [record][64]
  std::vector<float> factors_;  // [record]; the largest score until Finish
};

}  // namespace millrace::backends::onednn

#endif  // MILLRACE_BACKENDS_ONEDNN_ATTENTION_SUMS_H_
