// Attention of a step: which pieces of work there are, and in which order
// their results are added.
//
// Visible positions are cut into segments of 64, at multiples of 64 text
// positions, run by run. A segment gives a partial result for each query: the
// largest score, the sum of exponentials, and the weighted sum of values.
// Partial results are merged in ascending order. So what a row gets depends on
// the row's text and rules alone: not on batch mates, chunk borders, evicted
// neighbours or the number of threads.
//
// The heads that share a KV head, of up to 8 rows of a chunk, are taken
// together (kernels/attention.inl.h). If these groups are enough to keep all
// threads busy, one thread does a group's segments from first to last; if not,
// as when few sequences decode, segments are divided among threads, and the
// last to finish merges.
//
// Where a view says at which text positions its keys were turned, those of a
// segment are turned back first (kernels/rebase.inl.h), for all queries at
// once.
#ifndef MILLRACE_BACKENDS_ONEDNN_ATTENTION_H_
#define MILLRACE_BACKENDS_ONEDNN_ATTENTION_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "backends/model_file/model_config.h"
#include "backends/onednn/attention_sums.h"
#include "backends/onednn/kernels/kernels.h"
#include "backends/onednn/kv_storage.h"
#include "backends/onednn/step.h"
#include "backends/onednn/thread_pool.h"

namespace millrace::backends::onednn {

class Attention {
 public:
  // Borrows everything for its lifetime.
  Attention(const ModelConfig& config, const Kernels& kernels, const Step& step,
            ThreadPool& pool, int max_rows);
  ~Attention();
  static int64_t Bytes(const ModelConfig& config, int num_threads,
                       int max_rows);

  // Plans the step that has just begun.
  void Begin();

  // attended = attention of `query` over what `kv` holds. Both have
  // num_heads * head_dim floats a row; `query` is readable 16 floats beyond.
  void Run(int layer, const TiledKvStorage& kv, const float* query,
           float* attended);

 private:
  struct Segment {
    int run;         // of the chunk's view
    int first_tile;  // index of tile 0 in the run's blocks; may be negative
    int64_t first_position;  // cache position of the first token of tile 0
    // The tiles that any row of the group sees part of.
    int tiles_begin, tiles_end;
  };
  // Up to kGroupTokens rows of a chunk, for each KV head.
  struct Group {
    int chunk, first_row, rows;
    int segments_begin, segments_end;  // in segments_
    int64_t parts;                     // where its first one is, in parts_
    int sums;                          // its number in sums_
  };
  // Segments of a group that one thread takes, for each KV head.
  struct Unit {
    int group, segments_begin, segments_end;
  };
  // A segment for a KV head: what a thread takes next, as far as it can know,
  // is fetched ahead. Null: nothing.
  struct Place {
    const Group* group = nullptr;
    int kv_head = 0;
    const Segment* segment = nullptr;
  };
  struct Layer {
    int layer;
    const TiledKvStorage& kv;
    const float* query;
    float* attended;
  };
  struct Scratch;

  void Attend(const Layer& args);
  void AddGroups(int chunk);
  void AddSegments(const Group& group);
  void Divide();
  // The first segment of the item of whole groups, or of units, that stands
  // there in the order in which they are claimed.
  Place FirstOfGroup(int claim) const;
  Place FirstOfUnit(int claim) const;
  void PrepareQueries(const Layer& layer, const Group& group, int kv_head,
                      int run, Scratch& scratch) const;
  // Adds up what the segments give in `sum`; null: keeps it.
  void RunSegments(const Layer& layer, const Group& group, int kv_head,
                   int begin, int end, const Place& after,
                   const AttentionPart* sum, Scratch& scratch);
  void RunSegment(const Layer& layer, const Group& group, int kv_head,
                  const Segment& segment, const Place& next,
                  const AttentionPart& part, Scratch& scratch);
  void RunGroup(const Layer& layer, const Group& group, int kv_head,
                const Place& after, Scratch& scratch);
  void MergeUnits(const Layer& layer, const Group& group, int kv_head,
                  Scratch& scratch);
  void Tiles(const Layer& layer, const Group& group, int kv_head,
             const Segment& segment, const void** keys,
             const void** values) const;
  bool Rebase(const Layer& layer, const Group& group, int kv_head,
              const Segment& segment, const void* const* next_keys,
              const void** keys, Scratch& scratch) const;
  void Finish(const Layer& layer, const Group& group, int kv_head,
              const AttentionPart& sum);

  const cache::KvRun& RunOf(const Group& group, int run) const {
    return step_.batch().chunks[group.chunk].view->runs[run];
  }
  int queries(const Group& group) const {
    return group.rows * heads_per_kv_head_;
  }
  // Parts of a group: [kv_head][segment].
  AttentionPart KeptPart(const Group& group, int kv_head, int segment);

  const ModelConfig& config_;
  const Kernels& kernels_;
  const Step& step_;
  ThreadPool& pool_;
  const int padded_dim_;
  const int heads_per_kv_head_;
  const float scale_;                  // 1 / sqrt(head_dim)
  std::vector<uint64_t> angle_steps_;  // by pair; 0 where a head is padded

  std::vector<Segment> segments_;
  std::vector<Group> groups_;
  std::vector<Unit> units_;  // empty: groups are not divided
  std::unique_ptr<std::atomic<int>[]> pending_;  // units, [group][kv_head]
  std::vector<int> group_units_;                 // units of a group
  std::vector<float> parts_;  // of divided groups
  std::vector<std::unique_ptr<Scratch>> scratches_;  // by worker
  AttentionSums sums_;
};

}  // namespace millrace::backends::onednn

#endif  // MILLRACE_BACKENDS_ONEDNN_ATTENTION_H_
