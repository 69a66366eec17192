// What every KvStorage promises (cache/kv_storage.h), on every backend.

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <vector>

#include "absl/base/casts.h"
#include "backends/registry.h"
#include "cache/kv_storage.h"
#include "gmock/gmock.h"
#include "tests/contract/contract_fixture.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/rounded.h"

namespace millrace::backends {
namespace {

using cache::KvDtype;
using cache::KvSpec;
using cache::KvStorage;
using ::testing::Each;
using ::testing::ElementsAre;
using testing::RandomValues;
using testing::Rounded;

constexpr KvSpec kDefaultModel{30, 3, 64};
constexpr KvSpec kTiny{2, 2, 16};
constexpr KvSpec kOdd{3, 1, 10};

class KvStorageContract : public testing::ContractTest {
 protected:
  std::unique_ptr<KvStorage> NewStorage(KvSpec spec, KvDtype dtype,
                                        int32_t num_blocks) {
    spec.dtype = dtype;
    auto storage = backend().CreateKvStorage(spec, num_blocks);
    EXPECT_TRUE(storage.ok()) << storage.status();
    return *std::move(storage);
  }

  static std::vector<float> Random(const KvStorage& storage, int blocks,
                                   uint64_t seed) {
    RandomValues random(seed);
    std::vector<float> values(blocks * CanonicalBlockValues(storage.spec()));
    for (float& value : values) value = random.Value();
    return values;
  }

  static std::vector<float> Read(const KvStorage& storage,
                                 std::vector<cache::KvBlock> blocks) {
    std::vector<float> values(blocks.size() *
                              CanonicalBlockValues(storage.spec()));
    EXPECT_TRUE(storage.ReadBlocks(blocks, absl::MakeSpan(values)).ok());
    return values;
  }

  // What comes back of the first numbers of a block.
  std::vector<float> Stored(std::vector<float> numbers, KvDtype dtype) {
    const size_t n = numbers.size();
    const auto storage = NewStorage({1, 1, 8}, dtype, 1);
    numbers.resize(CanonicalBlockValues(storage->spec()));
    Write(*storage, {0}, numbers);
    numbers = Read(*storage, {0});
    numbers.resize(n);
    return numbers;
  }

  static void Write(KvStorage& storage, std::vector<cache::KvBlock> blocks,
                    const std::vector<float>& values) {
    EXPECT_TRUE(storage.WriteBlocks(blocks, values).ok());
  }
};

TEST_P(KvStorageContract, SaysWhatItWasMadeOf) {
  const auto storage = NewStorage(kOdd, KvDtype::kF16, 7);
  EXPECT_EQ(storage->spec(), (KvSpec{3, 1, 10, KvDtype::kF16}));
  EXPECT_EQ(storage->num_blocks(), 7);
}

TEST_P(KvStorageContract, F32ComesBackBitByBit) {
  for (const KvSpec& spec : {kDefaultModel, kTiny, kOdd}) {
    const auto storage = NewStorage(spec, KvDtype::kF32, 4);
    const std::vector<float> values = Random(*storage, 2, 1);
    Write(*storage, {3, 1}, values);
    EXPECT_EQ(Read(*storage, {3, 1}), values);
  }
}

TEST_P(KvStorageContract, ComesBackRoundedToTheNearestEven) {
  for (const auto& [dtype, name, bytes, scaled] : cache::kKvDtypes) {
    for (const KvSpec& spec : {kDefaultModel, kTiny, kOdd}) {
      const auto storage = NewStorage(spec, dtype, 4);
      const std::vector<float> values = Random(*storage, 2, 2);
      const std::vector<float> rounded = Rounded(values, spec.head_dim, dtype);
      Write(*storage, {0, 2}, values);
      EXPECT_EQ(Read(*storage, {0, 2}), rounded);
      Write(*storage, {1, 3}, rounded);  // rounding again changes nothing
      EXPECT_EQ(Read(*storage, {1, 3}), rounded);
    }
  }
}

TEST_P(KvStorageContract, F16KeepsWhatIsHalfwayEvenAndWhatIsTiny) {
  EXPECT_THAT(Stored({1 + 0x1p-11f,      // halfway between 1 and 1 + 2^-10
                      1 + 3 * 0x1p-11f,  // halfway, the even one is above
                      0x1p-24f,          // the smallest subnormal
                      -65504},           // the largest number
                     KvDtype::kF16),
              ElementsAre(1, 1 + 0x1p-9f, 0x1p-24f, -65504));
}

TEST_P(KvStorageContract, BF16KeepsTheRangeOfAFloatAndEightBits) {
  EXPECT_THAT(Stored({1 + 0x1p-9f,      // half precision would keep it
                      1 + 0x1p-8f,      // halfway between 1 and 1 + 2^-7
                      1 + 3 * 0x1p-8f,  // halfway, the even one is above
                      -0x1.fep127f,     // the largest number
                      0x1p-133f},       // the smallest subnormal
                     KvDtype::kBF16),
              ElementsAre(1, 1, 1 + 0x1p-6f, -0x1.fep127f, 0x1p-133f));
}

TEST_P(KvStorageContract, NanStaysNanAndInfinityInfinity) {
  for (const auto& [dtype, name, bytes, scaled] : cache::kKvDtypes) {
    // A NaN whose upper half alone would be infinity.
    const std::vector<float> stored = Stored(
        {NAN, absl::bit_cast<float>(0xff800001u), INFINITY, -INFINITY}, dtype);
    EXPECT_TRUE(std::isnan(stored[0])) << name;
    EXPECT_TRUE(std::isnan(stored[1])) << name;
    if (scaled) {  // all of a key or a value, as it has one scale
      EXPECT_TRUE(std::isnan(stored[2]) && std::isnan(stored[3])) << name;
      continue;
    }
    EXPECT_EQ(stored[2], INFINITY) << name;
    EXPECT_EQ(stored[3], -INFINITY) << name;
  }
}

TEST_P(KvStorageContract, Int8HasAScaleForEachKeyAndEachValueOfAHead) {
  // Two KV heads of two numbers: a key of each, and the value of the first.
  const auto storage = NewStorage({1, 2, 2}, KvDtype::kInt8, 1);
  std::vector<float> values(CanonicalBlockValues(storage->spec()));
  const auto at = [&](bool key, int token, int head) {
    return &values[((!key * 16 + token) * 2 + head) * 2];
  };
  const float stored[][2] = {{127, 1.4f}, {0.127f, 0.0014f}, {12.7f, -0.26f}};
  std::copy_n(stored[0], 2, at(true, 3, 0));
  std::copy_n(stored[1], 2, at(true, 3, 1));
  std::copy_n(stored[2], 2, at(false, 3, 0));
  Write(*storage, {0}, values);
  values = Read(*storage, {0});
  constexpr float kLost = 0x1p-16f;  // of a number, by the scale
  EXPECT_FLOAT_EQ(at(true, 3, 0)[1], 1);
  EXPECT_NEAR(at(true, 3, 1)[0], 0.127f, 0.127f * kLost);
  EXPECT_NEAR(at(true, 3, 1)[1], 0.001f, 0.001f * kLost);
  EXPECT_NEAR(at(false, 3, 0)[1], -0.3f, 0.3f * kLost);
  EXPECT_THAT(std::vector<float>(at(true, 4, 0), at(true, 16, 0)), Each(0));
}

TEST_P(KvStorageContract, AWidePairIsInHalfPrecision) {
  for (const KvSpec& spec : {kDefaultModel, kTiny, kOdd}) {
    const auto storage = NewStorage(spec, KvDtype::kInt8, 6);
    const std::vector<float> values = Random(*storage, 4, 8);
    // Two narrow blocks among the pairs {5, 1} and {2, 4}.
    const std::vector<cache::KvBlock> blocks = {{5, 1}, 0, {2, 4}, 3};
    Write(*storage, blocks, values);
    const size_t block = values.size() / 4;
    const auto part = [&](const std::vector<float>& from, int i) {
      return std::vector<float>(&from[i * block], &from[i * block] + block);
    };
    const std::vector<float> stored = Read(*storage, blocks);
    for (int i = 0; i < 4; ++i) {
      const KvDtype as = i % 2 == 0 ? KvDtype::kF16 : KvDtype::kInt8;
      EXPECT_EQ(part(stored, i), Rounded(part(values, i), spec.head_dim, as));
    }
  }
}

TEST_P(KvStorageContract, ABlockMayBeNarrowAfterItWasWide) {
  const auto storage = NewStorage(kOdd, KvDtype::kInt8, 2);
  Write(*storage, {{0, 1}}, Random(*storage, 1, 9));
  const std::vector<float> values = Random(*storage, 2, 10);
  Write(*storage, {0, 1}, values);
  EXPECT_EQ(Read(*storage, {0, 1}),
            Rounded(values, kOdd.head_dim, KvDtype::kInt8));
}

TEST_P(KvStorageContract, BlocksAreWhereTheCanonicalFormSays) {
  // Two layers, two KV heads of two numbers: [layer][K, V][token][head][d].
  for (const auto& [dtype, name, bytes, scaled] : cache::kKvDtypes) {
    const auto storage = NewStorage({2, 2, 2}, dtype, 3);
    std::vector<float> values(CanonicalBlockValues(storage->spec()));
    ASSERT_EQ(values.size(), 2 * 2 * 16 * 2 * 2);
    for (size_t i = 0; i < values.size(); ++i) values[i] = i;
    values = Rounded(values, 2, dtype);
    Write(*storage, {1}, values);
    EXPECT_EQ(Read(*storage, {1}), values);
  }
}

TEST_P(KvStorageContract, AWriteTouchesItsBlocksAlone) {
  for (const auto& [dtype, name, bytes, scaled] : cache::kKvDtypes) {
    const auto storage = NewStorage(kOdd, dtype, 3);
    const std::vector<float> zeros(3 * CanonicalBlockValues(kOdd), 0);
    Write(*storage, {0, 1, 2}, zeros);
    Write(*storage, {1}, Random(*storage, 1, 3));
    EXPECT_THAT(Read(*storage, {0, 2}), Each(0));
  }
}

TEST_P(KvStorageContract, AnyOrderOfBlocksMayBeRead) {
  const auto storage = NewStorage(kTiny, KvDtype::kF32, 3);
  const std::vector<float> a = Random(*storage, 1, 4);
  const std::vector<float> b = Random(*storage, 1, 5);
  Write(*storage, {0}, a);
  Write(*storage, {2}, b);
  std::vector<float> expected = b;
  expected.insert(expected.end(), a.begin(), a.end());
  expected.insert(expected.end(), b.begin(), b.end());
  EXPECT_EQ(Read(*storage, {2, 0, 2}), expected);
}

// Numbers that are a scale times a small integer are equal only if both are.
TEST_P(KvStorageContract, RoundsAsTheReferenceDoesToTheBit) {
  auto other = NewBackend("reference", {});
  ASSERT_TRUE(other.ok());
  for (const auto& [dtype, name, bytes, scaled] : cache::kKvDtypes) {
    for (KvSpec spec : {kDefaultModel, kTiny, kOdd}) {
      spec.dtype = dtype;
      auto there = (*other)->CreateKvStorage(spec, 4);
      ASSERT_TRUE(there.ok());
      const auto here = NewStorage(spec, dtype, 4);
      const std::vector<float> values = Random(*here, 4, 11);
      Write(*here, {3, 1, 0, 2}, values);
      Write(**there, {3, 1, 0, 2}, values);
      EXPECT_EQ(Read(*here, {0, 1, 2, 3}), Read(**there, {0, 1, 2, 3}));
    }
  }
}

TEST_P(KvStorageContract, MovesBetweenBackendsWithoutLoss) {
  auto other = NewBackend("reference", {});
  ASSERT_TRUE(other.ok());
  for (const auto& [dtype, name, bytes, scaled] : cache::kKvDtypes) {
    KvSpec spec = kTiny;
    spec.dtype = dtype;
    auto there = (*other)->CreateKvStorage(spec, 4);
    ASSERT_TRUE(there.ok());
    const auto here = NewStorage(kTiny, dtype, 4);
    Write(*here, {0, 3}, Random(*here, 2, 6));
    const std::vector<float> before = Read(*here, {0, 3});
    Write(**there, {2, 1}, before);
    const auto back = NewStorage(kTiny, dtype, 4);
    Write(*back, {1, 2}, Read(**there, {2, 1}));
    EXPECT_EQ(Read(*back, {1, 2}), before);
  }
}

// Survivors close up: each slot is read before it is overwritten.
TEST_P(KvStorageContract, MovesSlotsOfOneHeadAsTheyAreStored) {
  const int survivors[] = {1, 2, 5, 6, 15, 16, 17, 30, 33, 47};
  const int32_t blocks[] = {2, 0, 3};
  for (const auto& info : cache::kKvDtypes) {
    for (const KvSpec& spec : {kTiny, KvSpec{2, 3, 10}}) {
      const auto storage = NewStorage(spec, info.dtype, 4);
      Write(*storage, {0, 1, 2, 3}, Random(*storage, 4, 8));
      std::vector<float> expected = Read(*storage, {0, 1, 2, 3});
      std::vector<KvStorage::SlotMove> moves;
      for (int to = 0; to < 10; ++to) {
        const int from = survivors[to];
        moves.push_back(
            {{blocks[from / 16], from % 16}, {blocks[to / 16], to % 16}});
        for (const int plane : {2, 3}) {  // keys and values of layer 1
          const auto row = [&](int slot) {
            const int64_t token =
                (int64_t{blocks[slot / 16]} * 4 + plane) * 16 + slot % 16;
            return &expected[(token * spec.num_kv_heads + 1) * spec.head_dim];
          };
          std::copy_n(row(from), spec.head_dim, row(to));
        }
      }
      ASSERT_TRUE(storage->MoveSlots(/*layer=*/1, /*kv_head=*/1, moves).ok());
      EXPECT_EQ(Read(*storage, {0, 1, 2, 3}), expected) << info.name;
    }
  }
}

TEST_P(KvStorageContract, MayHaveNoBlocks) {
  EXPECT_EQ(NewStorage(kTiny, KvDtype::kF16, 0)->num_blocks(), 0);
}

int64_t ResidentBytes() {
  long pages = 0, resident = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (std::fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = -1;
  std::fclose(file);
  return resident * sysconf(_SC_PAGESIZE);
}

TEST_P(KvStorageContract, TakesPhysicalMemoryWhenABlockIsFirstWritten) {
  const int64_t before = ResidentBytes();
  const auto storage = NewStorage(kDefaultModel, KvDtype::kF16, 4096);
  EXPECT_LT(ResidentBytes() - before, 16 << 20);  // of 1.4 GiB
  Write(*storage, {4095}, Random(*storage, 1, 7));
  EXPECT_LT(ResidentBytes() - before, 64 << 20);
}

TEST_P(KvStorageContract, MoreThanTheAddressSpaceIsResourceExhausted) {
  const auto storage = backend().CreateKvStorage(
      kDefaultModel, std::numeric_limits<int32_t>::max());
  ASSERT_FALSE(storage.ok());
  EXPECT_EQ(storage.status().code(), absl::StatusCode::kResourceExhausted);
}

INSTANTIATE_TEST_SUITE_P(Backends, KvStorageContract,
                         ::testing::ValuesIn(testing::BackendsUnderTest()),
                         testing::BackendName());

}  // namespace
}  // namespace millrace::backends
