// Philox4x32-10, a counter-based random number generator: numbers are a
// function of key and counter, so any of them can be had at any time and in any
// order.
//
// Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011.
#ifndef MILLRACE_SERVICES_ENGINE_SAMPLING_PHILOX_H_
#define MILLRACE_SERVICES_ENGINE_SAMPLING_PHILOX_H_

#include <array>
#include <cstdint>

namespace millrace::engine {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

// Four random words.
inline PhiloxCounter Philox(PhiloxCounter counter, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// The random number of one token, 0 <= u < 1, with 53 random bits.
inline double UniformOf(uint64_t seed, uint64_t turn, uint64_t index) {
  const PhiloxCounter words =
      Philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
              static_cast<uint32_t>(turn), static_cast<uint32_t>(turn >> 32)},
             {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t bits = uint64_t{words[0]} << 32 | words[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_SAMPLING_PHILOX_H_
