// The functions of the table in kernels.h, each in a file of its own, and
// what they start.
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_LAUNCHERS_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_LAUNCHERS_H_

#include "backends/cuda/kernels/kernels.h"
#include "backends/cuda/kernels/target.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {

void LaunchEmbed(Stream* stream, int max_rows, const EmbedArgs& args);
void LaunchProduct(Stream* stream, const ProductArgs& args);
void LaunchRoundRows(Stream* stream, const ProductArgs& args);
void LaunchTensorProduct(Stream* stream, const ProductArgs& args);
void LaunchStoreKv(Stream* stream, const ProductArgs& args);
void LaunchAttention(Stream* stream, const AttentionArgs& args);
void LaunchDecodeAttention(Stream* stream, const AttentionArgs& args);
void LaunchTensorAttention(Stream* stream, const AttentionArgs& args);
void LaunchAttentionSums(Stream* stream, const AttentionSumsArgs& args);
void LaunchPick(Stream* stream, const PickArgs& args);
void LaunchReadBlocks(Stream* stream, const KvBlocksArgs& args);
void LaunchWriteBlocks(Stream* stream, const KvBlocksArgs& args);
void LaunchMoveSlots(Stream* stream, const MoveSlotsArgs& args);

inline constexpr Kernels kKernels = {
    .embed = LaunchEmbed,
    .product = LaunchProduct,
    .attention = LaunchAttention,
    .decode_attention = LaunchDecodeAttention,
    .tensor_attention = LaunchTensorAttention,
    .attention_sums = LaunchAttentionSums,
    .pick = LaunchPick,
    .read_blocks = LaunchReadBlocks,
    .write_blocks = LaunchWriteBlocks,
    .move_slots = LaunchMoveSlots,
};

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_LAUNCHERS_H_
