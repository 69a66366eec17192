// What a file costs that is refused by its header: at most 64 MiB, even if it
// fills every table as far as it may before the one thing that is wrong.
#include <malloc.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backends/model_file/registry.h"
#include "gmock/gmock.h"
#include "tests/backends/model_file/model_file_matchers.h"
#include "tests/testing/gguf_writer.h"

namespace millrace::backends {
namespace {

using namespace millrace::testing;

constexpr int64_t kMostKiB = 64 << 10;

// The value of a line of /proc/self/status, in KiB.
int64_t StatusKiB(absl::string_view line) {
  std::ifstream status("/proc/self/status");
  std::string name;
  int64_t value = 0;
  while (status >> name) {
    if (name == absl::StrCat(line, ":") && status >> value) break;
  }
  return value;
}

// Makes the kernel forget the past peak.
bool ForgetPeak() {
  malloc_trim(0);
  std::ofstream forget("/proc/self/clear_refs");
  return static_cast<bool>(forget << "5" << std::flush);
}

void ExpectCheapRefusal(const std::string& path,
                        std::vector<std::string> words) {
  if (!ForgetPeak()) GTEST_SKIP() << "/proc/self/clear_refs cannot be written";
  const int64_t before = StatusKiB("VmRSS");
  const absl::Status status = OpenModelFile(path, {}).status();
  const int64_t peak = StatusKiB("VmHWM") - before;
  EXPECT_THAT(status, IsRefused(absl::StatusCode::kInvalidArgument, words));
  EXPECT_LE(peak, kMostKiB);
  ::testing::Test::RecordProperty("peak_kib", absl::StrCat(peak));
}

// Writes the file and forgets it, so that only its path is left in memory.
std::string LargestTokenizer() {
  std::vector<std::string> tokens = {"a", "b", "ab"};
  while (tokens.size() < 256 * 1024) {
    tokens.push_back(absl::StrCat("token ", tokens.size()));
  }
  std::vector<std::string> merges(500'000, "a b");
  merges.back() = "a c";  // the one thing that is wrong
  GgufImage image = TinyLlama({.vocabulary_size = 3});
  image.Remove("llama.vocab_size");
  auto& embedding = image.FindTensor("token_embd.weight");
  embedding.dimensions[1] = tokens.size();
  embedding.data.resize(256 * tokens.size());
  image.Set("tokenizer.ggml.tokens", GgufStrings(tokens));
  image.Set("tokenizer.ggml.token_type",
            GgufI32s(std::vector<int32_t>(tokens.size(), 1)));
  image.Set("tokenizer.ggml.merges", GgufStrings(merges));
  return WriteTestFile(image.Serialize());
}

std::string LongestHeader() {
  GgufImage image = TinyLlama({});
  image.Set("x", GgufString(std::string(40 << 20, 'x')));
  return WriteTestFile(image.Serialize());
}

std::string ManyKeys() {
  GgufImage image = TinyLlama({});
  for (int i = 0; i < 3000; ++i) {
    image.keys.push_back({absl::StrCat(i, std::string(4000, 'k')), GgufU32(1)});
  }
  image.Set("llama.unknown", GgufU32(1));
  return WriteTestFile(image.Serialize());
}

TEST(HeaderCostTest, IsBoundedForTheLargestTokenizer) {
  ExpectCheapRefusal(LargestTokenizer(), {"has entry 499999 'a c'"});
}

TEST(HeaderCostTest, IsBoundedForTheLongestHeader) {
  ExpectCheapRefusal(LongestHeader(), {"ends beyond the first 16777216 bytes"});
}

TEST(HeaderCostTest, IsBoundedForManyLongKeys) {
  ExpectCheapRefusal(ManyKeys(), {"'llama.unknown' is not supported"});
}

}  // namespace
}  // namespace millrace::backends
