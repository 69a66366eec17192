// What templates call: functions, methods, filters and tests.
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/text/jinja/evaluation.h"

namespace millrace::text::jinja {
namespace {

using EKind = Expression::Kind;

}  // namespace

Interpreter::Arguments Interpreter::EvaluateArguments(const Expression& e) {
  Arguments arguments;
  for (size_t i = 1; i < e.operands.size(); ++i) {
    arguments.push_back(Evaluate(*e.operands[i]));
  }
  return arguments;
}

Value Interpreter::Call(const Expression& e) {
  const Expression& callee = *e.operands[0];
  if (callee.kind == EKind::kName) return CallFunction(callee.name, e);
  if (callee.kind != EKind::kAttribute) return Fail("cannot be called");
  const Value base = Evaluate(*callee.operands[0]);
  return CallMethod(base, callee.name, EvaluateArguments(e));
}

Value Interpreter::CallFunction(const std::string& name, const Expression& e) {
  const Arguments arguments = EvaluateArguments(e);
  if (name == "raise_exception") {
    const bool said = !arguments.empty() && arguments[0].AsText() != nullptr;
    return Fail(absl::StrCat(
        "refuses: ", said ? arguments[0].AsText()->bytes.substr(0, 200) : ""));
  }
  if (name == "namespace") {
    Dict entries;
    for (const auto& [key, value] : e.named) {
      entries.emplace_back(key, Storable(Evaluate(*value)));
    }
    return Value::OfNamespace(std::move(entries));
  }
  if (name == "range" && !arguments.empty() && arguments.size() <= 2 &&
      arguments.front().AsInt() != nullptr &&
      arguments.back().AsInt() != nullptr) {
    List numbers;
    for (int64_t i = arguments.size() == 2 ? *arguments[0].AsInt() : 0;
         i < *arguments.back().AsInt() && Charge(kBytesPerItem); ++i) {
      numbers.push_back(Value::Of(i));
    }
    return Value::Of(std::move(numbers));
  }
  return Fail(absl::StrCat("function '", name, "' is not there"));
}

Value Interpreter::CallMethod(const Value& base, const std::string& name,
                              const Arguments& arguments) {
  if (base.AsText() != nullptr) {
    return TextMethod(*base.AsText(), name, arguments);
  }
  if (base.AsDict() != nullptr && name == "items") {
    List items;
    for (const auto& [key, value] : *base.AsDict()) {
      if (!Charge(kBytesPerItem)) return {};
      items.push_back(Value::Of(List{Value::OfTemplate(key), value}));
    }
    return Value::Of(std::move(items));
  }
  if (base.AsDict() != nullptr && name == "get" && !arguments.empty() &&
      arguments[0].AsText() != nullptr) {
    const Value* found = Find(*base.AsDict(), arguments[0].AsText()->bytes);
    if (found != nullptr) return *found;
    return arguments.size() > 1 ? arguments[1] : Value::OfNone();
  }
  return Fail(absl::StrCat("method '", name, "' of ", base.KindName(),
                           " is not there"));
}

Value Interpreter::Strip(const MarkedText& text, const std::string& what,
                         bool left, bool right) {
  if (!Charge(text.bytes.size())) return {};
  size_t begin = 0, end = text.bytes.size();
  while (left && begin < end && absl::StrContains(what, text.bytes[begin])) {
    ++begin;
  }
  while (right && end > begin && absl::StrContains(what, text.bytes[end - 1])) {
    --end;
  }
  return Value::Of(text.Part(begin, end - begin));
}

constexpr char kWhiteSpace[] = " \t\n\r\v\f\x1c\x1d\x1e\x1f";

Value Interpreter::MapCase(const MarkedText& text, bool upper) {
  if (!Charge(text.bytes.size())) return {};
  MarkedText mapped = text;
  if (upper) {
    absl::AsciiStrToUpper(&mapped.bytes);
  } else {
    absl::AsciiStrToLower(&mapped.bytes);
  }
  return Value::Of(std::move(mapped));
}

Value Interpreter::Split(const MarkedText& text, const std::string& separator) {
  if (separator.empty() || !Charge(text.bytes.size())) {
    return Fail("a split by nothing");
  }
  List parts;
  for (size_t begin = 0; begin != std::string::npos;) {
    const size_t end = text.bytes.find(separator, begin);
    if (!Charge(kBytesPerItem)) return {};
    parts.push_back(Value::Of(text.Part(begin, end - begin)));
    begin = end == std::string::npos ? end : end + separator.size();
  }
  return Value::Of(std::move(parts));
}

Value Interpreter::TextMethod(const MarkedText& text, const std::string& name,
                              const Arguments& arguments) {
  const MarkedText* first = arguments.empty() ? nullptr : arguments[0].AsText();
  if (first == nullptr && !arguments.empty()) {
    return Fail(absl::StrCat("'", name, "' with ", arguments[0].KindName()));
  }
  const std::string what = first == nullptr ? kWhiteSpace : first->bytes;
  if (name == "strip") return Strip(text, what, true, true);
  if (name == "lstrip") return Strip(text, what, true, false);
  if (name == "rstrip") return Strip(text, what, false, true);
  if (name == "upper") return MapCase(text, true);
  if (name == "lower") return MapCase(text, false);
  if (first != nullptr && name == "startswith") {
    return Value::Of(absl::StartsWith(text.bytes, first->bytes));
  }
  if (first != nullptr && name == "endswith") {
    return Value::Of(absl::EndsWith(text.bytes, first->bytes));
  }
  if (first != nullptr && name == "split") return Split(text, first->bytes);
  return Fail(absl::StrCat("method '", name, "' of a text is not there"));
}

Value Interpreter::Length(const Value& value) {
  size_t length = 0;
  if (value.AsText() != nullptr) {
    if (!Charge(value.AsText()->bytes.size())) return {};
    for (char c : value.AsText()->bytes) length += (c & 0xC0) != 0x80;
  } else if (value.AsList() != nullptr) {
    length = value.AsList()->size();
  } else if (value.AsDict() != nullptr) {
    length = value.AsDict()->size();
  } else {
    return Fail(absl::StrCat("the length of ", value.KindName()));
  }
  return Value::Of(static_cast<int64_t>(length));
}

Value Interpreter::Join(const Value& list, const MarkedText& separator) {
  MarkedText joined;
  bool is_first = true;
  for (const Value& item : ItemsOf(list)) {
    const Value text = ToText(item);
    if (text.AsText() == nullptr ||
        !Charge(text.AsText()->bytes.size() + separator.bytes.size())) {
      return {};
    }
    if (!is_first) joined.Append(separator);
    joined.Append(*text.AsText());
    is_first = false;
  }
  return Value::Of(std::move(joined));
}

Value Interpreter::Filter(const Expression& e) {
  const Value value = Evaluate(*e.operands[0]);
  const Arguments arguments = EvaluateArguments(e);
  if ((e.name == "default" || e.name == "d") && !arguments.empty()) {
    const bool also_false = arguments.size() > 1 && arguments[1].IsTrue();
    const bool missing = also_false ? !value.IsTrue() : value.IsUndefined();
    return missing ? arguments[0] : value;
  }
  if (e.name == "length" || e.name == "count") return Length(value);
  if (e.name == "string" || e.name == "safe") return ToText(value);
  if (e.name == "tojson" && e.named.empty() && arguments.empty()) {
    return ToJson(value);
  }
  if (e.name == "list") return Value::Of(ItemsOf(value));
  if (e.name == "join") {
    const bool given = !arguments.empty() && arguments[0].AsText() != nullptr;
    return Join(value, given ? *arguments[0].AsText() : MarkedText());
  }
  if (value.AsList() != nullptr && (e.name == "first" || e.name == "last")) {
    if (value.AsList()->empty()) return {};
    return e.name == "first" ? value.AsList()->front() : value.AsList()->back();
  }
  if (value.AsText() != nullptr && arguments.empty()) {
    const MarkedText& text = *value.AsText();
    if (e.name == "trim") return Strip(text, kWhiteSpace, true, true);
    if (e.name == "upper") return MapCase(text, true);
    if (e.name == "lower") return MapCase(text, false);
  }
  return Fail(absl::StrCat("filter '", e.name, "' of ", value.KindName(),
                           " is not there"));
}

Value Interpreter::Test(const Expression& e) {
  const Value value = Evaluate(*e.operands[0]);
  const bool is_text = value.AsText() != nullptr;
  const bool is_list = value.AsList() != nullptr;
  const bool is_dict = value.AsDict() != nullptr;
  const bool is_bool = value.AsBool() != nullptr;
  if (e.name == "defined") return Value::Of(!value.IsUndefined());
  if (e.name == "undefined") return Value::Of(value.IsUndefined());
  if (e.name == "none") return Value::Of(value.IsNone());
  if (e.name == "string") return Value::Of(is_text);
  if (e.name == "mapping") return Value::Of(is_dict);
  if (e.name == "iterable" || e.name == "sequence") {
    return Value::Of(is_text || is_list || is_dict);
  }
  if (e.name == "number" || e.name == "integer") {
    return Value::Of(value.AsInt() != nullptr);
  }
  if (value.AsInt() != nullptr && (e.name == "odd" || e.name == "even")) {
    return Value::Of((*value.AsInt() % 2 != 0) == (e.name == "odd"));
  }
  if (e.name == "boolean") return Value::Of(is_bool);
  if (e.name == "true") return Value::Of(is_bool && *value.AsBool());
  if (e.name == "false") return Value::Of(is_bool && !*value.AsBool());
  return Fail(absl::StrCat("test '", e.name, "' is not there"));
}

Value Interpreter::ToText(const Value& value) {
  if (value.AsText() != nullptr) return value;
  if (value.IsUndefined()) return Value::OfTemplate("");
  if (value.IsNone()) return Value::OfTemplate("None");
  if (value.AsBool() != nullptr) {
    return Value::OfTemplate(*value.AsBool() ? "True" : "False");
  }
  if (value.AsInt() != nullptr) {
    return Value::OfTemplate(absl::StrCat(*value.AsInt()));
  }
  return Fail(absl::StrCat("cannot write ", value.KindName()));
}

// Only for texts and numbers: lists would be spaced differently.
Value Interpreter::ToJson(const Value& value) {
  if (value.AsList() != nullptr || value.AsDict() != nullptr) {
    return Fail(
        absl::StrCat("filter 'tojson' of ", value.KindName(), " is not there"));
  }
  const MarkedText* text = value.AsText();
  if (!Charge(text == nullptr ? 0 : 6 * text->bytes.size())) return {};
  nlohmann::json json;
  if (text != nullptr) json = text->bytes;
  if (value.AsBool() != nullptr) json = *value.AsBool();
  if (value.AsInt() != nullptr) json = *value.AsInt();
  const std::string dumped =
      json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  // Contents stay contents, whatever they were mixed with.
  const bool content =
      text != nullptr && absl::StrContains(text->marks, MarkedText::kContent);
  return Value::Of(MarkedText::Of(
      dumped, content ? MarkedText::kContent : MarkedText::kTemplate));
}

}  // namespace millrace::text::jinja
