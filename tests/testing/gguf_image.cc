#include "tests/testing/gguf_image.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace millrace::testing {
namespace {

enum : uint32_t {
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
};

std::string ArrayHead(uint32_t type, size_t count) {
  return LittleEndian(type, 4) + LittleEndian(count, 8);
}

void Pad(std::string& bytes, uint64_t alignment) {
  while (bytes.size() % alignment != 0) bytes += '\0';
}

}  // namespace

std::string LittleEndian(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}

std::string GgufBytes(absl::string_view text) {
  return LittleEndian(text.size(), 8) + std::string(text);
}

GgufValue GgufU32(uint32_t value) { return {kU32, LittleEndian(value, 4)}; }

GgufValue GgufI32(int32_t value) {
  return {kI32, LittleEndian(static_cast<uint32_t>(value), 4)};
}

GgufValue GgufU64(uint64_t value) { return {kU64, LittleEndian(value, 8)}; }

GgufValue GgufF32(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return {kF32, LittleEndian(bits, 4)};
}

GgufValue GgufBool(bool value) { return {kBool, LittleEndian(value, 1)}; }

GgufValue GgufString(absl::string_view value) {
  return {kString, GgufBytes(value)};
}

GgufValue GgufStrings(const std::vector<std::string>& values) {
  std::string bytes = ArrayHead(kString, values.size());
  for (const std::string& value : values) bytes += GgufBytes(value);
  return {kArray, bytes};
}

GgufValue GgufI32s(const std::vector<int32_t>& values) {
  std::string bytes = ArrayHead(kI32, values.size());
  for (const int32_t value : values) bytes += GgufI32(value).bytes;
  return {kArray, bytes};
}

void GgufImage::Set(const std::string& name, GgufValue value) {
  for (Key& key : keys) {
    if (key.name == name) {
      key.value = std::move(value);
      return;
    }
  }
  keys.push_back({name, std::move(value)});
}

void GgufImage::Remove(absl::string_view key) {
  keys.erase(std::remove_if(keys.begin(), keys.end(),
                            [key](const Key& k) { return k.name == key; }),
             keys.end());
}

GgufImage::Tensor& GgufImage::FindTensor(absl::string_view name) {
  for (Tensor& tensor : tensors) {
    if (tensor.name == name) return tensor;
  }
  std::abort();
}

std::string GgufImage::Serialize() const {
  std::string out = magic + LittleEndian(version, 4) +
                    LittleEndian(num_tensors.value_or(tensors.size()), 8) +
                    LittleEndian(num_keys.value_or(keys.size()), 8);
  for (const Key& key : keys) {
    out += GgufBytes(key.name) + LittleEndian(key.value.type, 4);
    out += key.value.bytes;
  }
  std::string data;
  for (const Tensor& tensor : tensors) {
    out += GgufBytes(tensor.name) + LittleEndian(tensor.dimensions.size(), 4);
    for (const uint64_t size : tensor.dimensions) out += LittleEndian(size, 8);
    out += LittleEndian(tensor.type, 4);
    out += LittleEndian(tensor.offset.value_or(data.size()), 8);
    data += tensor.data;
    Pad(data, alignment);
  }
  Pad(out, alignment);
  return out + data;
}

}  // namespace millrace::testing
