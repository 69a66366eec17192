#include "backends/model_file/gguf_metadata.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "backends/model_file/invalid_file.h"
#include "backends/model_file/utf8.h"

namespace millrace::backends {
namespace {

template <typename T>
T Load(const uint8_t* data, uint64_t index = 0) {
  T value;
  std::memcpy(&value, data + index * sizeof(T), sizeof(T));
  return value;
}

// Element i of a key with integers; none if it has another type. Unsigned
// values beyond 2^63 become the largest signed one, above any range of ours.
std::optional<int64_t> IntElement(const GgufKey& key, uint64_t i) {
  switch (key.type) {
    case GgufType::kU8:
      return Load<uint8_t>(key.data, i);
    case GgufType::kI8:
      return Load<int8_t>(key.data, i);
    case GgufType::kU16:
      return Load<uint16_t>(key.data, i);
    case GgufType::kI16:
      return Load<int16_t>(key.data, i);
    case GgufType::kU32:
      return Load<uint32_t>(key.data, i);
    case GgufType::kI32:
      return Load<int32_t>(key.data, i);
    case GgufType::kI64:
      return Load<int64_t>(key.data, i);
    case GgufType::kU64: {
      constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
      const uint64_t value = Load<uint64_t>(key.data, i);
      return value < kMax ? value : kMax;
    }
    default:
      return std::nullopt;
  }
}

absl::string_view StringAt(const uint8_t* data) {
  return absl::string_view(reinterpret_cast<const char*>(data) + 8,
                           Load<uint64_t>(data));
}

}  // namespace

GgufMetadata::GgufMetadata(const GgufHeader& header) : header_(header) {
  for (const GgufKey& key : header.keys) keys_[key.name] = &key;
}

int64_t GgufMetadata::Int(absl::string_view name, int64_t min, int64_t max) {
  const GgufKey* key = Scalar(name, true);
  return key == nullptr ? 0 : ToInt(*key, min, max);
}

int64_t GgufMetadata::IntOr(absl::string_view name, int64_t otherwise,
                            int64_t min, int64_t max) {
  const GgufKey* key = Scalar(name, false);
  return key == nullptr ? otherwise : ToInt(*key, min, max);
}

double GgufMetadata::Float(absl::string_view name, double min, double max) {
  const GgufKey* key = Scalar(name, true);
  return key == nullptr ? 0 : ToFloat(*key, min, max);
}

double GgufMetadata::FloatOr(absl::string_view name, double otherwise,
                             double min, double max) {
  const GgufKey* key = Scalar(name, false);
  return key == nullptr ? otherwise : ToFloat(*key, min, max);
}

bool GgufMetadata::BoolOr(absl::string_view name, bool otherwise) {
  const GgufKey* key = Scalar(name, false);
  if (key == nullptr) return otherwise;
  if (key->type != GgufType::kBool || *key->data > 1) {
    Fail(name, "must be a bool, 0 or 1");
    return otherwise;
  }
  return *key->data == 1;
}

std::string GgufMetadata::String(absl::string_view name, uint64_t longest) {
  return Scalar(name, true) == nullptr ? "" : StringOr(name, "", longest);
}

std::string GgufMetadata::StringOr(absl::string_view name,
                                   absl::string_view otherwise,
                                   uint64_t longest) {
  const GgufKey* key = Scalar(name, false);
  if (key == nullptr) return std::string(otherwise);
  if (key->type != GgufType::kString) {
    Fail(name, "must be a string");
    return std::string(otherwise);
  }
  const absl::string_view value = StringAt(key->data);
  if (value.size() > longest) {
    Fail(name, absl::StrCat("has ", value.size(), " bytes; at most ", longest,
                            " are supported"));
  } else if (!IsValidUtf8(value)) {
    Fail(name, "is not valid UTF-8");
  }
  return ok() ? std::string(value) : std::string(otherwise);
}

int64_t GgufMetadata::ArrayCount(absl::string_view name, int64_t min,
                                 int64_t max) {
  const GgufKey* key = Array(name);
  if (key == nullptr) return 0;
  const uint64_t count = key->count;
  if (count < static_cast<uint64_t>(min) ||
      count > static_cast<uint64_t>(max)) {
    Fail(name, absl::StrCat("has ", count, " elements; ", min, " to ", max,
                            " are supported"));
    return 0;
  }
  return count;
}

void GgufMetadata::ForEachString(
    absl::string_view name,
    absl::FunctionRef<void(int64_t, absl::string_view)> visit) {
  const GgufKey* key = Array(name);
  if (key == nullptr) return;
  if (key->type != GgufType::kString) {
    return Fail(name, "must be an array of strings");
  }
  // Lengths were checked when the header was read, and memory has not changed.
  const uint8_t* next = key->data;
  for (uint64_t i = 0; i < key->count && ok(); ++i) {
    const absl::string_view element = StringAt(next);
    visit(i, element);
    next += sizeof(uint64_t) + element.size();
  }
}

void GgufMetadata::ForEachInt(absl::string_view name,
                              absl::FunctionRef<void(int64_t, int64_t)> visit) {
  const GgufKey* key = Array(name);
  if (key == nullptr) return;
  for (uint64_t i = 0; i < key->count && ok(); ++i) {
    const std::optional<int64_t> value = IntElement(*key, i);
    if (!value.has_value()) return Fail(name, "must be an array of integers");
    visit(i, *value);
  }
}

void GgufMetadata::Ignore(absl::string_view name) {
  if (!absl::EndsWith(name, ".")) {
    read_.insert(name);
    return;
  }
  for (const GgufKey& key : header_.keys) {
    if (absl::StartsWith(key.name, name)) read_.insert(key.name);
  }
}

void GgufMetadata::RefuseUnread(absl::string_view prefix) {
  for (const GgufKey& key : header_.keys) {
    if (absl::StartsWith(key.name, prefix) && !read_.contains(key.name)) {
      return Fail(key.name,
                  "is not supported, and ignoring it could change the model's "
                  "results");
    }
  }
}

void GgufMetadata::Fail(absl::string_view name, absl::string_view problem) {
  if (!ok()) return;
  const auto key = keys_.find(name);
  const uint64_t offset = key == keys_.end() ? 0 : key->second->offset;
  status_ =
      InvalidFile(offset, absl::StrCat("key '", Printable(name), "'"), problem);
}

const GgufKey* GgufMetadata::Scalar(absl::string_view name, bool required) {
  if (!ok()) return nullptr;
  read_.insert(name);
  const auto key = keys_.find(name);
  if (key == keys_.end()) {
    if (required) Fail(name, "is missing");
    return nullptr;
  }
  if (key->second->is_array) {
    Fail(name, "is an array; one value is supported");
    return nullptr;
  }
  return key->second;
}

const GgufKey* GgufMetadata::Array(absl::string_view name) {
  if (!ok()) return nullptr;
  read_.insert(name);
  const auto key = keys_.find(name);
  if (key == keys_.end()) {
    Fail(name, "is missing");
    return nullptr;
  }
  if (!key->second->is_array) {
    Fail(name, "must be an array");
    return nullptr;
  }
  return key->second;
}

int64_t GgufMetadata::ToInt(const GgufKey& key, int64_t min, int64_t max) {
  const std::optional<int64_t> value = IntElement(key, 0);
  if (!value.has_value()) {
    Fail(key.name, absl::StrCat("must be an integer, ", min, " to ", max));
  } else if (*value < min || *value > max) {
    Fail(key.name,
         absl::StrCat("is ", *value, "; ", min, " to ", max, " are supported"));
  }
  return ok() ? *value : 0;
}

double GgufMetadata::ToFloat(const GgufKey& key, double min, double max) {
  double value = 0;
  if (key.type == GgufType::kF32) {
    value = Load<float>(key.data);
  } else if (key.type == GgufType::kF64) {
    value = Load<double>(key.data);
  } else {
    Fail(key.name, "must be a floating-point number");
  }
  if (!(value >= min && value <= max)) {  // also NaN
    Fail(key.name,
         absl::StrCat("is ", value, "; ", min, " to ", max, " are supported"));
  }
  return ok() ? value : 0;
}

}  // namespace millrace::backends
