// Chooses the kernels for this CPU, once, at start.
#ifndef MILLRACE_BACKENDS_ONEDNN_CPU_KERNELS_H_
#define MILLRACE_BACKENDS_ONEDNN_CPU_KERNELS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "backends/onednn/kernels/kernels.h"

namespace millrace::backends::onednn {

// The tables that this CPU can run, best first. The last is always "scalar".
std::vector<const Kernels*> SupportedKernels();

// The table of that name; "auto" is the best. INVALID_ARGUMENT if there is no
// such table, FAILED_PRECONDITION if this CPU lacks its instructions.
absl::StatusOr<const Kernels*> ChooseKernels(absl::string_view name);

}  // namespace millrace::backends::onednn

#endif  // MILLRACE_BACKENDS_ONEDNN_CPU_KERNELS_H_
