#include "backends/registry.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "backends/cuda/backend.h"
#include "backends/onednn/backend.h"
#include "backends/reference/backend.h"

namespace millrace::backends {
namespace {

struct Entry {
  const char* name;
  absl::StatusOr<std::unique_ptr<Backend>> (*make)(const BackendOptions&);
  // Whether this program has it; null: always.
  bool (*is_compiled_in)() = nullptr;
};

// Every backend there is, best first.
constexpr Entry kBackends[] = {
    {"cuda", NewCudaBackend, IsCudaCompiledIn},
    {"onednn", NewOnednnBackend},
    {"reference", NewReferenceBackend},
};

// The first backend that this machine can run; what is wrong with the last one
// if it can run none. Options that are wrong are wrong for all of them.
absl::StatusOr<std::unique_ptr<Backend>> NewBestBackend(
    const BackendOptions& options) {
  absl::Status failed;
  for (const Entry& entry : kBackends) {
    absl::StatusOr<std::unique_ptr<Backend>> backend = entry.make(options);
    if (backend.ok() || absl::IsInvalidArgument(backend.status())) {
      return backend;
    }
    failed = backend.status();
  }
  return failed;
}

}  // namespace

std::vector<std::string> CompiledBackends() {
  std::vector<std::string> names;
  for (const Entry& entry : kBackends) {
    if (entry.is_compiled_in == nullptr || entry.is_compiled_in()) {
      names.push_back(entry.name);
    }
  }
  return names;
}

absl::StatusOr<std::unique_ptr<Backend>> NewBackend(
    absl::string_view name, const BackendOptions& options) {
  if (name == "auto") return NewBestBackend(options);
  for (const Entry& entry : kBackends) {
    if (entry.name == name) return entry.make(options);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "choose a backend: '", name, "' is not compiled into this program; use ",
      absl::StrJoin(CompiledBackends(), ", "), " or auto"));
}

}  // namespace millrace::backends
