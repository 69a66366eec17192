// Inner loops of the CPU backend, by table of kernels, type, shape and number
// of tokens, on weights in the first- or second-level cache.
//
//   kernels_benchmark --benchmark_filter='avx512_vnni/Q4_1'
//
// bytes/s is what the weights stream at, macs/s multiplications.
#include <string>
#include <vector>

#include "backends/onednn/activations.h"
#include "backends/onednn/cpu_kernels.h"
#include "backends/onednn/float_gemm.h"
#include "backends/onednn/kv_storage.h"
#include "backends/onednn/memory_region.h"
#include "backends/onednn/packed_matrix.h"
#include "benchmark/benchmark.h"
#include "tests/backends/onednn/random_tensor.h"

namespace millrace::backends::onednn {
namespace {

void Product(benchmark::State& state, const Kernels& kernels, WeightType type,
             int inputs, int tokens) {
  const RandomTensor tensor = MakeRandomTensor(type, kGroupRows, inputs, 1);
  const int64_t bytes = GroupBytes(type, inputs);
  const MemoryRegion memory = *MemoryRegion::Map(bytes, "a benchmark");
  const PackedMatrix matrix = Pack(tensor.view, memory.data(), bytes);
  Activations x = *Activations::Create(tokens, inputs);
  x.Reset(tokens, inputs);
  const std::vector<float> in = RandomFloats(int64_t{tokens} * inputs, 2);
  for (int t = 0; t < tokens; ++t) {
    std::copy_n(&in[int64_t{t} * inputs], inputs, x.row(t));
    x.Quantise(kernels, t);
  }
  const QuantisedProduct product = type == WeightType::kQ4_0   ? kernels.q4_0
                                   : type == WeightType::kQ4_1 ? kernels.q4_1
                                                               : kernels.q8_0;
  float out[kPanelTokens * kGroupRows];
  for (auto _ : state) {
    product(matrix.group(0), matrix.blocks(), x.panel(0), tokens, out,
            kGroupRows);
    benchmark::DoNotOptimize(out);
  }
  state.SetBytesProcessed(state.iterations() * bytes);
  state.counters["macs"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * kGroupRows * inputs * tokens,
      benchmark::Counter::kIsRate);
}

// 64 outputs of a float matrix, by our kernels or by oneDNN, with the widening
// of 16-bit weights that it needs.
void FloatProducts(benchmark::State& state, const Kernels& kernels,
                   WeightType type, int inputs, int tokens, bool by_onednn) {
  constexpr int kOutputs = 64;
  const int64_t bytes = kOutputs / kGroupRows * GroupBytes(type, inputs);
  const std::vector<uint8_t> weights(bytes, 0x34);
  const std::vector<float> x = RandomFloats(int64_t{tokens} * inputs, 5);
  std::vector<float> wide(int64_t{kOutputs} * inputs), out(kOutputs * tokens);
  const FloatProduct own = type == WeightType::kF32   ? kernels.f32
                           : type == WeightType::kF16 ? kernels.f16
                                                      : kernels.bf16;
  const auto widen =
      type == WeightType::kF16 ? kernels.widen_f16 : kernels.widen_bf16;
  for (auto _ : state) {
    const void* stored = weights.data();
    if (by_onednn) {
      if (type != WeightType::kF32) {
        widen(static_cast<const uint16_t*>(stored), wide.size(), wide.data());
        stored = wide.data();
      }
      FloatGemm(static_cast<const float*>(stored), kOutputs, inputs, x.data(),
                tokens, out.data());
    } else {
      own(stored, kOutputs, inputs, x.data(), tokens, out.data(), kOutputs);
    }
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(state.iterations() * bytes);
  state.counters["macs"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * kOutputs * inputs * tokens,
      benchmark::Counter::kIsRate);
}

// A segment of 64 positions, head_dim 64: scores, soft-max, values.
void Segment(benchmark::State& state, const Kernels& kernels,
             cache::KvDtype dtype, int queries) {
  constexpr int kDim = 64;
  const KvKernels kv = KvKernelsFor(kernels, dtype);
  const int64_t tile =
      16 * (kDim * cache::BytesPerValue(dtype) + cache::BytesPerScale(dtype));
  const std::vector<uint8_t> tiles(2 * kSegmentTiles * tile, 0x34);
  const std::vector<float> query = RandomFloats(queries * kDim, 3);
  std::vector<float> scores(queries * kSegmentTokens), out(queries * kDim);
  const void *keys[kSegmentTiles], *values[kSegmentTiles];
  for (int j = 0; j < kSegmentTiles; ++j) {
    keys[j] = &tiles[2 * j * tile];
    values[j] = &tiles[(2 * j + 1) * tile];
  }
  std::vector<float> max(queries), sum(queries);
  const std::vector<SeenPositions> seen(queries, {0, kSegmentTokens});
  std::vector<int16_t> rounded(queries * kDim);
  std::vector<float> scales(queries);
  for (int i = 0; i < queries; ++i) {
    scales[i] = kernels.round_query(&query[i * kDim], kDim, &rounded[i * kDim]);
  }
  for (auto _ : state) {
    kv.scores({query.data(), rounded.data(), scales.data(), queries}, kDim,
              keys, 0, kSegmentTiles, nullptr, scores.data());
    kernels.softmax(scores.data(), seen.data(), queries, max.data(),
                    sum.data());
    kv.values(scores.data(), queries, kDim, values, 0, kSegmentTokens, nullptr,
              out.data());
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(state.iterations() * tiles.size());
  state.counters["macs"] = benchmark::Counter(
      2.0 * state.iterations() * queries * kDim * kSegmentTokens,
      benchmark::Counter::kIsRate);
}

void Prepare(benchmark::State& state, const Kernels& kernels, int n) {
  const std::vector<float> in = RandomFloats(n, 4), weight(n, 1.0f);
  Activations x = *Activations::Create(1, n);
  x.Reset(1, n);
  for (auto _ : state) {
    kernels.rms_norm(in.data(), weight.data(), n, 1e-5f, x.row(0));
    x.Quantise(kernels, 0);
  }
}

void RegisterFloats(const Kernels& kernels) {
  for (const WeightType type :
       {WeightType::kF32, WeightType::kF16, WeightType::kBF16}) {
    for (const int tokens : {1, 4, 8, 16, 32, 64}) {
      for (const bool by_onednn : {false, true}) {
        benchmark::RegisterBenchmark(
            (std::string(kernels.name) + "/" +
             std::string(WeightTypeName(type)) + "/64x576/tokens:" +
             std::to_string(tokens) + (by_onednn ? "/by_onednn" : ""))
                .c_str(),
            [&kernels, type, tokens, by_onednn](benchmark::State& state) {
              FloatProducts(state, kernels, type, 576, tokens, by_onednn);
            });
      }
    }
  }
}

void RegisterAll(const Kernels& kernels) {
  const std::string table = kernels.name;
  RegisterFloats(kernels);
  for (const WeightType type :
       {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ8_0}) {
    for (const int inputs : {576, 1536}) {
      for (const int tokens : {1, 2, 4, 8}) {
        benchmark::RegisterBenchmark(
            (table + "/" + std::string(WeightTypeName(type)) + "/16x" +
             std::to_string(inputs) + "/tokens:" + std::to_string(tokens))
                .c_str(),
            [&kernels, type, inputs, tokens](benchmark::State& state) {
              Product(state, kernels, type, inputs, tokens);
            });
      }
    }
  }
  for (const auto& [dtype, name, bytes, scaled] : cache::kKvDtypes) {
    for (const int queries : {3, 24}) {
      benchmark::RegisterBenchmark(
          (table + "/attention_segment/" + std::string(name) +
           "/queries:" + std::to_string(queries))
              .c_str(),
          [&kernels, dtype = dtype, queries](benchmark::State& state) {
            Segment(state, kernels, dtype, queries);
          });
    }
  }
  for (const int n : {576, 1536}) {
    benchmark::RegisterBenchmark(
        (table + "/norm_and_quantise/" + std::to_string(n)).c_str(),
        [&kernels, n](benchmark::State& state) { Prepare(state, kernels, n); });
  }
}

}  // namespace
}  // namespace millrace::backends::onednn

int main(int argc, char** argv) {
  for (const auto* kernels : millrace::backends::onednn::SupportedKernels()) {
    millrace::backends::onednn::RegisterAll(*kernels);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
