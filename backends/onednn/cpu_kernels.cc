#include "backends/onednn/cpu_kernels.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace millrace::backends::onednn {
namespace {

struct Candidate {
  const Kernels* kernels;
  bool supported;  // by the CPU, and by the kernel, which saves the registers
};

std::vector<Candidate> Candidates() {
#ifdef __x86_64__
  const bool avx2 = __builtin_cpu_supports("avx2") &&
                    __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  return {{&kAvx512VnniKernels, vnni},
          {&kAvx512Kernels, avx512},
          {&kAvx2Kernels, avx2},
          {&kScalarKernels, true}};
#else
  return {{&kScalarKernels, true}};
#endif
}

std::string Names(const std::vector<Candidate>& candidates) {
  std::string names = "auto";
  for (const Candidate& candidate : candidates) {
    if (candidate.supported)
      absl::StrAppend(&names, ", ", candidate.kernels->name);
  }
  return names;
}

}  // namespace

std::vector<const Kernels*> SupportedKernels() {
  std::vector<const Kernels*> supported;
  for (const Candidate& candidate : Candidates()) {
    if (candidate.supported) supported.push_back(candidate.kernels);
  }
  return supported;
}

absl::StatusOr<const Kernels*> ChooseKernels(absl::string_view name) {
  if (name == "auto") return SupportedKernels().front();
  const std::vector<Candidate> candidates = Candidates();
  for (const Candidate& candidate : candidates) {
    if (name != candidate.kernels->name) continue;
    if (candidate.supported) return candidate.kernels;
    return absl::FailedPreconditionError(
        absl::StrCat("choose CPU kernels: this CPU cannot run '", name,
                     "'; choose one of ", Names(candidates)));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("choose CPU kernels: there are none called '", name,
                   "'; choose one of ", Names(candidates)));
}

}  // namespace millrace::backends::onednn
