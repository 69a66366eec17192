// The header of a GGUF file, versions 2 and 3, little-endian: an index of its
// keys and tensors, without a copy of either.
//
//   magic "GGUF" | u32 version | u64 tensors | u64 keys
//   key     string name | u32 type | value
//   tensor  string name | u32 n | u64 dimension[n] | u32 type | u64 offset
//   padding to the alignment, then the tensors' data
//
// A string is a u64 length and its bytes. A value of type array is u32 element
// type | u64 count | elements. Dimensions start with the innermost. Offsets
// count from the start of the data. Specification:
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#ifndef MILLRACE_BACKENDS_MODEL_FILE_GGUF_HEADER_H_
#define MILLRACE_BACKENDS_MODEL_FILE_GGUF_HEADER_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "backends/model_file/file_bytes.h"
#include "backends/quant/weight_type.h"

namespace millrace::backends {

// Types of values, as the file numbers them.
enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

struct GgufKey {
  absl::string_view name;         // unique, not empty
  GgufType type = GgufType::kU8;  // of an array: of its elements
  bool is_array = false;
  uint64_t count = 1;             // elements
  uint64_t offset = 0;            // of the first element in the file
  const uint8_t* data = nullptr;  // the first element, in memory
};

struct GgufTensor {
  absl::string_view name;  // unique, 1 to 64 bytes
  WeightType type = WeightType::kF32;
  int num_dimensions = 0;              // 1 to 4
  std::array<uint64_t, 4> dimensions;  // innermost first, each >= 1; else 1
  uint64_t record = 0;                 // where the file describes it
  uint64_t offset = 0;                 // of its data in the file
  uint64_t bytes = 0;                  // all of them inside the file
};

struct GgufHeader {
  uint32_t version = 0;
  std::vector<GgufKey> keys;        // in the order of the file
  std::vector<GgufTensor> tensors;  // likewise; data follows data, aligned
};

// Reads no more than the header: at most 16 MiB, of which the index views the
// bytes. Types, counts, lengths and offsets are checked, and that tensors lie
// one behind the other as far as the file's end; names and shapes are not.
// The header is valid as long as `file`.
absl::StatusOr<GgufHeader> ReadGgufHeader(FileBytes& file);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_GGUF_HEADER_H_
