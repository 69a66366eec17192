// A Device is a GPU as the rest of this folder sees it: memory, a stream of
// work, graphs of captured work, and the table of kernels.
//
// Work is put into the one stream and done in order; only Synchronize and Wait
// wait. An error stays: it shows at the next of them, and at every one after
// it.
//
//   cuda_device.h                   a GPU
//   tests/testing/cuda_emulator     kernels on the CPU
//
// Not thread-safe: called from the engine thread.
#ifndef MILLRACE_BACKENDS_CUDA_DEVICE_H_
#define MILLRACE_BACKENDS_CUDA_DEVICE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "backends/cuda/kernels/kernels.h"
#include "backends/cuda/kernels/probe.h"

namespace millrace::backends::cuda {

// Memory of a device, or host memory that it copies from and to without
// waiting. Freed at the end of its life; keeps the device alive.
using Memory = std::shared_ptr<uint8_t>;

// Work that was captured, to be put into the stream at once as often as wanted.
class Graph {
 public:
  virtual ~Graph() = default;
};

// A point in the stream, to wait for.
class Event {
 public:
  virtual ~Event() = default;
};

class Device {
 public:
  virtual ~Device() = default;

  // One line for people: name, memory, driver.
  virtual std::string Info() const = 0;

  virtual int num_multiprocessors() const = 0;
  // Shared memory that a thread block can have.
  virtual int64_t max_shared_bytes() const = 0;
  virtual int64_t FreeBytes() const = 0;

  virtual const Kernels& kernels() const = 0;
  virtual const Probes& probes() const = 0;  // for benchmarks
  virtual Stream* stream() = 0;

  // 256-aligned, not initialised. RESOURCE_EXHAUSTED says what it was for, how
  // much was asked and how much is free.
  virtual absl::StatusOr<Memory> Allocate(int64_t bytes,
                                          absl::string_view what) = 0;
  virtual absl::StatusOr<Memory> AllocateHost(int64_t bytes,
                                              absl::string_view what) = 0;

  // In the stream. Host memory that is not of AllocateHost may be copied before
  // this returns.
  virtual void Copy(void* to, const void* from, int64_t bytes) = 0;
  virtual void Clear(void* memory, int64_t bytes) = 0;

  // Waits until the stream is empty. INTERNAL names the device's error.
  virtual absl::Status Synchronize() = 0;

  virtual absl::StatusOr<std::unique_ptr<Event>> NewEvent() = 0;
  // The event is where the stream ends now.
  virtual void Record(Event& event) = 0;
  // Waits until what was in the stream before the event is done; what was put
  // there behind it goes on. INTERNAL as Synchronize.
  virtual absl::Status Wait(Event& event) = 0;

  // Keeps the kernels that `enqueue` puts into the stream, instead of doing
  // them. They must not depend on anything that changes but what is in memory.
  virtual absl::StatusOr<std::unique_ptr<Graph>> Capture(
      absl::FunctionRef<void()> enqueue) = 0;
  virtual void Launch(Graph& graph) = 0;
};

}  // namespace millrace::backends::cuda

#endif  // MILLRACE_BACKENDS_CUDA_DEVICE_H_
