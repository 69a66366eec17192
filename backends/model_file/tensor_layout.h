// Which tensors a model of a given shape consists of: the table of
// model_file.h as code, whatever the format of the file.
#ifndef MILLRACE_BACKENDS_MODEL_FILE_TENSOR_LAYOUT_H_
#define MILLRACE_BACKENDS_MODEL_FILE_TENSOR_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "backends/model_file/model_config.h"

namespace millrace::backends {

struct TensorShape {
  std::string name;
  int64_t rows = 0;  // 1 for a norm's weights
  int64_t cols = 0;
  bool is_norm = false;  // F32, one dimension
};

// Every tensor of the model, token_embd first, then the layers in order.
std::vector<TensorShape> TensorLayout(const ModelConfig& config);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_TENSOR_LAYOUT_H_
