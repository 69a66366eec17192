// Keys turned back from where they were rotated to where they are looked at, a
// tile at a time: lane = token, each lane by an angle of its own. The tile that
// comes out is one of floats, as attention reads them.
//
// An angle is a phase in fixed point, as decoder/rope.h has it, of which the
// upper 32 bits are enough: 2^-32 of a turn is 1.5e-9 radians. The phase is cut
// into quarter turns and a rest of at most an eighth; polynomials give sine and
// cosine of the rest. Every step is one rounded operation on one lane, so all
// tables give the same bits, whatever the other lanes hold.

// The 16 numbers of a stored key tile that begin at `p`.
template <class T>
inline V16 LoadLanes(const T* p) {
  float lanes[16];
  for (int i = 0; i < 16; i += Isa::kLanes) {
    Isa::Store(lanes + i, Isa::Load(p + i));
  }
  return Load16(lanes);
}

struct SineCosine {
  V16 sine, cosine;
};

// Of 2 pi * phase / 2^32, within 1.2e-7. The polynomials are minimax on
// [-pi/4, pi/4], off by 1.8e-9 and 1e-10.
inline SineCosine SineCosineOf(U16 phase) {
  const U16 quarter = (phase + 0x20000000u) >> 30;
  const I16 rest = (I16)(phase - (quarter << 30));
  const V16 x = __builtin_convertvector(rest, V16) * 1.4629180793e-9f;
  const V16 z = x * x;
  V16 s = z * -0.000194956505f + 0.00833197869f;
  s = s * z - 0.166666508f;
  s = s * z * x + x;
  V16 c = z * 2.44384628e-05f - 0.00138873677f;
  c = c * z + 0.0416666456f;
  c = c * z * z + (1.0f - z * 0.5f);
  const I16 odd = (I16)(quarter & 1) != 0;
  const V16 sine = odd ? c : s, cosine = odd ? s : c;
  // Negative in the third and fourth quarter, in the second and third.
  const U16 sine_sign = (quarter & 2) << 30;
  const U16 cosine_sign = ((quarter + 1) & 2) << 30;
  return {(V16)((U16)sine ^ sine_sign), (V16)((U16)cosine ^ cosine_sign)};
}

// The upper halves of lead * step, modulo one turn.
inline U16 PhasesOf(const uint64_t* leads, uint64_t step) {
  uint32_t phases[16];
  for (int i = 0; i < 16; ++i) {
    phases[i] = static_cast<uint32_t>((leads[i] * step) >> 32);
  }
  U16 v;
  __builtin_memcpy(&v, phases, sizeof(v));
  return v;
}

template <class T>
void Rebase(const void* key_tile, const uint64_t* leads, const uint64_t* steps,
            int head_dim, const void* next_tile, float* out) {
  const T* const keys = static_cast<const T*>(key_tile);
  const T* const next = static_cast<const T*>(next_tile);
  for (int d = 0; d < head_dim; d += 2) {
    if (next != nullptr) {
      __builtin_prefetch(next + 16 * d);
      __builtin_prefetch(next + 16 * d + 16);
    }
    const V16 x = LoadLanes(keys + 16 * d), y = LoadLanes(keys + 16 * d + 16);
    const SineCosine turn = SineCosineOf(PhasesOf(leads, steps[d / 2]));
    V16 first = x * turn.cosine + y * turn.sine;
    V16 second = y * turn.cosine - x * turn.sine;
    if constexpr (kScaled<T>) {
      const V16 scales = Load16(ScalesOf(keys, head_dim));
      first = first * scales;
      second = second * scales;
    }
    Store16(out + 16 * d, first);
    Store16(out + 16 * d + 16, second);
  }
}
