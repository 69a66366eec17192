#include "backends/model_file/gguf_header.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "backends/model_file/gguf_cursor.h"
#include "backends/model_file/gguf_weight_types.h"
#include "backends/model_file/invalid_file.h"

namespace millrace::backends {
namespace {

constexpr uint64_t kLongestHeader = 16 << 20;
constexpr uint64_t kMostKeys = 4096;
constexpr uint64_t kMostTensors = 16384;
constexpr uint64_t kLongestKey = 65535;  // by the specification
constexpr uint64_t kLongestTensorName = 64;
constexpr uint64_t kMostElements = uint64_t{1} << 48;  // of one tensor
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kLargestAlignment = 65536;

// The least bytes of a record, with an empty name.
constexpr uint64_t kSmallestKey = 8 + 4 + 1;
constexpr uint64_t kSmallestTensor = 8 + 4 + 8 + 4 + 8;

// Bytes of a value; 0 for those whose size varies, and unknown types.
uint64_t FixedBytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    default:
      return 0;
  }
}

std::string Quoted(absl::string_view kind, absl::string_view name) {
  return absl::StrCat(kind, " '", Printable(name), "'");
}

class HeaderReader {
 public:
  explicit HeaderReader(FileBytes& file)
      : file_bytes_(file.size()), cursor_(file, kLongestHeader), file_(file) {}

  absl::StatusOr<GgufHeader> Read() {
    ReadVersion();
    const uint64_t num_tensors = ReadCount("number of tensors");
    const uint64_t num_keys = ReadCount("number of keys");
    CheckCount("number of keys", 16, num_keys, kSmallestKey, kMostKeys);
    CheckCount("number of tensors", 8, num_tensors, kSmallestTensor,
               kMostTensors);
    for (uint64_t i = 0; i < num_keys && cursor_.ok(); ++i) ReadKey();
    for (uint64_t i = 0; i < num_tensors && cursor_.ok(); ++i) ReadTensor();
    PlaceTensors();
    if (!cursor_.ok()) return cursor_.status();
    return std::move(header_);
  }

 private:
  void ReadVersion() {
    cursor_.Skip(4, "magic");
    header_.version = cursor_.ReadU32("version");
    if (header_.version == 2 || header_.version == 3) return;
    const bool swapped =
        header_.version != 0 && (header_.version & 0xffff) == 0;
    cursor_.Fail(4, "version",
                 swapped ? std::string("has its bytes swapped: the file is "
                                       "big-endian; convert it again")
                         : absl::StrCat("is ", header_.version,
                                        "; versions 2 and 3 are supported"));
  }

  uint64_t ReadCount(absl::string_view field) { return cursor_.ReadU64(field); }

  void CheckCount(absl::string_view field, uint64_t offset, uint64_t count,
                  uint64_t smallest_record, uint64_t most) {
    if (count > cursor_.bytes_left() / smallest_record) {
      cursor_.Fail(offset, field,
                   absl::StrCat("is ", count, ", too many for the ",
                                cursor_.bytes_left(), " bytes that follow"));
    } else if (count > most) {
      cursor_.Fail(
          offset, field,
          absl::StrCat("is ", count, "; at most ", most, " are supported"));
    }
  }

  void ReadKey() {
    const uint64_t record = cursor_.offset();
    GgufKey key;
    key.name = cursor_.ReadString("name of a key");
    if (key.name.empty()) cursor_.Fail(record, "name of a key", "is empty");
    if (key.name.size() > kLongestKey) {
      cursor_.Fail(record, "name of a key",
                   absl::StrCat("has ", key.name.size(), " bytes; at most ",
                                kLongestKey, " are allowed"));
    }
    const std::string field = Quoted("key", key.name);
    if (!key_names_.insert(key.name).second) {
      cursor_.Fail(record, field, "appears twice");
    }
    ReadValue(field, key);
    if (key.name == "general.alignment") ReadAlignment(field, key);
    if (cursor_.ok()) header_.keys.push_back(key);
  }

  void ReadValue(absl::string_view field, GgufKey& key) {
    uint64_t type_at = cursor_.offset();
    key.type = GgufType{cursor_.ReadU32(field)};
    if (key.type == GgufType::kArray) {
      key.is_array = true;
      type_at = cursor_.offset();
      key.type = GgufType{cursor_.ReadU32(field)};
      key.count = cursor_.ReadU64(field);
    }
    key.offset = cursor_.offset();
    if (key.type == GgufType::kString) {
      SkipStrings(field, key.count);
    } else if (const uint64_t bytes = FixedBytes(key.type); bytes > 0) {
      SkipFixed(field, key.count, bytes);
    } else if (key.type == GgufType::kArray) {
      cursor_.Fail(type_at, field, "is an array of arrays; none are supported");
    } else {
      cursor_.Fail(type_at, field,
                   absl::StrCat("has the unknown type ",
                                static_cast<uint32_t>(key.type)));
    }
    if (cursor_.ok()) key.data = Memory(key.offset);
  }

  // Says so if `count` elements of at least `smallest` bytes cannot be there.
  bool Fits(absl::string_view field, uint64_t count, uint64_t smallest) {
    if (count <= cursor_.bytes_left() / smallest) return true;
    cursor_.Fail(cursor_.offset(), field,
                 absl::StrCat("has ", count, " elements, too many for the ",
                              cursor_.bytes_left(), " bytes that follow"));
    return false;
  }

  void SkipStrings(absl::string_view field, uint64_t count) {
    if (!Fits(field, count, sizeof(uint64_t))) return;
    for (uint64_t i = 0; i < count && cursor_.ok(); ++i) {
      cursor_.ReadString(field);
    }
  }

  void SkipFixed(absl::string_view field, uint64_t count, uint64_t bytes) {
    if (Fits(field, count, bytes)) cursor_.Skip(count * bytes, field);
  }

  void ReadAlignment(absl::string_view field, const GgufKey& key) {
    if (!cursor_.ok()) return;
    if (key.type != GgufType::kU32 || key.is_array) {
      return cursor_.Fail(key.offset, field,
                          "must be an unsigned 32-bit number");
    }
    uint32_t value;
    std::memcpy(&value, key.data, sizeof(value));
    if (value < 8 || value > kLargestAlignment || (value & (value - 1)) != 0) {
      return cursor_.Fail(
          key.offset, field,
          absl::StrCat("is ", value, "; powers of two from 8 to ",
                       kLargestAlignment, " are supported"));
    }
    alignment_ = value;
  }

  void ReadTensor() {
    GgufTensor tensor;
    tensor.record = cursor_.offset();
    tensor.name = cursor_.ReadString("name of a tensor");
    CheckTensorName(tensor);
    const std::string field = Quoted("tensor", tensor.name);
    ReadDimensions(field, tensor);
    ReadType(field, tensor);
    tensor.offset = cursor_.ReadU64(field);  // from the start of the data
    if (cursor_.ok()) header_.tensors.push_back(tensor);
  }

  void CheckTensorName(const GgufTensor& tensor) {
    if (tensor.name.empty() || tensor.name.size() > kLongestTensorName) {
      cursor_.Fail(tensor.record, "name of a tensor",
                   absl::StrCat("has ", tensor.name.size(), " bytes; 1 to ",
                                kLongestTensorName, " are allowed"));
    } else if (!tensor_names_.insert(tensor.name).second) {
      cursor_.Fail(tensor.record, Quoted("tensor", tensor.name),
                   "appears twice");
    }
  }

  void ReadDimensions(absl::string_view field, GgufTensor& tensor) {
    const uint64_t at = cursor_.offset();
    const uint32_t n = cursor_.ReadU32(field);
    if (n < 1 || n > tensor.dimensions.size()) {
      return cursor_.Fail(
          at, field,
          absl::StrCat("has ", n, " dimensions; 1 to 4 are allowed"));
    }
    tensor.num_dimensions = n;
    tensor.dimensions.fill(1);
    uint64_t elements = 1;
    for (uint32_t i = 0; i < n; ++i) {
      const uint64_t size = cursor_.ReadU64(field);
      if (size == 0) cursor_.Fail(at, field, "has a dimension of 0");
      if (size > kMostElements / elements) {
        cursor_.Fail(at, field,
                     absl::StrCat("has a dimension of ", size,
                                  ": more elements than 2^48"));
      }
      if (!cursor_.ok()) return;
      tensor.dimensions[i] = size;
      elements *= size;
    }
  }

  void ReadType(absl::string_view field, GgufTensor& tensor) {
    const uint64_t at = cursor_.offset();
    const uint32_t number = cursor_.ReadU32(field);
    const std::optional<WeightType> type = WeightTypeOfGguf(number);
    if (!type.has_value()) {
      return cursor_.Fail(
          at, field,
          absl::StrCat("has weights of type ", GgufWeightTypeName(number),
                       "; supported are ", SupportedWeightTypes()));
    }
    tensor.type = *type;
    const uint64_t cols = tensor.dimensions[0];
    if (cols % BlockElements(*type) != 0) {
      return cursor_.Fail(
          at, field,
          absl::StrCat("has rows of ", cols, " values; ", WeightTypeName(*type),
                       " needs a multiple of ", BlockElements(*type)));
    }
    // Below 2^48 elements of at most 4 bytes: no product can overflow.
    uint64_t rows = 1;
    for (size_t i = 1; i < 4; ++i) rows *= tensor.dimensions[i];
    tensor.bytes = rows * RowBytes(*type, cols);
  }

  // Turns offsets from the start of the data to offsets in the file, and
  // checks that each tensor starts where the one before ends, aligned.
  void PlaceTensors() {
    if (!cursor_.ok()) return;
    const uint64_t start = Align(cursor_.offset());
    uint64_t expected = start;
    for (GgufTensor& tensor : header_.tensors) {
      PlaceTensor(tensor, start, expected);
      if (!cursor_.ok()) return;
      expected = Align(tensor.offset + tensor.bytes);
    }
    if (file_bytes_ > expected) {
      cursor_.Fail(expected, "end of the file",
                   absl::StrCat("has ", file_bytes_ - expected,
                                " bytes that belong to no tensor"));
    }
  }

  void PlaceTensor(GgufTensor& tensor, uint64_t start, uint64_t expected) {
    const std::string field = Quoted("tensor", tensor.name);
    if (expected - start != tensor.offset) {
      return cursor_.Fail(
          tensor.record, field,
          absl::StrCat("starts at byte ", tensor.offset,
                       " of the data and must start at ", expected - start,
                       ", behind the tensor before it"));
    }
    if (expected > file_bytes_ || tensor.bytes > file_bytes_ - expected) {
      return cursor_.Fail(
          tensor.record, field,
          absl::StrCat("needs ", tensor.bytes, " bytes from byte ", expected,
                       " on, and the file has ", file_bytes_));
    }
    tensor.offset = expected;
  }

  uint64_t Align(uint64_t offset) const {
    return (offset + alignment_ - 1) & ~(alignment_ - 1);
  }

  // Bytes that the cursor has passed are in memory and stay there.
  const uint8_t* Memory(uint64_t offset) {
    return file_.Load(0)->data() + offset;
  }

  const uint64_t file_bytes_;
  GgufCursor cursor_;
  FileBytes& file_;
  uint64_t alignment_ = kDefaultAlignment;
  GgufHeader header_;
  absl::flat_hash_set<absl::string_view> key_names_;
  absl::flat_hash_set<absl::string_view> tensor_names_;
};

}  // namespace

absl::StatusOr<GgufHeader> ReadGgufHeader(FileBytes& file) {
  return HeaderReader(file).Read();
}

}  // namespace millrace::backends
