// The CPU backend, "onednn": our own kernels for quantised weights, oneDNN for
// float weights in large batches. README.md tells which and why.
#ifndef MILLRACE_BACKENDS_ONEDNN_BACKEND_H_
#define MILLRACE_BACKENDS_ONEDNN_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"
#include "backends/backend.h"
#include "backends/model_file/model_file.h"
#include "backends/ops.h"

namespace millrace::backends {

// FAILED_PRECONDITION or INVALID_ARGUMENT for kernels that this CPU or this
// program does not have, or a number of threads below 1.
absl::StatusOr<std::unique_ptr<Backend>> NewOnednnBackend(
    const BackendOptions& options);

// The operations alone, for the contract suite. Errors as of LoadModel.
absl::StatusOr<std::unique_ptr<Ops>> NewOnednnOps(
    const ModelFile& file, const LoadOptions& load,
    const BackendOptions& options);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_ONEDNN_BACKEND_H_
