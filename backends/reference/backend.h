// The reference backend: slow, obvious, and right; runs anywhere.
#ifndef MILLRACE_BACKENDS_REFERENCE_BACKEND_H_
#define MILLRACE_BACKENDS_REFERENCE_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"
#include "backends/backend.h"

namespace millrace::backends {

// INVALID_ARGUMENT for a number of threads below 1. cpu_kernels is not used.
absl::StatusOr<std::unique_ptr<Backend>> NewReferenceBackend(
    const BackendOptions& options);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_REFERENCE_BACKEND_H_
