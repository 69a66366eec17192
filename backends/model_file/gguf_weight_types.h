// GGUF's numbers for types of weights.
#ifndef MILLRACE_BACKENDS_MODEL_FILE_GGUF_WEIGHT_TYPES_H_
#define MILLRACE_BACKENDS_MODEL_FILE_GGUF_WEIGHT_TYPES_H_

#include <cstdint>
#include <optional>
#include <string>

#include "backends/quant/weight_type.h"

namespace millrace::backends {

// The type that we can compute with; none for any other number.
std::optional<WeightType> WeightTypeOfGguf(uint32_t number);

// The number that a file holds for `type`.
uint32_t GgufNumber(WeightType type);

// The name of any type, ours or not: "Q4_K"; "number 99" if nobody knows it.
std::string GgufWeightTypeName(uint32_t number);

// "F32, F16, ...", for error messages.
std::string SupportedWeightTypes();

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_GGUF_WEIGHT_TYPES_H_
