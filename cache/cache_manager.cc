#include "cache/cache_manager.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cache/scored_slots.h"
#include "cache/sequence_view.h"

namespace millrace::cache {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

// The resident tokens of a sequence are two ranges, either of which may be
// empty: the protected prefix, and the tail [tail_begin, length). If the policy
// chooses by attention, these are positions within the cache: `scored` knows
// which token is at each, and how many are gone.
struct CacheManager::Sequence {
  Sequence(SequenceOptions o, BlockAllocator* allocator, bool wide_prefix)
      : options(std::move(o)),
        prefix(options.policy->traits().protected_prefix),
        recomputes(options.policy->traits().recomputes),
        tail_begin(prefix),
        table(allocator, prefix, wide_prefix) {}

  std::vector<TextRange> Resident() const {
    std::vector<TextRange> ranges;
    const TextRange head{0, std::min(prefix, length)};
    const TextRange tail{tail_begin, length};
    if (!head.empty()) ranges.push_back(head);
    if (tail.empty()) return ranges;
    if (!ranges.empty() && head.end == tail.begin) {
      ranges.back().end = tail.end;
    } else {
      ranges.push_back(tail);
    }
    return ranges;
  }

  int64_t ResidentTokens() const {
    return std::min(prefix, length) + std::max<int64_t>(0, length - tail_begin);
  }

  // The run of `rule` for a text that ends before `end`.
  KvRun Run(const RunRule& rule, int64_t end) const {
    KvRun run;
    run.rule = rule;
    run.first_position =
        rule.begin < prefix ? rule.begin : std::max(rule.begin, tail_begin);
    run.length = std::min(rule.end, end) - run.first_position;
    if (run.length <= 0) return run;
    run.first_slot = static_cast<int>(run.first_position % kBlockTokens);
    const TextRange range{run.first_position, run.end_position()};
    run.blocks = table.Blocks(range);
    run.value_blocks = table.ValueBlocks(range);
    return run;
  }

  // Whether `row` sees something that is evicted.
  bool LacksWhatIsSeenBy(int64_t row) const {
    for (const RunRule& rule : options.policy->Rules(row)) {
      const int64_t first = rule.FirstVisible(row);
      const int64_t end = std::min(rule.end, row + 1);
      if (first < end && first >= prefix && first < tail_begin) return true;
    }
    return false;
  }

  KvView ViewUpTo(int64_t end) const {
    KvView view;
    for (const RunRule& rule : options.policy->Rules(rules_row())) {
      KvRun run = Run(rule, end);
      if (run.length > 0) view.runs.push_back(run);
    }
    return view;
  }

  // The row whose rules hold for the next ones.
  int64_t rules_row() const { return std::max(length, built_for); }

  // One past the last position that has a slot.
  int64_t held_end() const {
    return length > tail_begin ? length : std::min(length, prefix);
  }

  // Tokens of the text.
  int64_t text_length() const {
    return scored != nullptr ? scored->length() : length;
  }

  const SequenceOptions options;
  const int64_t prefix;  // protected tokens, F
  const bool recomputes;
  int64_t length = 0;     // tokens committed; of these in the cache if scored
  int64_t pending = 0;    // tokens of the last Reserve
  int64_t tail_begin;     // first resident position at or beyond the prefix
  int64_t built_for = 0;  // the row that Rebuild made ready for
  int64_t peak_resident = 0;
  int64_t reserved_blocks = 0;
  BlockTable table;
  std::unique_ptr<ScoredSlots> scored;  // null: the policy reads no attention
};

int64_t MaxBlocks(const SequenceOptions& options, KvDtype dtype) {
  const int64_t tokens = options.policy->MaxResidentTokens(
      options.max_chunk_tokens + options.rollback_tokens);
  const int64_t prefix = options.policy->traits().protected_prefix;
  const int64_t in_prefix = HasWidePrefix(dtype) ? 2 : 1;  // for 16 tokens
  // The tail may begin and end inside a block: one more than its tokens fill.
  return in_prefix * CeilDiv(prefix, kBlockTokens) +
         CeilDiv(tokens - prefix - 1, kBlockTokens) + 1;
}

CacheManager::CacheManager(const KvSpec& spec, int32_t num_blocks,
                           KvStorage* storage)
    : spec_(spec), storage_(storage), allocator_(num_blocks) {}

CacheManager::~CacheManager() = default;

absl::StatusOr<SequenceId> CacheManager::Open(const SequenceOptions& options) {
  const int64_t wanted = MaxBlocks(options, spec_.dtype);
  const int64_t free = allocator_.num_blocks() - reserved_blocks_;
  if (wanted > free) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "open a sequence: policy '", options.policy->Name(), "' needs ",
        wanted * spec_.BytesPerBlock(), " bytes of K/V memory, ",
        free * spec_.BytesPerBlock(), " of ",
        allocator_.num_blocks() * spec_.BytesPerBlock(), " are free"));
  }
  auto sequence = std::make_unique<Sequence>(options, &allocator_,
                                             HasWidePrefix(spec_.dtype));
  if (options.policy->scoring() != nullptr) {
    sequence->scored = std::make_unique<ScoredSlots>(
        *options.policy, spec_, options.policy->MaxResidentTokens(1));
  }
  sequence->reserved_blocks = wanted;
  reserved_blocks_ += wanted;
  const SequenceId id = next_id_++;
  sequences_.emplace(id, std::move(sequence));
  return id;
}

int64_t CacheManager::Rebuild(SequenceId id, int64_t row) {
  Sequence& sequence = Get(id);
  if (!sequence.recomputes) return sequence.text_length();
  // The prefix first: it stays as it is.
  if (sequence.length < sequence.prefix) row = sequence.prefix - 1;
  sequence.built_for = row;
  const int64_t begin = sequence.options.policy->Recomputes(row).begin;
  if (begin == sequence.tail_begin &&
      (sequence.length >= begin || sequence.length < sequence.prefix)) {
    return sequence.length;
  }
  evicted_tokens_ += std::max<int64_t>(0, begin - sequence.tail_begin);
  sequence.table.RestartTail(begin);
  sequence.tail_begin = begin;
  sequence.pending = 0;
  if (sequence.length >= sequence.prefix) sequence.length = begin;
  return sequence.length;
}

absl::StatusOr<KvView> CacheManager::Reserve(SequenceId id, int64_t num_new) {
  Sequence& sequence = Get(id);
  assert(num_new >= 1 && num_new <= MaxChunk(id));
  const absl::Status evicted = Evict(sequence, num_new);
  if (!evicted.ok()) return evicted;
  if (sequence.scored != nullptr && sequence.scored->cut_due()) {
    CutScored(sequence);
  }
  const int64_t end = sequence.length + num_new;
  sequence.table.ExtendTo(end);
  if (sequence.table.num_blocks() > sequence.reserved_blocks) std::abort();
  sequence.pending = num_new;
  sequence.peak_resident =
      std::max(sequence.peak_resident, sequence.ResidentTokens() + num_new);
  KvView view = sequence.ViewUpTo(end);
  if (sequence.scored != nullptr) sequence.scored->Begin(num_new, &view);
  return view;
}

void CacheManager::SetInputEnd(SequenceId id, int64_t input_end) {
  Sequence& sequence = Get(id);
  if (sequence.scored != nullptr) sequence.scored->SetInputEnd(input_end);
}

int64_t CacheManager::MaxChunk(SequenceId id) const {
  const Sequence& sequence = Get(id);
  if (sequence.scored != nullptr) {
    return std::min(sequence.options.max_chunk_tokens,
                    sequence.scored->MaxChunk());
  }
  int64_t end = sequence.options.policy->NextCut(sequence.rules_row());
  if (sequence.recomputes && sequence.length < sequence.prefix) {
    end = sequence.prefix;
  }
  return std::min(sequence.options.max_chunk_tokens, end - sequence.length);
}

// Moves the survivors of a cut to the front of the slots.
void CacheManager::CutScored(Sequence& sequence) {
  const KvView view = sequence.ViewUpTo(sequence.length);
  std::vector<KvView::Slot> slots;
  for (int64_t i = 0; i < sequence.length; ++i) slots.push_back(view.Find(i));
  std::vector<KvStorage::SlotMove> moves;
  sequence.scored->Cut(
      [&](int layer, int kv_head, absl::Span<const int64_t> survivors) {
        moves.clear();
        for (size_t to = 0; to < survivors.size(); ++to) {
          const auto from = static_cast<size_t>(survivors[to]);
          if (from != to) moves.push_back({slots[from], slots[to]});
        }
        // Whoever opened the sequence has a storage that can.
        if (!storage_->MoveSlots(layer, kv_head, moves).ok()) std::abort();
      });
  evicted_tokens_ += sequence.length - sequence.scored->slots();
  sequence.length = sequence.scored->slots();
  sequence.table.DropFrom(sequence.length);
}

absl::Status CacheManager::Evict(Sequence& sequence, int64_t num_new) {
  std::vector<TextRange> resident = sequence.Resident();
  if (sequence.scored != nullptr) resident = sequence.scored->AfterCut();
  const int64_t length = sequence.text_length();
  const SequenceView view{
      .length = length,
      .first_row =
          std::max<int64_t>(0, length - sequence.options.rollback_tokens),
      .resident = resident,
      .input_end =
          sequence.scored != nullptr ? sequence.scored->input_end() : 0};
  const absl::StatusOr<EvictionPlan> plan =
      sequence.options.policy->Plan(view, num_new);
  if (!plan.ok()) return plan.status();
  for (const TextRange& range : plan->evict) {
    // What leaves is always the oldest of the tail.
    if (range.begin != sequence.tail_begin) std::abort();
    evicted_tokens_ += range.size();
    sequence.tail_begin = range.end;
  }
  sequence.table.DropBefore(sequence.tail_begin);
  return absl::OkStatus();
}

void CacheManager::Commit(SequenceId id) { CommitFirst(id, Get(id).pending); }

void CacheManager::CommitFirst(SequenceId id, int64_t count) {
  Sequence& sequence = Get(id);
  assert(count >= 0 && count <= sequence.pending);
  if (sequence.scored != nullptr) {
    assert(count == sequence.pending);
    sequence.scored->Commit(count);
  }
  sequence.length += count;
  sequence.pending -= count;
}

int64_t CacheManager::Reserved(SequenceId id) const { return Get(id).pending; }

void CacheManager::Drop(SequenceId id) {
  Sequence& sequence = Get(id);
  sequence.pending = 0;
  sequence.table.DropFrom(sequence.length);
}

absl::Status CacheManager::Truncate(SequenceId id, int64_t length) {
  Sequence& sequence = Get(id);
  const int64_t longest = sequence.text_length();
  if (length < EarliestCut(id) || length > longest) {
    return absl::OutOfRangeError(
        absl::StrCat("cut a sequence of ", longest, " tokens to ", length,
                     ": what was visible there is gone; from ", EarliestCut(id),
                     " to ", longest, " works"));
  }
  if (sequence.scored != nullptr) {
    sequence.scored->Truncate(length);
    length = sequence.scored->slots();
  }
  CutBack(sequence, length);
  return absl::OkStatus();
}

void CacheManager::ShortenInput(SequenceId id, int64_t input_end) {
  Sequence& sequence = Get(id);
  if (sequence.scored == nullptr) return;
  sequence.scored->ShortenInput(input_end);
  CutBack(sequence, sequence.scored->slots());
}

void CacheManager::CutBack(Sequence& sequence, int64_t length) {
  sequence.length = length;
  sequence.built_for = 0;
  sequence.pending = 0;
  if (length <= sequence.tail_begin) {  // only where it is recomputed
    sequence.table.RestartTail(sequence.tail_begin);
  }
  sequence.table.DropFrom(length);
}

int64_t CacheManager::EarliestCut(SequenceId id) const {
  const Sequence& sequence = Get(id);
  if (sequence.scored != nullptr) return sequence.scored->EarliestCut();
  if (sequence.recomputes || sequence.tail_begin == sequence.prefix) return 0;
  // Visibility is monotone: search for the first length that works.
  int64_t low = sequence.tail_begin, high = sequence.length;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (sequence.LacksWhatIsSeenBy(middle - 1)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

void CacheManager::Clear(SequenceId id) {
  Sequence& sequence = Get(id);
  sequence.table.Clear();
  if (sequence.scored != nullptr) sequence.scored->Clear();
  sequence.length = 0;
  sequence.built_for = 0;
  sequence.pending = 0;
  sequence.tail_begin = sequence.prefix;
}

void CacheManager::Close(SequenceId id) {
  reserved_blocks_ -= Get(id).reserved_blocks;
  sequences_.erase(id);
}

SequenceRecord CacheManager::Record(SequenceId id) const {
  const Sequence& sequence = Get(id);
  SequenceRecord record{.length = sequence.length,
                        .tail_begin = sequence.tail_begin,
                        .built_for = sequence.built_for};
  if (sequence.scored != nullptr) record.scored = sequence.scored->Record();
  return record;
}

std::vector<KvBlock> CacheManager::Blocks(SequenceId id) const {
  const Sequence& sequence = Get(id);
  return sequence.table.BlocksUpTo(sequence.held_end());
}

absl::StatusOr<SequenceId> CacheManager::Restore(const SequenceOptions& options,
                                                 const SequenceRecord& record) {
  const absl::StatusOr<SequenceId> id = Open(options);
  if (!id.ok()) return id;
  Sequence& sequence = Get(*id);
  sequence.length = record.length;
  sequence.tail_begin = record.tail_begin;
  sequence.built_for = record.built_for;
  if (record.scored.has_value()) sequence.scored->Restore(*record.scored);
  sequence.table.RestartTail(record.tail_begin);
  sequence.table.ExtendTo(sequence.held_end());
  sequence.peak_resident = sequence.ResidentTokens();
  return id;
}

int64_t CacheManager::Length(SequenceId id) const {
  return Get(id).text_length();
}

int64_t CacheManager::ResidentTokens(SequenceId id) const {
  return Get(id).ResidentTokens();
}

int64_t CacheManager::PeakResidentTokens(SequenceId id) const {
  return Get(id).peak_resident;
}

std::vector<TextRange> CacheManager::Resident(SequenceId id) const {
  const Sequence& sequence = Get(id);
  return sequence.scored != nullptr ? sequence.scored->Held()
                                    : sequence.Resident();
}

KvView CacheManager::View(SequenceId id) const {
  const Sequence& sequence = Get(id);
  return sequence.ViewUpTo(sequence.length);
}

CacheManager::Stats CacheManager::stats() const {
  return {.num_blocks = allocator_.num_blocks(),
          .reserved_blocks = reserved_blocks_,
          .used_blocks = allocator_.num_blocks() - allocator_.free_blocks(),
          .sequences = static_cast<int64_t>(sequences_.size()),
          .evicted_tokens = evicted_tokens_};
}

CacheManager::Sequence& CacheManager::Get(SequenceId id) {
  return *sequences_.at(id);
}

const CacheManager::Sequence& CacheManager::Get(SequenceId id) const {
  return *sequences_.at(id);
}

}  // namespace millrace::cache
