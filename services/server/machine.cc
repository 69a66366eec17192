#include "services/server/machine.h"

#include <dirent.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace millrace::server {
namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr int64_t kGiB = 1 << 30;
// Version 1 writes "no limit" as a number near 2^63.
constexpr int64_t kNoLimit = int64_t{1} << 60;

std::string FileText(const char* path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<int64_t> FileNumber(const char* path) {
  int64_t value;
  if (!absl::SimpleAtoi(FileText(path), &value)) return std::nullopt;
  return value;
}

}  // namespace

std::optional<double> ParseCpuMax(const std::string& text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(
      absl::StripTrailingAsciiWhitespace(text), absl::MaxSplits(' ', 1));
  double quota, period;
  if (!absl::SimpleAtod(parts.first, &quota) ||
      !absl::SimpleAtod(parts.second, &period) || period <= 0) {
    return std::nullopt;
  }
  return quota / period;
}

int UsableCores() {
  cpu_set_t set;
  int cores = 1;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
  const auto quota = ParseCpuMax(FileText("/sys/fs/cgroup/cpu.max"));
  if (quota) cores = std::min(cores, static_cast<int>(*quota));
  return std::max(cores, 1);
}

std::optional<int64_t> MemoryLimit() {
  for (const char* path : {"/sys/fs/cgroup/memory.max",
                           "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    const auto limit = FileNumber(path);
    if (limit && *limit > 0 && *limit < kNoLimit) return limit;
  }
  return std::nullopt;
}

int64_t AvailableMemory() {
  for (absl::string_view line :
       absl::StrSplit(FileText("/proc/meminfo"), '\n')) {
    if (!absl::ConsumePrefix(&line, "MemAvailable:")) continue;
    absl::ConsumeSuffix(&line, "kB");
    int64_t kilobytes;
    if (absl::SimpleAtoi(line, &kilobytes)) return kilobytes * 1024;
  }
  return 0;
}

int64_t ResidentBytes() {
  const std::vector<std::string> fields =
      absl::StrSplit(FileText("/proc/self/statm"), ' ');
  int64_t pages = 0;
  if (fields.size() < 2 || !absl::SimpleAtoi(fields[1], &pages)) return 0;
  return pages * sysconf(_SC_PAGESIZE);
}

int64_t OpenFds() {
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return 0;
  int64_t count = -3;  // ".", "..", and the folder itself
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count;
}

int64_t DefaultKvMemory(std::optional<int64_t> limit, int64_t available,
                        int64_t weights) {
  if (!limit) return std::min(available / 4, 4 * kGiB);
  const int64_t reserve = std::max(512 * kMiB, *limit / 100 * 15);
  return std::max<int64_t>(*limit - weights - reserve, 0);
}

}  // namespace millrace::server
