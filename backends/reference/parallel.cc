#include "backends/reference/parallel.h"

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace millrace::backends::reference {

void Parallel(int n, int num_threads,
              absl::FunctionRef<void(int begin, int end)> work) {
  const auto cut = [&](int part) {
    return static_cast<int>(int64_t{n} * part / num_threads);
  };
  std::vector<std::thread> threads;
  for (int part = 1; part < num_threads; ++part) {
    threads.emplace_back(
        [&work, cut, part] { work(cut(part), cut(part + 1)); });
  }
  work(cut(0), cut(1));
  for (std::thread& thread : threads) thread.join();
}

}  // namespace millrace::backends::reference
