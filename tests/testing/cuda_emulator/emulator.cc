#include "tests/testing/cuda_emulator/emulator.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "tests/testing/cuda_emulator/fiber_order.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace millrace::backends::cuda::emulated {
namespace {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = 128 << 10;
constexpr size_t kExchangeBytes = 64;  // of a lane

FiberOrder fiber_order = FiberOrder::kAscending;

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "CUDA emulator: %s (block %u %u %u, thread %u)\n", what,
               blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x);
  std::abort();
}

enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

// A place to go on from: GCC's own setjmp, which makes no system call.
using Place = void* [5];

// 16 bytes on their way into shared memory.
struct Copy {
  void* to;
  const void* from;
};

struct Fiber {
  ucontext_t start;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  Place place;
  State state = State::kDone;
  bool started = false;
  std::vector<Copy> copies;  // not in a group yet
  std::deque<std::vector<Copy>> groups;
};

struct Warp {
  int waiting = 0;
  int turn = 0;  // exchanges alternate between two buffers
  alignas(16) char exchange[2][kWarp * kExchangeBytes];
};

// The block that runs. Everything is reused from launch to launch.
struct Block {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Warp> warps;
  std::vector<float> shared;
  int size = 0, current = 0;
  absl::FunctionRef<void()>* thread = nullptr;
  ucontext_t main;
  Place scheduler;
};

Block& TheBlock() {
  static auto* block = new Block;
  return *block;
}

[[gnu::noinline]] void JumpTo(Place& place) { __builtin_longjmp(place, 1); }

// Where to go on when the current fiber waits: at once in the next one of its
// warp, if that is ready, else in the scheduler.
Place& NextPlace() {
  Block& block = TheBlock();
  const int next =
      block.current + (fiber_order == FiberOrder::kAscending ? 1 : -1);
  if (next < 0 || next >= block.size || next / kWarp != block.current / kWarp) {
    return block.scheduler;
  }
  Fiber& fiber = *block.fibers[next];
  if (fiber.state != State::kReady || !fiber.started) return block.scheduler;
  block.current = next;
  threadIdx = dim3(next);
  return fiber.place;
}

// Gives the turn to others until the fiber is ready again.
[[gnu::noinline]] void Wait(State state) {
  Block& block = TheBlock();
  Fiber& fiber = *block.fibers[block.current];
  fiber.state = state;
  if (__builtin_setjmp(fiber.place) == 0) JumpTo(NextPlace());
}

// One thread after the other, for ever: starting a fiber is a system call.
void FiberMain() {
  for (;;) {
    (*TheBlock().thread)();
    Wait(State::kDone);
  }
}

[[gnu::noinline]] void Resume(int index) {
  Block& block = TheBlock();
  Fiber& fiber = *block.fibers[index];
  block.current = index;
  threadIdx = dim3(index);
  if (__builtin_setjmp(block.scheduler) != 0) return;
  if (fiber.started) JumpTo(fiber.place);
  fiber.started = true;
  setcontext(&fiber.start);
}

void Prepare(int size, size_t shared_bytes) {
  Block& block = TheBlock();
  block.size = size;
  while (static_cast<int>(block.fibers.size()) < size) {
    auto fiber = std::make_unique<Fiber>();
    getcontext(&fiber->start);
    fiber->start.uc_stack.ss_sp = fiber->stack.get();
    // Not all at the same place of a page: they would share few lines of cache.
    fiber->start.uc_stack.ss_size =
        kStackBytes - block.fibers.size() % 64 * 832;
    fiber->start.uc_link = nullptr;
    makecontext(&fiber->start, FiberMain, 0);
    block.fibers.push_back(std::move(fiber));
  }
  block.warps.resize((size + kWarp - 1) / kWarp);
  for (Warp& warp : block.warps) warp.waiting = 0;
  for (int i = 0; i < size; ++i) {
    block.fibers[i]->state = State::kReady;
    block.fibers[i]->copies.clear();
    block.fibers[i]->groups.clear();
  }
  block.shared.assign(shared_bytes / sizeof(float) + 4,
                      std::numeric_limits<float>::quiet_NaN());
}

int LanesOf(int warp) {
  return std::min(kWarp, TheBlock().size - warp * kWarp);
}

int FibersIn(int begin, int end, State state) {
  int n = 0;
  for (int i = begin; i < end; ++i) {
    n += TheBlock().fibers[i]->state == state;
  }
  return n;
}

void LetGo(int begin, int end) {
  for (int i = begin; i < end; ++i) TheBlock().fibers[i]->state = State::kReady;
}

// Runs a warp until all its lanes wait for the block or are done.
void RunWarp(int warp) {
  Block& block = TheBlock();
  const int begin = warp * kWarp, end = begin + LanesOf(warp);
  for (;;) {
    for (int n = begin; n < end; ++n) {
      const int i =
          fiber_order == FiberOrder::kAscending ? n : begin + end - 1 - n;
      if (block.fibers[i]->state == State::kReady) Resume(i);
    }
    const int waiting = FibersIn(begin, end, State::kAtWarpBarrier);
    if (waiting == 0) return;
    if (waiting < end - begin) Die("the lanes of a warp went apart");
    LetGo(begin, end);
  }
}

void RunBlock() {
  Block& block = TheBlock();
  const int warps = static_cast<int>(block.warps.size());
  for (;;) {
    for (int n = 0; n < warps; ++n) {
      RunWarp(fiber_order == FiberOrder::kAscending ? n : warps - 1 - n);
    }
    const int waiting = FibersIn(0, block.size, State::kAtBlockBarrier);
    if (waiting == 0) return;
    if (waiting < block.size) Die("threads left before a barrier");
    LetGo(0, block.size);
  }
}

const float* AllHalves() {
  auto* halves = new float[1 << 16];
  for (int i = 0; i < 1 << 16; ++i) {
    halves[i] = HalfToFloat(static_cast<uint16_t>(i));
  }
  return halves;
}

}  // namespace

const float* const kHalves = AllHalves();

void SetFiberOrder(FiberOrder order) { fiber_order = order; }

void SyncBlock() { Wait(State::kAtBlockBarrier); }
void SyncWarp() { Wait(State::kAtWarpBarrier); }

const void* ExchangeInWarp(const void* mine, size_t bytes) {
  if (bytes > kExchangeBytes) Die("an exchange is too large");
  const int index = static_cast<int>(threadIdx.x);
  Warp& warp = TheBlock().warps[index / kWarp];
  // Each lane counts for itself by its place in the warp's turns: all lanes
  // pass the barrier before any comes here again.
  if (warp.waiting == 0) warp.turn ^= 1;
  warp.waiting = (warp.waiting + 1) % LanesOf(index / kWarp);
  char* const buffer = warp.exchange[warp.turn];
  std::memcpy(buffer + index % kWarp * bytes, mine, bytes);
  SyncWarp();
  return buffer;
}

void MultiplyAdd(float (&c)[4], const uint32_t (&a)[4],
                 const uint32_t (&b)[2]) {
  struct Lane {
    uint32_t a[4], b[2];
  };
  const Lane mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const auto* const lanes =
      static_cast<const Lane*>(ExchangeInWarp(&mine, sizeof(mine)));
  const int g = LaneOfThread() / 4, t = LaneOfThread() % 4;
  for (int i = 0; i < 4; ++i) {
    const int column = 2 * t + i % 2;
    float sum = 0;
    for (int k = 0; k < 16; k += 2) {
      const uint32_t x = lanes[4 * g + k % 8 / 2].a[i / 2 + k / 8 * 2];
      const uint32_t y = lanes[4 * column + k % 8 / 2].b[k / 8];
      sum += LowOf(x) * LowOf(y) + HighOf(x) * HighOf(y);
    }
    c[i] += sum;
  }
}

void LoadMatrices(const void* row, uint32_t (&out)[4]) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) Die("a row is not aligned");
  const auto* const rows =
      static_cast<const char* const*>(ExchangeInWarp(&row, sizeof(row)));
  const int lane = LaneOfThread();
  for (int i = 0; i < 4; ++i) {
    std::memcpy(&out[i], rows[8 * i + lane / 4] + lane % 4 * 4, 4);
  }
}

void LoadTransposed(const void* row, uint32_t (&out)[4]) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) Die("a row is not aligned");
  const auto* const rows =
      static_cast<const char* const*>(ExchangeInWarp(&row, sizeof(row)));
  const int lane = LaneOfThread();
  for (int i = 0; i < 4; ++i) {
    uint16_t numbers[2];
    for (int k = 0; k < 2; ++k) {
      std::memcpy(&numbers[k], rows[8 * i + lane % 4 * 2 + k] + lane / 4 * 2,
                  2);
    }
    std::memcpy(&out[i], numbers, 4);
  }
}

namespace {

Fiber& ThisFiber() { return *TheBlock().fibers[threadIdx.x]; }

}  // namespace

void CopyAsync(void* shared, const void* from) {
  const auto together =
      reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(from);
  if (together % 16 != 0) Die("a copy is not aligned");
  ThisFiber().copies.push_back({shared, from});
}

void CommitCopies() {
  ThisFiber().groups.push_back(std::exchange(ThisFiber().copies, {}));
}

void WaitForCopiesBut(int left) {
  auto& groups = ThisFiber().groups;
  for (; static_cast<int>(groups.size()) > left; groups.pop_front()) {
    for (const auto [to, from] : groups.front()) std::memcpy(to, from, 16);
  }
}

void* DynamicSharedMemory() {
  auto at = reinterpret_cast<uintptr_t>(TheBlock().shared.data());
  return reinterpret_cast<void*>((at + 15) / 16 * 16);
}

void RunGrid(dim3 grid, dim3 block, size_t shared_bytes,
             absl::FunctionRef<void()> thread) {
  static std::mutex one_grid;
  const std::lock_guard<std::mutex> lock(one_grid);
  if (block.y != 1 || block.z != 1) Die("blocks have one dimension here");
  gridDim = grid;
  blockDim = block;
  TheBlock().thread = &thread;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = dim3(x, y, z);
        Prepare(static_cast<int>(block.x), shared_bytes);
        RunBlock();
      }
    }
  }
}

}  // namespace millrace::backends::cuda::emulated
