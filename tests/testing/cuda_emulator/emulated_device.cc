#include "tests/testing/cuda_emulator/emulated_device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
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

struct EmulatedStream {
  Work* captured = nullptr;  // while work is being captured
  int64_t kernels = 0;
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
    stats_.allocated += bytes;
    stats_.most = std::max(stats_.most, stats_.allocated);
    ++stats_.allocations;
    return Memory(static_cast<uint8_t*>(memory),
                  [device = shared_from_this(), bytes](uint8_t* p) {
                    munmap(p, std::max<int64_t>(bytes, 1));
                    device->stats_.allocated -= bytes;
                  });
  }

  absl::StatusOr<Memory> AllocateHost(int64_t bytes,
                                      absl::string_view what) override {
    ++stats_.allocations;
    return Memory(new uint8_t[bytes], [](const uint8_t* p) { delete[] p; });
  }

  void Copy(void* to, const void* from, int64_t bytes) override {
    if (stream_.captured != nullptr) std::abort();
    std::memcpy(to, from, bytes);
  }
  void Clear(void* memory, int64_t bytes) override {
    if (stream_.captured != nullptr) std::abort();
    std::memset(memory, 0, bytes);
  }

  absl::Status Synchronize() override {
    if (!broken_) return absl::OkStatus();
    return absl::InternalError("run on the GPU: the test broke it");
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
    for (const auto& kernel : static_cast<EmulatedGraph&>(graph).work) {
      kernel();
    }
  }

  EmulatedDeviceStats stats() const override {
    EmulatedDeviceStats stats = stats_;
    stats.kernels = stream_.kernels;
    return stats;
  }
  void Break() override { broken_ = true; }

 private:
  const EmulatedDeviceOptions options_;
  EmulatedStream stream_;
  EmulatedDeviceStats stats_;
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
    work();
  }
}

}  // namespace emulated
}  // namespace millrace::backends::cuda
