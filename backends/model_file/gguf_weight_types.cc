#include "backends/model_file/gguf_weight_types.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace millrace::backends {
namespace {

struct Supported {
  uint32_t number;
  WeightType type;
};

constexpr Supported kSupported[] = {
    {0, WeightType::kF32},  {1, WeightType::kF16},  {30, WeightType::kBF16},
    {8, WeightType::kQ8_0}, {2, WeightType::kQ4_0}, {3, WeightType::kQ4_1},
};

struct Known {
  uint32_t number;
  absl::string_view name;
};

constexpr Known kUnsupported[] = {
    {6, "Q5_0"},    {7, "Q5_1"},     {9, "Q8_1"},    {10, "Q2_K"},
    {11, "Q3_K"},   {12, "Q4_K"},    {13, "Q5_K"},   {14, "Q6_K"},
    {15, "Q8_K"},   {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"},
    {19, "IQ1_S"},  {20, "IQ4_NL"},  {21, "IQ3_S"},  {22, "IQ2_S"},
    {23, "IQ4_XS"}, {24, "I8"},      {25, "I16"},    {26, "I32"},
    {27, "I64"},    {28, "F64"},     {29, "IQ1_M"},  {34, "TQ1_0"},
    {35, "TQ2_0"},  {39, "MXFP4"},
};

}  // namespace

std::optional<WeightType> WeightTypeOfGguf(uint32_t number) {
  for (const Supported& entry : kSupported) {
    if (entry.number == number) return entry.type;
  }
  return std::nullopt;
}

uint32_t GgufNumber(WeightType type) {
  for (const Supported& entry : kSupported) {
    if (entry.type == type) return entry.number;
  }
  return 0;
}

std::string GgufWeightTypeName(uint32_t number) {
  if (const std::optional<WeightType> type = WeightTypeOfGguf(number)) {
    return std::string(WeightTypeName(*type));
  }
  for (const Known& entry : kUnsupported) {
    if (entry.number == number) return std::string(entry.name);
  }
  return absl::StrCat("number ", number);
}

std::string SupportedWeightTypes() {
  return absl::StrJoin(kSupported, ", ",
                       [](std::string* out, const Supported& entry) {
                         absl::StrAppend(out, WeightTypeName(entry.type));
                       });
}

}  // namespace millrace::backends
