#include "tests/testing/test_files.h"

#include <lzma.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace millrace::testing {
namespace {

[[noreturn]] void Die(const std::string& path, const char* why) {
  std::fprintf(stderr, "test data %s: %s\n", path.c_str(), why);
  std::abort();
}

std::string Unpack(const std::string& path, const std::string& packed) {
  std::string unpacked(16 << 20, '\0');
  uint64_t memory_limit = 1 << 28;
  size_t in = 0, out = 0;
  const lzma_ret result = lzma_stream_buffer_decode(
      &memory_limit, 0, nullptr,
      reinterpret_cast<const uint8_t*>(packed.data()), &in, packed.size(),
      reinterpret_cast<uint8_t*>(unpacked.data()), &out, unpacked.size());
  if (result != LZMA_OK) Die(path, "does not unpack");
  unpacked.resize(out);
  return unpacked;
}

template <typename T>
std::vector<T> Values(const std::string& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

}  // namespace

std::string TestData(absl::string_view name) {
  // Bazel runs tests at the root of their runfiles.
  const std::string path = absl::StrCat("tests/testdata/", name);
  std::ifstream file(path, std::ios::binary);
  if (!file) Die(path, "cannot be opened");
  std::string content(std::istreambuf_iterator<char>(file), {});
  return absl::EndsWith(name, ".xz") ? Unpack(path, content) : content;
}

std::vector<float> TestFloats(absl::string_view name) {
  return Values<float>(TestData(name));
}

std::vector<int32_t> TestIds(absl::string_view name) {
  const auto ids = Values<uint16_t>(TestData(name));
  return {ids.begin(), ids.end()};
}

std::string DefaultModelPath() {
  const char* named = std::getenv("MILLRACE_MODEL");
  const char* home = std::getenv("HOME");
  const std::string path =
      named != nullptr && *named != '\0'
          ? named
          : absl::StrCat(home == nullptr ? "" : home,
                         "/.cache/millrace/SmolLM2-135M-Instruct.Q4_1.gguf");
  return std::filesystem::is_regular_file(path) ? path : "";
}

bool FullTests() {
  const char* full = std::getenv("MILLRACE_FULL");
  return full != nullptr && std::string(full) == "1";
}

}  // namespace millrace::testing
