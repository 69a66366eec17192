// What the process may use of the machine: cores and memory, as the cgroup and
// the affinity say, not as the host has them.
#ifndef MILLRACE_SERVICES_SERVER_MACHINE_H_
#define MILLRACE_SERVICES_SERVER_MACHINE_H_

#include <cstdint>
#include <optional>
#include <string>

namespace millrace::server {

// Cores by affinity and cgroup quota, rounded down; at least 1.
int UsableCores();

// The cgroup's limit (version 2 or 1), if there is one.
std::optional<int64_t> MemoryLimit();
int64_t AvailableMemory();  // of the host
int64_t ResidentBytes();    // of this process
int64_t OpenFds();          // of this process

// Memory for keys and values where no flag says it: of the limit, what is left
// beside weights and a reserve of 15 %, at least 512 MiB; without a limit a
// quarter of what is available, at most 4 GiB. 0 if nothing is left.
int64_t DefaultKvMemory(std::optional<int64_t> limit, int64_t available,
                        int64_t weights);

// "max 100000" or "150000 100000" of cpu.max: the quota in cores.
std::optional<double> ParseCpuMax(const std::string& text);

}  // namespace millrace::server

#endif  // MILLRACE_SERVICES_SERVER_MACHINE_H_
