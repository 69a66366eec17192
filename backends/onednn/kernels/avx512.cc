// AVX-512 without VNNI (F, BW, VL, DQ): vpmaddubsw adds two neighbouring
// products in 16 bits, vpmaddwd by ones two of those in 32.
//
// Nibbles: all 8 steps of a block add up in 16 bits, 8 x 2 x 15 x 127 = 30,480,
// below 32,767. Bytes: q + 128 would saturate (2 x 255 x 127), so the sign of
// the weight moves to the activation: 2 x 128 x 127 = 32,512 fits.
#include <immintrin.h>

#include "backends/onednn/kernels/kernels.h"

namespace millrace::backends::onednn {
namespace {

struct Bfloat16;

#include "backends/onednn/kernels/avx512_isa.inl.h"
#include "backends/onednn/kernels/rows.inl.h"

struct Isa : Avx512Base {
  static constexpr bool kBytesNeedOffset = false;

  static P AddPairs(P sum, P x, P y) {
    return sum + (P)_mm512_madd_epi16((I)x, (I)y);
  }

  struct Sum {
    I sum, words;

    void StartAtZero() { StartAt(0); }
    void StartAt(int32_t c) {
      sum = _mm512_set1_epi32(c);
      words = _mm512_setzero_si512();
    }
    void AddNibbles(I w, const int8_t* q) {
      words = _mm512_add_epi16(words, _mm512_maddubs_epi16(w, Broadcast4(q)));
    }
    void AddBytes(I w, const int8_t* q) {
      const I zero = _mm512_setzero_si512();
      const I weight = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
      const __mmask64 negative = _mm512_movepi8_mask(weight);
      const I x = Broadcast4(q);
      const I signed_x = _mm512_mask_sub_epi8(x, negative, zero, x);
      const I pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(weight), signed_x);
      sum =
          _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
    I Total() const {
      return _mm512_add_epi32(sum,
                              _mm512_madd_epi16(words, _mm512_set1_epi16(1)));
    }
  };
};

#include "backends/onednn/kernels/attention.inl.h"
#include "backends/onednn/kernels/float.inl.h"
#include "backends/onednn/kernels/quantised.inl.h"
#include "backends/onednn/kernels/rebase.inl.h"
#include "backends/onednn/kernels/table.inl.h"

}  // namespace

constinit const Kernels kAvx512Kernels = MakeKernels("avx512");

}  // namespace millrace::backends::onednn
