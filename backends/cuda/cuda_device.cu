#include <cuda_runtime.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backends/cuda/cuda_device.h"
#include "backends/cuda/kernels/launchers.h"
#include "backends/cuda/kernels/probe_launchers.h"

namespace millrace::backends::cuda {
namespace {

// Kernels are compiled for this and later.
constexpr int kLeastMajor = 8;

class CudaGraph final : public Graph {
 public:
  explicit CudaGraph(cudaGraphExec_t graph) : graph_(graph) {}
  ~CudaGraph() override { cudaGraphExecDestroy(graph_); }

  cudaGraphExec_t get() const { return graph_; }

 private:
  const cudaGraphExec_t graph_;
};

class CudaEvent final : public Event {
 public:
  explicit CudaEvent(cudaEvent_t event) : event_(event) {}
  ~CudaEvent() override { cudaEventDestroy(event_); }

  cudaEvent_t get() const { return event_; }

 private:
  const cudaEvent_t event_;
};

class CudaDevice final : public Device,
                         public std::enable_shared_from_this<CudaDevice> {
 public:
  explicit CudaDevice(const cudaDeviceProp& properties, cudaStream_t stream)
      : properties_(properties), stream_(stream) {}
  ~CudaDevice() override { cudaStreamDestroy(stream_); }

  std::string Info() const override {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    return absl::StrCat(
        "GPU, ", properties_.name, ", ", properties_.totalGlobalMem >> 30,
        " GiB, driver for CUDA ", driver / 1000, ".", driver % 1000 / 10);
  }

  int num_multiprocessors() const override {
    return properties_.multiProcessorCount;
  }
  int64_t max_shared_bytes() const override {
    return static_cast<int64_t>(properties_.sharedMemPerBlockOptin);
  }
  int64_t FreeBytes() const override {
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    return static_cast<int64_t>(free);
  }

  const Kernels& kernels() const override { return gpu::kKernels; }
  const Probes& probes() const override { return gpu::kProbes; }
  Stream* stream() override { return reinterpret_cast<Stream*>(stream_); }

  absl::StatusOr<Memory> Allocate(int64_t bytes,
                                  absl::string_view what) override {
    void* memory = nullptr;
    if (cudaMalloc(&memory, AtLeastOne(bytes)) != cudaSuccess) {
      cudaGetLastError();  // an error that does not stay
      return absl::ResourceExhaustedError(absl::StrCat(
          "allocate ", what, ": ", bytes, " bytes of the GPU, of which ",
          FreeBytes(), " are free: ", std::max<int64_t>(bytes - FreeBytes(), 0),
          " are missing; ask for less"));
    }
    return Memory(static_cast<uint8_t*>(memory),
                  [device = shared_from_this()](uint8_t* p) { cudaFree(p); });
  }

  absl::StatusOr<Memory> AllocateHost(int64_t bytes,
                                      absl::string_view what) override {
    void* memory = nullptr;
    if (cudaMallocHost(&memory, AtLeastOne(bytes)) != cudaSuccess) {
      cudaGetLastError();
      return absl::ResourceExhaustedError(absl::StrCat(
          "allocate ", what, ": ", bytes, " bytes of pinned host memory"));
    }
    return Memory(
        static_cast<uint8_t*>(memory),
        [device = shared_from_this()](uint8_t* p) { cudaFreeHost(p); });
  }

  void Copy(void* to, const void* from, int64_t bytes) override {
    Keep(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_));
  }
  void Clear(void* memory, int64_t bytes) override {
    Keep(cudaMemsetAsync(memory, 0, bytes, stream_));
  }

  absl::Status Synchronize() override {
    Keep(cudaStreamSynchronize(stream_));
    return KeptStatus();
  }

  absl::StatusOr<std::unique_ptr<Event>> NewEvent() override {
    cudaEvent_t event = nullptr;
    Keep(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    if (error_ != cudaSuccess) return KeptStatus();
    return std::make_unique<CudaEvent>(event);
  }
  void Record(Event& event) override {
    Keep(cudaEventRecord(static_cast<CudaEvent&>(event).get(), stream_));
  }
  absl::Status Wait(Event& event) override {
    Keep(cudaEventSynchronize(static_cast<CudaEvent&>(event).get()));
    return KeptStatus();
  }

  absl::StatusOr<std::unique_ptr<Graph>> Capture(
      absl::FunctionRef<void()> enqueue) override {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    Keep(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    enqueue();
    Keep(cudaStreamEndCapture(stream_, &graph));
    if (error_ == cudaSuccess) {
      Keep(cudaGraphInstantiate(&executable, graph, 0));
    }
    if (graph != nullptr) cudaGraphDestroy(graph);
    if (error_ != cudaSuccess) return KeptStatus();
    return std::make_unique<CudaGraph>(executable);
  }

  void Launch(Graph& graph) override {
    Keep(cudaGraphLaunch(static_cast<CudaGraph&>(graph).get(), stream_));
  }

 private:
  static size_t AtLeastOne(int64_t bytes) { return bytes > 0 ? bytes : 1; }

  absl::Status KeptStatus() {
    Keep(cudaGetLastError());  // of launches
    if (error_ == cudaSuccess) return absl::OkStatus();
    return absl::InternalError(absl::StrCat(
        "run on the GPU: ", cudaGetErrorName(error_), ", ",
        cudaGetErrorString(error_), "; the process must be started again"));
  }

  // The first error is the one that says what happened.
  void Keep(cudaError_t error) {
    if (error_ == cudaSuccess) error_ = error;
  }

  const cudaDeviceProp properties_;
  const cudaStream_t stream_;
  cudaError_t error_ = cudaSuccess;
};

absl::Status NoDevice(absl::string_view why) {
  return absl::FailedPreconditionError(
      absl::StrCat("start the cuda backend: no CUDA device: ", why));
}

}  // namespace

bool IsCompiledIn() { return true; }

absl::StatusOr<std::shared_ptr<Device>> NewCudaDevice() {
  int devices = 0;
  cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess) return NoDevice(cudaGetErrorString(error));
  if (devices == 0) return NoDevice("none is visible");
  cudaDeviceProp properties;
  error = cudaGetDeviceProperties(&properties, 0);
  if (error != cudaSuccess) return NoDevice(cudaGetErrorString(error));
  if (properties.major < kLeastMajor) {
    return NoDevice(absl::StrCat(properties.name, " is of compute capability ",
                                 properties.major, ".", properties.minor,
                                 "; 8.0 or higher is needed"));
  }
  cudaStream_t stream;
  error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) return NoDevice(cudaGetErrorString(error));
  return std::make_shared<CudaDevice>(properties, stream);
}

}  // namespace millrace::backends::cuda
