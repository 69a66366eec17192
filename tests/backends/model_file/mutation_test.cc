// Files that somebody has tampered with at random: refused with a typed error
// or opened, and then whole; never a crash, never much memory.
//
// Deterministic: mutant N is the same in every run. MILLRACE_FULL=1 tries
// 200,000 of them.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "backends/model_file/registry.h"
#include "backends/quant/dequantize.h"
#include "gmock/gmock.h"
#include "tests/backends/model_file/model_file_matchers.h"
#include "tests/testing/gguf_writer.h"

namespace millrace::backends {
namespace {

using namespace millrace::testing;

bool Full() { return std::getenv("MILLRACE_FULL") != nullptr; }

std::string SmallModel() {
  return TinyLlama({.num_layers = 1,
                    .num_heads = 2,
                    .num_kv_heads = 1,
                    .embedding_size = 32,
                    .feed_forward_size = 32,
                    .vocabulary_size = 264,
                    .embeddings = WeightType::kQ8_0,
                    .matrices = WeightType::kQ4_1,
                    .weight_types = {{"ffn_down", WeightType::kQ4_0},
                                     {"attn_k", WeightType::kF16},
                                     {"attn_v", WeightType::kBF16}}})
      .Serialize();
}

// One file that is written over: thousands of new ones would be slower.
class Workbench {
 public:
  absl::StatusOr<std::unique_ptr<const ModelFile>> Open(
      const std::string& bytes) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
    return OpenModelFile(path_, {});
  }

 private:
  const std::string path_ = WriteTestFile("");
};

// Values that break arithmetic more often than others.
constexpr uint64_t kNasty[] = {0,
                               1,
                               0x7f,
                               0x80,
                               0xff,
                               0x7fff,
                               0xffff,
                               0x7fffffff,
                               0x80000000,
                               0xffffffff,
                               uint64_t{1} << 32,
                               uint64_t{1} << 61,
                               uint64_t{1} << 63,
                               ~uint64_t{0},
                               ~uint64_t{31}};

size_t Place(const std::string& bytes, RandomValues& random) {
  // Half of all changes hit the counts, keys and tensors; there is much text
  // between them.
  const size_t header = std::min<size_t>(bytes.size(), 700);
  return random.Bits() % (random.Bits() % 2 == 0 ? header : bytes.size());
}

void Overwrite(std::string& bytes, size_t at, uint64_t value, int width) {
  const std::string little = LittleEndian(value, width);
  const size_t n = std::min<size_t>(width, bytes.size() - at);
  bytes.replace(at, n, little, 0, n);
}

void MutateOnce(std::string& bytes, RandomValues& random) {
  const size_t at = Place(bytes, random);
  switch (random.Bits() % 6) {
    case 0:  // a bit
      bytes[at] ^= 1 << random.Bits() % 8;
      break;
    case 1:  // a byte
      bytes[at] = random.Bits();
      break;
    case 2:  // a number of 4 bytes
      Overwrite(bytes, at, kNasty[random.Bits() % std::size(kNasty)], 4);
      break;
    case 3:  // a number of 8 bytes
      Overwrite(bytes, at, kNasty[random.Bits() % std::size(kNasty)], 8);
      break;
    case 4:  // some bytes gone
      bytes.erase(at, 1 + random.Bits() % 16);
      break;
    case 5:  // some bytes twice
      bytes.insert(at, bytes.substr(at, 1 + random.Bits() % 16));
      break;
  }
}

std::string Mutant(const std::string& original, uint64_t number) {
  RandomValues random(number);
  std::string bytes = original;
  const int changes = 1 + random.Bits() % 4;
  for (int i = 0; i < changes; ++i) MutateOnce(bytes, random);
  if (random.Bits() % 8 == 0) bytes.resize(Place(bytes, random));
  return bytes;
}

// What an opened file promises: every weight can be read and is a number.
void ExpectWhole(const ModelFile& file, uint64_t number) {
  ASSERT_EQ(file.tokenizer().tokens.size(), file.config().vocabulary_size);
  for (const std::string& name : file.TensorNames()) {
    const TensorView tensor = file.FindTensor(name).value();
    std::vector<float> row(tensor.cols);
    for (int64_t r = 0; r < tensor.rows; ++r) {
      DequantizeRow(tensor.type, tensor.Row(r), row.data(), tensor.cols);
      ASSERT_TRUE(std::all_of(row.begin(), row.end(),
                              [](float w) { return std::isfinite(w); }))
          << "mutant " << number << ", " << name;
    }
  }
}

TEST(MutationTest, EveryMutantIsRefusedOrWhole) {
  const std::string original = SmallModel();
  Workbench bench;
  ASSERT_TRUE(bench.Open(original).ok()) << bench.Open(original).status();
  const uint64_t count = Full() ? 200'000 : 2'000;
  uint64_t opened = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const auto file = bench.Open(Mutant(original, i));
    if (file.ok()) {
      ++opened;
      ExpectWhole(**file, i);
    } else {
      ASSERT_THAT(file.status(),
                  IsRefused(absl::StatusCode::kInvalidArgument, {}))
          << "mutant " << i;
    }
  }
  // Weights, names and text may change and stay valid, structure may not:
  // both must have been tried.
  EXPECT_GT(opened, count / 100);
  EXPECT_LT(opened, count / 2);
}

TEST(MutationTest, EveryTruncationIsRefused) {
  const std::string original = SmallModel();
  const size_t step = Full() ? 1 : 29;
  Workbench bench;
  // The padding behind the last tensor may be missing.
  for (size_t size = 0; size + 32 < original.size(); size += step) {
    ASSERT_THAT(bench.Open(original.substr(0, size)).status(),
                IsRefused(absl::StatusCode::kInvalidArgument, {}))
        << size << " bytes";
  }
}

TEST(MutationTest, NoiseIsRefused) {
  RandomValues random(7);
  Workbench bench;
  for (int i = 0; i < 200; ++i) {
    std::string bytes = i % 2 == 0 ? "GGUF" + LittleEndian(3, 4) : "";
    const size_t size = bytes.size() + 1 + random.Bits() % 4096;
    while (bytes.size() < size) bytes += static_cast<char>(random.Bits());
    ASSERT_THAT(bench.Open(bytes).status(),
                IsRefused(absl::StatusCode::kInvalidArgument, {}));
  }
}

}  // namespace
}  // namespace millrace::backends
