// How fast this machine reads memory right now: what a decode step is measured
// by, as it reads all weights and little else.
#ifndef MILLRACE_TESTS_BENCHMARKS_READ_PROBE_H_
#define MILLRACE_TESTS_BENCHMARKS_READ_PROBE_H_

#include <cstddef>

#include "backends/onednn/memory_region.h"

namespace millrace::benchmarks {

class ReadProbe {
 public:
  // Takes `bytes` of memory in large pages and writes it once.
  explicit ReadProbe(size_t bytes);

  // The median over `passes` of bytes per second that `num_threads` threads
  // read together, each its own part from front to back.
  double BytesPerSecond(int num_threads, int passes) const;

 private:
  backends::onednn::MemoryRegion memory_;
};

}  // namespace millrace::benchmarks

#endif  // MILLRACE_TESTS_BENCHMARKS_READ_PROBE_H_
