// A GGUF file as a value: take it apart, change a part, write it again.
//
//   GgufImage image = TinyLlama({});               // gguf_writer.h
//   image.Set("llama.block_count", GgufU32(0));
//   image.FindTensor("output_norm.weight").dimensions = {63};
//   const std::string bytes = image.Serialize();
//
// It writes what it is told, so that files can be wrong in exactly one place.
#ifndef MILLRACE_TESTS_TESTING_GGUF_IMAGE_H_
#define MILLRACE_TESTS_TESTING_GGUF_IMAGE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace millrace::testing {

// Numbers and strings as the file holds them, little-endian.
std::string LittleEndian(uint64_t value, int bytes);
std::string GgufBytes(absl::string_view text);  // u64 length, then the text

// A value with the number of its type. Bytes of an array start with the type
// and the count of its elements.
struct GgufValue {
  uint32_t type = 0;
  std::string bytes;
};

GgufValue GgufU32(uint32_t value);
GgufValue GgufI32(int32_t value);
GgufValue GgufU64(uint64_t value);
GgufValue GgufF32(float value);
GgufValue GgufBool(bool value);
GgufValue GgufString(absl::string_view value);
GgufValue GgufStrings(const std::vector<std::string>& values);
GgufValue GgufI32s(const std::vector<int32_t>& values);

struct GgufImage {
  struct Key {
    std::string name;
    GgufValue value;
  };
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dimensions;  // innermost first
    uint32_t type = 0;
    std::string data;
    std::optional<uint64_t> offset;  // unset: right behind the one before
  };

  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> num_tensors, num_keys;  // unset: the true ones
  uint64_t alignment = 32;  // as applied; the key of this name is another thing
  std::vector<Key> keys;
  std::vector<Tensor> tensors;

  // Changes a key or adds it at the end.
  void Set(const std::string& name, GgufValue value);
  void Remove(absl::string_view key);

  // REQUIRES: there is such a tensor.
  Tensor& FindTensor(absl::string_view name);

  std::string Serialize() const;
};

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_GGUF_IMAGE_H_
