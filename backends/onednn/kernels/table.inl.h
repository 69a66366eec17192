// The table of an instruction set, from what the other files define.

void ToF16(const float* in, int n, uint16_t* out) {
  for (int i = 0; i < n; i += Isa::kLanes) {
    Isa::StoreHalf(out + i, Isa::Load(in + i));
  }
}

template <class T>
void Widen(const uint16_t* in, int64_t n, float* out) {
  const T* const values = reinterpret_cast<const T*>(in);
  for (int64_t i = 0; i < n; i += Isa::kLanes) {
    Isa::Store(out + i, Isa::Load(values + i));
  }
}

constexpr Kernels MakeKernels(const char* name) {
  return {
      .name = name,
      .q4_0 = Product<Q4_0>,
      .q4_1 = Product<Q4_1>,
      .q8_0 = Product<Q8_0>,
      .f32 = FloatRows<float>,
      .f16 = FloatRows<uint16_t>,
      .bf16 = FloatRows<Bfloat16>,
      .rms_norm = RmsNorm,
      .quantise = Quantise,
      .silu_mul = SiluMul,
      .rotate = Rotate,
      .round_query = RoundQuery,
      .softmax = Softmax,
      .merge = Merge,
      .scores_f32 = Scores<float>,
      .scores_f16 = Scores<uint16_t>,
      .scores_bf16 = Scores<Bfloat16>,
      .scores_int8 = Scores<int8_t>,
      .values_f32 = Values<float>,
      .values_f16 = Values<uint16_t>,
      .values_bf16 = Values<Bfloat16>,
      .values_int8 = Values<int8_t>,
      .rebase_f32 = Rebase<float>,
      .rebase_f16 = Rebase<uint16_t>,
      .rebase_bf16 = Rebase<Bfloat16>,
      .rebase_int8 = Rebase<int8_t>,
      .add_probabilities = AddProbabilities,
      .to_f16 = ToF16,
      .to_bf16 = ToBf16,
      .to_int8 = ToInt8,
      .widen_f16 = Widen<uint16_t>,
      .widen_bf16 = Widen<Bfloat16>,
  };
}
