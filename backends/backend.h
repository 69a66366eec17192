// A Backend is a kind of machine that can run a model: it loads weights into
// its own form and owns the memory of keys and values.
//
//   auto backend = NewBackend("auto", {.num_threads = 2});   // registry.h
//   auto model = (*backend)->LoadModel(*file, {.max_rows = 128});
//   auto kv = (*backend)->CreateKvStorage(spec, num_blocks);
//   (*model)->Forward(batch, **kv, logits);
//
// Models and storages keep what they need of the backend alive.
#ifndef MILLRACE_BACKENDS_BACKEND_H_
#define MILLRACE_BACKENDS_BACKEND_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "backends/model.h"
#include "backends/model_file/model_file.h"
#include "cache/kv_spec.h"
#include "cache/kv_storage.h"

namespace millrace::backends {

struct BackendOptions {
  // Compute threads, the caller's included; 1 or more. More than the cores that
  // the process may use make every step slower.
  int num_threads = 1;
  // Which instruction set the kernels use: "auto", "scalar", "avx2", "avx512",
  // "avx512_vnni". Anything but auto is for tests.
  std::string cpu_kernels = "auto";
  // Keeps to one engine per weight type at every batch size, so that results
  // never depend on batch mates. On a CPU quantised weights always do.
  bool deterministic = false;
};

struct LoadOptions {
  // The most rows of one batch; activations are allocated for so many.
  int max_rows = 128;
};

// What a policy, a session or an engine may ask of a backend.
struct Capabilities {
  std::vector<cache::KvDtype> kv_dtypes;  // the default one first
  // Whether KvView::key_positions and KvView::attention are carried out.
  bool attention_scores = false;
  // Sequences that decode in one step, and tokens of one prefill chunk, beyond
  // which its tokens come no faster. Where nothing else is asked for.
  int decode_rows = 64;
  int prefill_chunk_tokens = 64;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // The stable name, such as "onednn".
  virtual absl::string_view Name() const = 0;

  // One line for people: device, instruction set, threads.
  virtual std::string DeviceInfo() const = 0;

  virtual Capabilities capabilities() const = 0;

  // Bytes that LoadModel will hold beyond the file: weights in the backend's
  // form and activations. An upper bound: admission relies on it.
  virtual int64_t EstimateMemory(const ModelFile& file,
                                 const LoadOptions& options) const = 0;

  // Bytes that are free for weights, activations, keys and values, where these
  // are in memory of the device's own; none: in the host's memory.
  virtual std::optional<int64_t> AvailableMemory() const {
    return std::nullopt;
  }

  // Repacks the weights. `file` may be closed afterwards. UNIMPLEMENTED names a
  // weight type or shape that this backend does not take.
  virtual absl::StatusOr<std::unique_ptr<Model>> LoadModel(
      const ModelFile& file, const LoadOptions& options) = 0;

  // Memory for keys and values. Physical memory is taken when a block is first
  // written. RESOURCE_EXHAUSTED if the address space or device is too small;
  // INVALID_ARGUMENT for a dtype that capabilities() lacks.
  virtual absl::StatusOr<std::unique_ptr<cache::KvStorage>> CreateKvStorage(
      const cache::KvSpec& spec, int32_t num_blocks) = 0;
};

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_BACKEND_H_
