// AVX2 with FMA and F16C: 8 lanes, so that a group of 16 outputs is two halves,
// and 16 registers, so that two tokens at a time share the weights. Sums as in
// avx512.cc.
#include <immintrin.h>

#include "backends/onednn/kernels/kernels.h"

namespace millrace::backends::onednn {
namespace {

struct Bfloat16;

#include "backends/onednn/kernels/rows.inl.h"

struct Isa {
  using F = __m256;
  using I = __m256i;
  typedef int32_t P __attribute__((vector_size(32)));
  static constexpr int kLanes = 8;
  static constexpr int kTokens = 2;
  static constexpr int kQueries = 3;
  static constexpr int kScoreTiles = 1;
  static constexpr int kValueVectors = 2;
  static constexpr bool kBytesNeedOffset = false;

  static F Set1(float x) { return _mm256_set1_ps(x); }
  static F Mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F ToFloat(I x) { return _mm256_cvtepi32_ps(x); }
  static F ToFloat(P x) { return __builtin_convertvector(x, F); }
  static void Store(float* p, F x) { _mm256_storeu_ps(p, x); }

  static F Load(const float* p) { return _mm256_loadu_ps(p); }
  static F Load(const uint16_t* p) { return LoadHalf(p); }
  static F Load(const Bfloat16* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static F Load(const int8_t* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
  }
  static F LoadHalf(const void* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  static void StoreHalf(uint16_t* p, F x) {
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(p),
        _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }

  static I LoadBytes(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static I LowNibbles(I w) { return _mm256_and_si256(w, _mm256_set1_epi8(15)); }
  static I HighNibbles(I w) {
    return _mm256_and_si256(_mm256_srli_epi16(w, 4), _mm256_set1_epi8(15));
  }
  static I Broadcast4(const int8_t* q) {
    int32_t four;
    __builtin_memcpy(&four, q, 4);
    return _mm256_set1_epi32(four);
  }

  static P LoadPairs(const int8_t* a, const int8_t* b) {
    const __m128i x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(a));
    const __m128i y = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(b));
    return (P)_mm256_cvtepi8_epi16(_mm_unpacklo_epi8(x, y));
  }
  static P RepeatPair(const int16_t* pair) {
    return (P)Broadcast4(reinterpret_cast<const int8_t*>(pair));
  }
  static P AddPairs(P sum, P x, P y) {
    return sum + (P)_mm256_madd_epi16((I)x, (I)y);
  }

  struct Sum {
    I sum, words;

    void StartAtZero() { StartAt(0); }
    void StartAt(int32_t c) {
      sum = _mm256_set1_epi32(c);
      words = _mm256_setzero_si256();
    }
    void AddNibbles(I w, const int8_t* q) {
      words = _mm256_add_epi16(words, _mm256_maddubs_epi16(w, Broadcast4(q)));
    }
    void AddBytes(I w, const int8_t* q) {
      const I weight = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
      const I x = _mm256_sign_epi8(Broadcast4(q), weight);
      const I pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weight), x);
      sum =
          _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    I Total() const {
      return _mm256_add_epi32(sum,
                              _mm256_madd_epi16(words, _mm256_set1_epi16(1)));
    }
  };
};

#include "backends/onednn/kernels/attention.inl.h"
#include "backends/onednn/kernels/float.inl.h"
#include "backends/onednn/kernels/quantised.inl.h"
#include "backends/onednn/kernels/rebase.inl.h"
#include "backends/onednn/kernels/table.inl.h"

}  // namespace

constinit const Kernels kAvx2Kernels = MakeKernels("avx2");

}  // namespace millrace::backends::onednn
