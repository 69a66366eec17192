// What a template computes with: nothing, booleans, integers, texts, lists and
// dictionaries. Copies share; nothing that is shared changes, namespaces
// excepted.
#ifndef MILLRACE_SERVICES_TEXT_JINJA_VALUE_H_
#define MILLRACE_SERVICES_TEXT_JINJA_VALUE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "services/text/marked_text.h"

namespace millrace::text::jinja {

class Value;
using List = std::vector<Value>;
using Dict = std::vector<std::pair<std::string, Value>>;  // in order; small

// The one thing that changes: `namespace(found=false)`.
struct Namespace {
  Dict entries;
};

class Value {
 public:
  struct Undefined {};
  struct None {};

  Value() = default;  // undefined
  static Value OfNone() { return Value(Data(None{})); }
  static Value Of(bool value) { return Value(Data(value)); }
  static Value Of(int64_t value) { return Value(Data(value)); }
  static Value Of(MarkedText text) {
    return Value(Data(std::make_shared<const MarkedText>(std::move(text))));
  }
  static Value OfTemplate(absl::string_view text) {
    return Of(MarkedText::Of(text, MarkedText::kTemplate));
  }
  static Value Of(List list);
  static Value Of(Dict dict);
  static Value OfNamespace(Dict entries) {
    return Value(
        Data(std::make_shared<Namespace>(Namespace{std::move(entries)})));
  }

  bool IsUndefined() const { return std::holds_alternative<Undefined>(data_); }
  bool IsNone() const { return std::holds_alternative<None>(data_); }
  // Null if it is something else.
  const bool* AsBool() const { return std::get_if<bool>(&data_); }
  const int64_t* AsInt() const { return std::get_if<int64_t>(&data_); }
  const MarkedText* AsText() const { return Shared<const MarkedText>(); }
  const List* AsList() const { return Shared<const List>(); }
  const Dict* AsDict() const { return Shared<const Dict>(); }
  Namespace* AsNamespace() const { return Shared<Namespace>(); }

  bool IsTrue() const;
  // "undefined", "a list", ... for messages.
  const char* KindName() const;
  // Lists within lists; 0 for a value that holds no others.
  int depth() const { return depth_; }

  // Compares no deeper than texts and numbers: lists are never equal.
  friend bool operator==(const Value& a, const Value& b);

 private:
  using Data =
      std::variant<Undefined, None, bool, int64_t,
                   std::shared_ptr<const MarkedText>,
                   std::shared_ptr<const List>, std::shared_ptr<const Dict>,
                   std::shared_ptr<Namespace>>;
  explicit Value(Data data) : data_(std::move(data)) {}

  template <typename T>
  T* Shared() const {
    const auto* shared = std::get_if<std::shared_ptr<T>>(&data_);
    return shared == nullptr ? nullptr : shared->get();
  }

  Data data_;
  int depth_ = 0;
};

// Null if there is no such key.
const Value* Find(const Dict& dict, absl::string_view key);

}  // namespace millrace::text::jinja

#endif  // MILLRACE_SERVICES_TEXT_JINJA_VALUE_H_
