// What both AVX-512 tables share: 16 lanes, 32 registers.
struct Avx512Base {
  using F = __m512;
  using I = __m512i;
  typedef int32_t P __attribute__((vector_size(64)));
  static constexpr int kLanes = 16;
  static constexpr int kTokens = 8;  // 8 sums, 8 accumulators, 5 others
  static constexpr int kQueries = 6;
  static constexpr int kScoreTiles = 4;
  static constexpr int kValueVectors = 4;

  static F Set1(float x) { return _mm512_set1_ps(x); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F ToFloat(I x) { return _mm512_cvtepi32_ps(x); }
  static F ToFloat(P x) { return __builtin_convertvector(x, F); }
  static void Store(float* p, F x) { _mm512_storeu_ps(p, x); }

  static F Load(const float* p) { return _mm512_loadu_ps(p); }
  static F Load(const uint16_t* p) { return LoadHalf(p); }
  static F Load(const Bfloat16* p) {
    const __m256i bits =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static F Load(const int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  }
  static F LoadHalf(const void* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  static void StoreHalf(uint16_t* p, F x) {
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(p),
        _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }

  static I LoadBytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static I LowNibbles(I w) { return _mm512_and_si512(w, _mm512_set1_epi8(15)); }
  static I HighNibbles(I w) {
    return _mm512_and_si512(_mm512_srli_epi16(w, 4), _mm512_set1_epi8(15));
  }
  // The four activations that meet four neighbouring inputs of each output.
  static I Broadcast4(const int8_t* q) {
    int32_t four;
    __builtin_memcpy(&four, q, 4);
    return _mm512_set1_epi32(four);
  }

  // Lane i: a[i] and b[i], each in 16 bits.
  static P LoadPairs(const int8_t* a, const int8_t* b) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(a));
    const __m128i y = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b));
    return (P)_mm512_cvtepi8_epi16(
        _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi8(x, y)),
                                _mm_unpackhi_epi8(x, y), 1));
  }
  static P RepeatPair(const int16_t* pair) {
    return (P)Broadcast4(reinterpret_cast<const int8_t*>(pair));
  }
};
