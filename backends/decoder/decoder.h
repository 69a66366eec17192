// The transformer decoder, written once for all backends.
//
// Llama's shape: RMS norm, grouped-query attention with rotary positions, gated
// feed-forward, residual stream. Everything that depends on a machine is in
// Ops; everything that depends on the order of operations is here.
#ifndef MILLRACE_BACKENDS_DECODER_DECODER_H_
#define MILLRACE_BACKENDS_DECODER_DECODER_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "backends/model.h"
#include "backends/ops.h"
#include "backends/phase.h"

namespace millrace::backends {

// The operations between Begin and Logits, in their order; says when each has
// returned.
void RunLayers(
    Ops& ops, absl::FunctionRef<void(Phase)> ended = [](Phase) {});

// Makes a model of a backend's operations.
std::unique_ptr<Model> NewDecoder(std::unique_ptr<Ops> ops);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_DECODER_DECODER_H_
