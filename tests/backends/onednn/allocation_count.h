// Counts the calls of operator new in a test program that links this.
#ifndef MILLRACE_TESTS_BACKENDS_ONEDNN_ALLOCATION_COUNT_H_
#define MILLRACE_TESTS_BACKENDS_ONEDNN_ALLOCATION_COUNT_H_

namespace millrace {

// Since the program began, by all threads. Thread-safe.
int AllocationCount();

}  // namespace millrace

#endif  // MILLRACE_TESTS_BACKENDS_ONEDNN_ALLOCATION_COUNT_H_
