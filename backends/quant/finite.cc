#include "backends/quant/finite.h"

#include "backends/quant/blocks.h"

namespace millrace::backends {
namespace {

// In each format, a number is NaN or infinite if all bits of its exponent are
// set; adding the exponent's lowest bit then carries into the sign's place.
constexpr uint32_t kHalfExponent = 0x7c00, kHalfCarry = 0x0400;
constexpr uint32_t kBfloat16Exponent = 0x7f80, kBfloat16Carry = 0x0080;
constexpr uint32_t kFloatExponent = 0x7f800000, kFloatCarry = 0x00800000;

// A word with the bit `carry << width` set if the number is not finite. Free
// of branches, so that a loop over it becomes vector code.
constexpr uint32_t HalfBad(uint16_t h) {
  return (h & kHalfExponent) + kHalfCarry;
}
constexpr uint32_t Bfloat16Bad(uint16_t b) {
  return (b & kBfloat16Exponent) + kBfloat16Carry;
}
constexpr uint32_t FloatBad(uint32_t f) {
  return (f & kFloatExponent) + kFloatCarry;
}

uint32_t Bad(const BlockQ8_0& block) { return HalfBad(block.d); }
uint32_t Bad(const BlockQ4_0& block) { return HalfBad(block.d); }
uint32_t Bad(const BlockQ4_1& block) {
  return HalfBad(block.d) | HalfBad(block.m);
}

// Looks at a stretch without branches, and again only if it has a bad block.
template <typename Block, typename BadFn>
int64_t FirstBad(absl::Span<const uint8_t> data, uint32_t flag, BadFn bad) {
  constexpr int64_t kStretch = 512;
  const auto* blocks = reinterpret_cast<const Block*>(data.data());
  const int64_t n = data.size() / sizeof(Block);
  for (int64_t begin = 0; begin < n; begin += kStretch) {
    const int64_t end = begin + kStretch < n ? begin + kStretch : n;
    uint32_t any = 0;
    for (int64_t i = begin; i < end; ++i) any |= bad(blocks[i]);
    if ((any & flag) == 0) continue;
    for (int64_t i = begin; i < end; ++i) {
      if (bad(blocks[i]) & flag) return i;
    }
  }
  return -1;
}

constexpr uint32_t kSixteenBitFlag = 0x8000;
constexpr uint32_t kFloatFlag = 0x80000000;

template <typename Block>
int64_t FirstBadBlock(absl::Span<const uint8_t> data) {
  return FirstBad<Block>(data, kSixteenBitFlag,
                         [](const Block& block) { return Bad(block); });
}

}  // namespace

int64_t FirstNonFiniteBlock(WeightType type, absl::Span<const uint8_t> data) {
  switch (type) {
    case WeightType::kF32:
      return FirstBad<uint32_t>(data, kFloatFlag, FloatBad);
    case WeightType::kF16:
      return FirstBad<uint16_t>(data, kSixteenBitFlag, HalfBad);
    case WeightType::kBF16:
      return FirstBad<uint16_t>(data, kSixteenBitFlag, Bfloat16Bad);
    case WeightType::kQ8_0:
      return FirstBadBlock<BlockQ8_0>(data);
    case WeightType::kQ4_0:
      return FirstBadBlock<BlockQ4_0>(data);
    case WeightType::kQ4_1:
      return FirstBadBlock<BlockQ4_1>(data);
  }
  return -1;
}

}  // namespace millrace::backends
