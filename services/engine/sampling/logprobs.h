// Natural logarithms of probabilities, from raw logits.
#ifndef MILLRACE_SERVICES_ENGINE_SAMPLING_LOGPROBS_H_
#define MILLRACE_SERVICES_ENGINE_SAMPLING_LOGPROBS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "services/engine/generation_options.h"

namespace millrace::engine {

// log(sum(exp(logits))), to 1e-6.
// REQUIRES: not empty, all finite.
double LogSumExp(absl::Span<const float> logits);

// Of `token_id`, and of the `top` most likely tokens, most likely first, lower
// ids first where equal. REQUIRES: as above.
TokenLogprobs LogprobsOf(absl::Span<const float> logits, int32_t token_id,
                         int top);

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_SAMPLING_LOGPROBS_H_
