// Cuts a loop among threads.
#ifndef MILLRACE_BACKENDS_REFERENCE_PARALLEL_H_
#define MILLRACE_BACKENDS_REFERENCE_PARALLEL_H_

#include "absl/functional/function_ref.h"

namespace millrace::backends::reference {

// Calls work(begin, end) for consecutive ranges that together are [0, n), each
// in a thread of its own and one in the caller's; returns when all are done.
// REQUIRES: num_threads >= 1; the ranges do not depend on one another.
void Parallel(int n, int num_threads,
              absl::FunctionRef<void(int begin, int end)> work);

}  // namespace millrace::backends::reference

#endif  // MILLRACE_BACKENDS_REFERENCE_PARALLEL_H_
