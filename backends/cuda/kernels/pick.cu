// Picks a token from each row of logits that asks for one (row_sampling.h), by
// the rules of services/engine/sampling/choose.h.
//
//   grid     a block for each row
//   threads  1024; ids 1024 apart, of which eight are read at once
//   shared   a histogram of 256 sums, a place for each thread
//   bytes    4 a logit, read twice if greedy, else by up to 23 passes more,
//            from the cache after the first time
//   bound    by latency: passes of one block with barriers between them
//
// Tokens stand in falling order of logits, equal ones in rising order of ids: a
// token's place is a 64-bit number. Where a sum over the first tokens reaches a
// limit is found without sorting: a histogram of sums by the places' highest
// digit tells the digit, one of the places with that digit the next, and so on.
// Weights are integers, multiples of 2^-40 of the largest, so that sums do not
// depend on the order in which threads add.
#include "backends/cuda/kernels/launchers.h"
#include "backends/cuda/kernels/target.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {
namespace {

constexpr int kThreads = 1024;
constexpr int kDigits = 256;
constexpr int kDigitGroups = 16;
constexpr float kOne = 1099511627776.0f;  // 2^40: the largest weight

constexpr uint64_t kNowhere = ~uint64_t{0};  // behind all places

struct PickShared {
  uint64_t sums[kDigits];
  uint64_t group_sums[kDigitGroups];  // of 16 digits
  uint64_t firsts[kThreads];
  uint64_t total, left;
  int digit, nonfinite, adjusted;
};

// A row as its block sees it.
struct Row {
  float* logits;
  int size;
  float largest, temperature;  // once they are known

  __device__ uint64_t WeightOf(float logit) const {
    const float weight = expf((logit - largest) / temperature);
    return static_cast<uint64_t>(weight * kOne);
  }
};

// Calls use(id, logit) for the thread's part of the row.
template <class Use>
__device__ void ForEachLogit(const Row& row, const Use& use) {
  constexpr int kAtOnce = 8;
  for (int first = threadIdx.x; first < row.size; first += kAtOnce * kThreads) {
    float logits[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int id = first + i * kThreads;
      logits[i] = id < row.size ? row.logits[id] : 0;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int id = first + i * kThreads;
      if (id < row.size) use(id, logits[i]);
    }
  }
}

// The largest logit first; zero has one sign.
__device__ uint64_t PlaceOf(int id, float logit) {
  const uint32_t bits = BitsOf(logit + 0.0f);
  const uint32_t rising = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  return uint64_t{~rising} << 32 | static_cast<uint32_t>(id);
}

// Which tokens count, and for how much.
struct Measure {
  uint64_t last;   // the last place that counts
  uint64_t least;  // the least weight that counts, 1 or more
  bool by_weight;  // else each counts as one

  __device__ uint64_t Of(const Row& row, float logit, uint64_t place) const {
    if (place > last) return 0;
    const uint64_t weight = row.WeightOf(logit);
    if (weight < least) return 0;
    return by_weight ? weight : 1;
  }
};

__device__ uint64_t Sum(const Row& row, const Measure& measure,
                        PickShared& shared) {
  if (threadIdx.x == 0) shared.total = 0;
  SyncBlock();
  uint64_t sum = 0;
  ForEachLogit(row, [&](int id, float logit) {
    sum += measure.Of(row, logit, PlaceOf(id, logit));
  });
  AtomicAdd(&shared.total, sum);
  SyncBlock();
  const uint64_t total = shared.total;
  SyncBlock();
  return total;
}

// Which digit's sum makes the sum over it and all before reach `limit`, and
// what is left of the limit there; kDigits if none does.
__device__ void FindDigit(uint64_t limit, PickShared& shared) {
  constexpr int kEach = kDigits / kDigitGroups;
  if (threadIdx.x < kDigitGroups) {
    uint64_t sum = 0;
    for (int i = 0; i < kEach; ++i) sum += shared.sums[threadIdx.x * kEach + i];
    shared.group_sums[threadIdx.x] = sum;
  }
  SyncBlock();
  if (threadIdx.x == 0) {
    int group = 0;
    while (group < kDigitGroups && shared.group_sums[group] < limit) {
      limit -= shared.group_sums[group++];
    }
    int digit = group * kEach;
    while (digit < kDigits && shared.sums[digit] < limit) {
      limit -= shared.sums[digit++];
    }
    shared.digit = digit;
    shared.left = limit;
  }
  SyncBlock();
}

// The place at which the sum over it and all before it reaches `limit`, 1 or
// more; kNowhere if it does not.
__device__ uint64_t FirstReaching(const Row& row, const Measure& measure,
                                  uint64_t limit, PickShared& shared) {
  uint64_t found = 0, known = 0;
  // Ids have no more than 24 bits.
  for (int shift = 56; shift >= 0; shift -= shift == 32 ? 16 : 8) {
    if (threadIdx.x < kDigits) shared.sums[threadIdx.x] = 0;
    SyncBlock();
    ForEachLogit(row, [&](int id, float logit) {
      const uint64_t place = PlaceOf(id, logit);
      if ((place & known) != found) return;
      const uint64_t counts = measure.Of(row, logit, place);
      if (counts > 0) AtomicAdd(&shared.sums[place >> shift & 255], counts);
    });
    SyncBlock();
    FindDigit(limit, shared);
    if (shared.digit == kDigits) return kNowhere;
    found |= static_cast<uint64_t>(shared.digit) << shift;
    known |= uint64_t{255} << shift;
    limit = shared.left;
    SyncBlock();
  }
  return found;
}

__device__ bool IsFinite(const Row& row, PickShared& shared) {
  if (threadIdx.x == 0) shared.nonfinite = 0;
  SyncBlock();
  bool finite = true;
  ForEachLogit(row, [&](int, float logit) {
    finite = finite && (BitsOf(logit) & 0x7fffffffu) < 0x7f800000u;
  });
  if (!finite) AtomicAdd(&shared.nonfinite, 1);
  SyncBlock();
  return shared.nonfinite == 0;
}

__device__ uint64_t FirstPlace(const Row& row, PickShared& shared) {
  uint64_t first = kNowhere;
  ForEachLogit(row, [&](int id, float logit) {
    const uint64_t place = PlaceOf(id, logit);
    first = place < first ? place : first;
  });
  shared.firsts[threadIdx.x] = first;
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    SyncBlock();
    if (threadIdx.x < half) {
      const uint64_t other = shared.firsts[threadIdx.x + half];
      if (other < first) shared.firsts[threadIdx.x] = first = other;
    }
  }
  SyncBlock();
  return shared.firsts[0];
}

__device__ uint64_t RoundedUp(double x) {
  const auto whole = static_cast<uint64_t>(x);
  return static_cast<double>(whole) < x ? whole + 1 : whole;
}

// REQUIRES: temperature > 0, the largest logit is finite.
__device__ uint64_t Choose(const Row& row, const StepPick& pick,
                           PickShared& shared) {
  Measure kept = {kNowhere, 1, true};
  if (pick.top_k > 0 && pick.top_k < row.size) {
    kept.last = FirstReaching(row, {kNowhere, 1, false},
                              static_cast<uint64_t>(pick.top_k), shared);
  }
  if (pick.top_p < 1) {
    const auto total = static_cast<double>(Sum(row, kept, shared));
    const uint64_t part = RoundedUp(static_cast<double>(pick.top_p) * total);
    const uint64_t last = FirstReaching(row, kept, part > 0 ? part : 1, shared);
    kept.last = last < kept.last ? last : kept.last;
  }
  // The first token is always kept.
  const uint64_t least = RoundedUp(static_cast<double>(pick.min_p) * kOne);
  kept.least = least > 1 ? least : 1;
  const uint64_t total = Sum(row, kept, shared);
  const auto point =
      static_cast<uint64_t>(pick.uniform * static_cast<double>(total)) + 1;
  return FirstReaching(row, kept, point < total ? point : total, shared);
}

// Carries out the adjustments, and those of the token that the step before has
// picked, which the host did not know.
__device__ void Adjust(const Row& row, const StepPick& pick,
                       const LogitAdjustment* adjustments,
                       const int32_t* before, PickShared& shared) {
  const int32_t unknown =
      pick.picked_before < 0 ? -1 : before[pick.picked_before];
  if (threadIdx.x == 0) shared.adjusted = 0;
  SyncBlock();
  for (int i = pick.adjustments_begin + static_cast<int>(threadIdx.x);
       i < pick.adjustments_end; i += kThreads) {
    LogitAdjustment by = adjustments[i];
    if (by.id == unknown) {
      by = OnceMore(by, pick.of_unknown);
      shared.adjusted = 1;
    }
    row.logits[by.id] = AdjustedLogit(row.logits[by.id], by);
  }
  SyncBlock();
  if (threadIdx.x == 0 && unknown >= 0 && shared.adjusted == 0) {
    const LogitAdjustment fresh = NotThere(unknown, pick.of_unknown);
    row.logits[unknown] =
        AdjustedLogit(row.logits[unknown], OnceMore(fresh, pick.of_unknown));
  }
  SyncBlock();
}

__global__ void __launch_bounds__(kThreads) Pick(PickArgs args) {
  WaitForPredecessor();
  if (static_cast<int>(blockIdx.x) >= args.step->num_picks) return;
  __shared__ PickShared shared;
  const StepPick& pick =
      ArrayAt<StepPick>(args.step, args.step->picks)[blockIdx.x];
  Row row = {args.logits.data + int64_t{pick.logits_row} * args.logits.stride,
             args.vocabulary_size, 0, pick.temperature};
  int32_t* const id = &args.ids[blockIdx.x];
  if (!IsFinite(row, shared)) {
    if (threadIdx.x == 0) *id = -1;
    return;
  }
  Adjust(row, pick, ArrayAt<LogitAdjustment>(args.step, args.step->adjustments),
         args.before, shared);
  uint64_t place = FirstPlace(row, shared);
  row.largest = row.logits[static_cast<uint32_t>(place)];
  const bool is_suppressed = BitsOf(row.largest) == 0xff800000u;  // as all are
  if (pick.temperature > 0 && !is_suppressed) {
    place = Choose(row, pick, shared);
  }
  if (threadIdx.x == 0) *id = static_cast<int32_t>(place);  // its lower half
}

}  // namespace

void LaunchPick(Stream* stream, const PickArgs& args) {
  Launch(stream, dim3(args.max_picks), dim3(kThreads), 0, Pick, args);
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE
