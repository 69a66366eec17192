#include "tests/benchmarks/read_probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace millrace::benchmarks {
namespace {

typedef uint64_t Line __attribute__((vector_size(64)));

// Reads front to back, four lines at a time, fetched ahead as the kernels do.
uint64_t ReadAll(const uint8_t* data, size_t bytes) {
  Line sums[4] = {};
  for (size_t i = 0; i + 256 <= bytes; i += 256) {
    for (int k = 0; k < 4; ++k) {
      __builtin_prefetch(data + i + 64 * k + 8192, 0, 2);
      __builtin_prefetch(data + i + 64 * k + 1024, 0, 3);
      sums[k] += *reinterpret_cast<const Line*>(data + i + 64 * k);
    }
  }
  const Line sum = sums[0] + sums[1] + sums[2] + sums[3];
  return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

}  // namespace

ReadProbe::ReadProbe(size_t bytes)
    : memory_(*backends::onednn::MemoryRegion::Map(bytes, "a read probe")) {
  std::memset(memory_.data(), 1, bytes);
}

double ReadProbe::BytesPerSecond(int num_threads, int passes) const {
  const size_t part = memory_.size() / num_threads / 256 * 256;
  std::atomic<int> ready{0};
  std::atomic<uint64_t> sink{0};
  std::vector<std::vector<double>> seconds(num_threads);
  std::vector<std::thread> threads;
  for (int i = 0; i < num_threads; ++i) {
    threads.emplace_back([&, i] {
      ready.fetch_add(1);
      while (ready.load() < num_threads) std::this_thread::yield();
      for (int pass = 0; pass < passes; ++pass) {
        const auto start = std::chrono::steady_clock::now();
        sink += ReadAll(memory_.data() + i * part, part);
        const std::chrono::duration<double> took =
            std::chrono::steady_clock::now() - start;
        seconds[i].push_back(took.count());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  double total = 0;
  for (std::vector<double>& passes_of_one : seconds) {
    std::nth_element(passes_of_one.begin(), passes_of_one.begin() + passes / 2,
                     passes_of_one.end());
    total += part / passes_of_one[passes / 2];
  }
  return total;
}

}  // namespace millrace::benchmarks
