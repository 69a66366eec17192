#include "backends/model_file/registry.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "backends/model_file/file_bytes.h"
#include "backends/model_file/gguf_file.h"
#include "backends/model_file/invalid_file.h"

namespace millrace::backends {
namespace {

struct Format {
  absl::string_view name;
  bool (*matches)(absl::Span<const uint8_t> first_bytes);
  absl::StatusOr<std::unique_ptr<const ModelFile>> (*read)(
      std::unique_ptr<FileBytes> file, const std::string& path);
};

// Every format, one line each.
constexpr Format kFormats[] = {
    {"gguf", IsGguf, ReadGguf},
};

// As many bytes as any format needs to be told by.
constexpr uint64_t kFirstBytes = 16;

absl::Status CheckPin(absl::string_view pin) {
  if (pin.empty()) return absl::OkStatus();
  if (pin.size() == 64 &&
      std::all_of(pin.begin(), pin.end(), absl::ascii_isxdigit)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the expected SHA-256 is '", Printable(pin),
                   "'; it must be 64 hex digits, as sha256sum prints them"));
}

absl::StatusOr<std::unique_ptr<const ModelFile>> Read(const std::string& path) {
  absl::StatusOr<std::unique_ptr<FileBytes>> file = FileBytes::Open(path);
  if (!file.ok()) return file.status();
  const absl::StatusOr<absl::Span<const uint8_t>> first =
      (*file)->Load(std::min(kFirstBytes, (*file)->size()));
  if (!first.ok()) return first.status();
  for (const Format& format : kFormats) {
    if (format.matches(*first)) return format.read(*std::move(file), path);
  }
  return InvalidFile(0, "magic",
                     absl::StrCat("is that of no known format; known are: ",
                                  absl::StrJoin(ModelFileFormats(), ", ")));
}

absl::StatusOr<std::unique_ptr<const ModelFile>> ReadPinned(
    const std::string& path, const std::string& pin) {
  absl::Status status = CheckPin(pin);
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<const ModelFile>> file = Read(path);
  if (!file.ok() || pin.empty()) return file;
  const std::string& actual = (*file)->info().sha256;
  if (absl::AsciiStrToLower(pin) == actual) return file;
  return absl::InvalidArgumentError(
      absl::StrCat("its SHA-256 is ", actual, "; ", pin, " was expected"));
}

}  // namespace

std::vector<std::string> ModelFileFormats() {
  std::vector<std::string> names;
  for (const Format& format : kFormats) names.emplace_back(format.name);
  return names;
}

absl::StatusOr<std::unique_ptr<const ModelFile>> OpenModelFile(
    const std::string& path, const OpenOptions& options) {
  absl::StatusOr<std::unique_ptr<const ModelFile>> file =
      ReadPinned(path, options.expected_sha256);
  if (file.ok()) return file;
  return WithModelFileReason(absl::Status(
      file.status().code(),
      absl::StrCat("read model file '", path, "': ", file.status().message())));
}

}  // namespace millrace::backends
