#include "tests/testing/cuda_emulator/emulated_device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backends/cuda/kernels/launchers.h"
#include "backends/cuda/kernels/probe_launchers.h"
#include "tests/testing/cuda_emulator/emulator.h"

namespace millrace::backends::cuda {
namespace {

// Memory up to this size is filled with NaN; larger pieces are zero until they
// are written, as they come from the system.
constexpr int64_t kPoisonedBytes = 64 << 20;

using Work = std::vector<std::function<void()>>;

struct EmulatedGraph final : Graph {
  Work work;
};

// Work is done when somebody waits for it, and not before: what is read too
// early is not there yet.
struct EmulatedStream {
  Work* captured = nullptr;  // while work is being captured
  std::deque<std::function<void()>> queue;
  int64_t done = 0;  // pieces of work that have left the queue
  int64_t kernels = 0;

  int64_t end() const { return done + static_cast<int64_t>(queue.size()); }
  void Put(std::function<void()> work) { queue.push_back(std::move(work)); }
  void WorkUntil(int64_t end) {
    while (done < end) {
      const std::function<void()> work = std::move(queue.front());
      queue.pop_front();
      ++done;
      work();
    }
  }
};

struct EmulatedEvent final : Event {
  int64_t end = 0;
};

class EmulatedDeviceImpl final
    : public EmulatedDevice,
      public std::enable_shared_from_this<EmulatedDeviceImpl> {
 public:
  explicit EmulatedDeviceImpl(const EmulatedDeviceOptions& options)
      : options_(options) {}

  std::string Info() const override {
    return "CUDA kernels emulated on the CPU";
  }
  int num_multiprocessors() const override {
    return options_.num_multiprocessors;
  }
  int64_t max_shared_bytes() const override { return 160 << 10; }
  int64_t FreeBytes() const override {
    return options_.memory - stats_.allocated;
  }
  const Kernels& kernels() const override { return emulated::kKernels; }
  const Probes& probes() const override { return emulated::kProbes; }
  Stream* stream() override { return reinterpret_cast<Stream*>(&stream_); }

  absl::StatusOr<Memory> Allocate(int64_t bytes,
                                  absl::string_view what) override {
    void* memory = MAP_FAILED;
    if (bytes <= FreeBytes()) {
      memory =
          mmap(nullptr, std::max<int64_t>(bytes, 1), PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    if (memory == MAP_FAILED) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "allocate ", what, ": ", bytes, " bytes of the GPU, of which ",
          FreeBytes(), " are free: ", std::max<int64_t>(bytes - FreeBytes(), 0),
          " are missing; ask for less"));
    }
    if (bytes <= kPoisonedBytes) std::memset(memory, 0xff, bytes);
    known_[static_cast<uint8_t*>(memory)] = bytes;
    stats_.allocated += bytes;
    stats_.most = std::max(stats_.most, stats_.allocated);
    ++stats_.allocations;
    return Memory(static_cast<uint8_t*>(memory),
                  [device = shared_from_this(), bytes](uint8_t* p) {
                    device->Forget(p);
                    munmap(p, std::max<int64_t>(bytes, 1));
                    device->stats_.allocated -= bytes;
                  });
  }

  absl::StatusOr<Memory> AllocateHost(int64_t bytes,
                                      absl::string_view what) override {
    ++stats_.allocations;
    auto* const memory = new uint8_t[bytes];
    known_[memory] = bytes;
    return Memory(memory, [device = shared_from_this()](uint8_t* p) {
      device->Forget(p);
      delete[] p;
    });
  }

  void Copy(void* to, const void* from, int64_t bytes) override {
    if (stream_.captured != nullptr) std::abort();
    stream_.Put([=] { std::memcpy(to, from, bytes); });
    // Other memory of the host is copied from, or to, before this returns.
    if (!IsKnown(to) || !IsKnown(from)) stream_.WorkUntil(stream_.end());
  }
  void Clear(void* memory, int64_t bytes) override {
    if (stream_.captured != nullptr) std::abort();
    stream_.Put([=] { std::memset(memory, 0, bytes); });
  }

  absl::Status Synchronize() override {
    stream_.WorkUntil(stream_.end());
    return status();
  }

  absl::StatusOr<std::unique_ptr<Event>> NewEvent() override {
    return std::make_unique<EmulatedEvent>();
  }
  void Record(Event& event) override {
    static_cast<EmulatedEvent&>(event).end = stream_.end();
  }
  absl::Status Wait(Event& event) override {
    stream_.WorkUntil(static_cast<EmulatedEvent&>(event).end);
    return status();
  }

  absl::StatusOr<std::unique_ptr<Graph>> Capture(
      absl::FunctionRef<void()> enqueue) override {
    auto graph = std::make_unique<EmulatedGraph>();
    stream_.captured = &graph->work;
    enqueue();
    stream_.captured = nullptr;
    ++stats_.captures;
    return graph;
  }

  void Launch(Graph& graph) override {
    ++stats_.launches;
    stats_.launches_behind += stream_.done < end_of_last_launch_;
    for (const auto& kernel : static_cast<EmulatedGraph&>(graph).work) {
      stream_.Put(kernel);
    }
    end_of_last_launch_ = stream_.end();
  }

  EmulatedDeviceStats stats() const override {
    EmulatedDeviceStats stats = stats_;
    stats.kernels = stream_.kernels;
    return stats;
  }
  void Break() override { broken_ = true; }

 private:
  absl::Status status() const {
    if (!broken_) return absl::OkStatus();
    return absl::InternalError("run on the GPU: the test broke it");
  }
  bool IsKnown(const void* p) const {
    const auto* const byte = static_cast<const uint8_t*>(p);
    const auto after = known_.upper_bound(byte);
    if (after == known_.begin()) return false;
    const auto& [begin, bytes] = *std::prev(after);
    return byte < begin + bytes;
  }
  void Forget(const uint8_t* memory) {
    stream_.WorkUntil(stream_.end());
    known_.erase(memory);
  }

  const EmulatedDeviceOptions options_;
  EmulatedStream stream_;
  EmulatedDeviceStats stats_;
  int64_t end_of_last_launch_ = 0;
  std::map<const uint8_t*, int64_t> known_;  // allocated: bytes of each
  bool broken_ = false;
};

}  // namespace

std::shared_ptr<EmulatedDevice> NewEmulatedDevice(
    const EmulatedDeviceOptions& options) {
  return std::make_shared<EmulatedDeviceImpl>(options);
}

namespace emulated {

void Enqueue(Stream* stream, std::function<void()> work) {
  auto& queue = *reinterpret_cast<EmulatedStream*>(stream);
  ++queue.kernels;
  if (queue.captured != nullptr) {
    queue.captured->push_back(std::move(work));
  } else {
    queue.Put(std::move(work));
  }
}

}  // namespace emulated
}  // namespace millrace::backends::cuda
