// Every backend by name, best first: the visible list is in registry.cc.
#ifndef MILLRACE_BACKENDS_REGISTRY_H_
#define MILLRACE_BACKENDS_REGISTRY_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "backends/backend.h"

namespace millrace::backends {

// Names of the backends in this binary, in the order in which "auto" tries.
std::vector<std::string> CompiledBackends();

// Makes a backend. "auto" takes the first that runs on this machine. A name
// that is no backend's is INVALID_ARGUMENT and says which ones are compiled in;
// one that this program or this machine cannot run is FAILED_PRECONDITION and
// says what is missing.
absl::StatusOr<std::unique_ptr<Backend>> NewBackend(
    absl::string_view name, const BackendOptions& options);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_REGISTRY_H_
