#include "services/text/jinja/value.h"

#include <algorithm>

namespace millrace::text::jinja {
namespace {

// True and false are the numbers 1 and 0, as in Python.
const int64_t* AsNumber(const Value& value, int64_t& storage) {
  if (value.AsInt() != nullptr) return value.AsInt();
  if (value.AsBool() == nullptr) return nullptr;
  storage = *value.AsBool() ? 1 : 0;
  return &storage;
}

}  // namespace

bool Value::IsTrue() const {
  if (AsBool() != nullptr) return *AsBool();
  if (AsInt() != nullptr) return *AsInt() != 0;
  if (AsText() != nullptr) return !AsText()->bytes.empty();
  if (AsList() != nullptr) return !AsList()->empty();
  if (AsDict() != nullptr) return !AsDict()->empty();
  return AsNamespace() != nullptr;
}

const char* Value::KindName() const {
  constexpr const char* kNames[] = {
      "undefined", "none",   "a boolean",    "a number",
      "a text",    "a list", "a dictionary", "a namespace",
  };
  return kNames[data_.index()];
}

Value Value::Of(List list) {
  int depth = 0;
  for (const Value& item : list) depth = std::max(depth, item.depth_);
  Value made(Data(std::make_shared<const List>(std::move(list))));
  made.depth_ = depth + 1;
  return made;
}

Value Value::Of(Dict dict) {
  int depth = 0;
  for (const auto& entry : dict) depth = std::max(depth, entry.second.depth_);
  Value made(Data(std::make_shared<const Dict>(std::move(dict))));
  made.depth_ = depth + 1;
  return made;
}

bool operator==(const Value& a, const Value& b) {
  int64_t storage_a, storage_b;
  const int64_t* number_a = AsNumber(a, storage_a);
  const int64_t* number_b = AsNumber(b, storage_b);
  if (number_a != nullptr && number_b != nullptr) return *number_a == *number_b;
  if (a.AsText() != nullptr && b.AsText() != nullptr) {
    return a.AsText()->bytes == b.AsText()->bytes;
  }
  return (a.IsNone() && b.IsNone()) || (a.IsUndefined() && b.IsUndefined());
}

const Value* Find(const Dict& dict, absl::string_view key) {
  for (const auto& [name, value] : dict) {
    if (name == key) return &value;
  }
  return nullptr;
}

}  // namespace millrace::text::jinja
