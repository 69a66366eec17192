// What expressions are worth.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/text/jinja/evaluation.h"

namespace millrace::text::jinja {
namespace {

using EKind = Expression::Kind;

constexpr int kMaxListDepth = 16;

// A slice's bounds, from the end if negative, within [0, size].
std::pair<int64_t, int64_t> Clamp(std::optional<int64_t> from,
                                  std::optional<int64_t> to, int64_t size) {
  const auto clamp = [size](int64_t at) {
    if (at < 0) at = at < -size ? 0 : at + size;
    return std::min(at, size);
  };
  const int64_t begin = clamp(from.value_or(0));
  return {begin, std::max(begin, clamp(to.value_or(size)))};
}

}  // namespace

Value Interpreter::Evaluate(const Expression& e) {
  if (!Step()) return {};
  switch (e.kind) {
    case EKind::kLiteral:
      return e.literal;
    case EKind::kName:
      return Lookup(e.name);
    case EKind::kList:
      return MakeList(e);
    case EKind::kDict:
      return MakeDict(e);
    case EKind::kAttribute:
      return Attribute(Evaluate(*e.operands[0]), e.name);
    case EKind::kItem: {
      const Value base = Evaluate(*e.operands[0]);
      return Item(base, Evaluate(*e.operands[1]));
    }
    case EKind::kSlice:
      return Slice(e);
    case EKind::kCall:
      return Call(e);
    case EKind::kFilter:
      return Filter(e);
    case EKind::kTest:
      return Test(e);
    case EKind::kUnary:
      return Unary(e);
    case EKind::kBinary:
      return Binary(e);
    case EKind::kCondition:
      return Evaluate(*e.operands[Evaluate(*e.operands[1]).IsTrue() ? 0 : 2]);
  }
  return {};
}

Value Interpreter::Lookup(const std::string& name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const Value* found = Find(*scope, name);
    if (found != nullptr) return *found;
  }
  return {};
}

Value Interpreter::Unary(const Expression& e) {
  const Value value = Evaluate(*e.operands[0]);
  if (e.name == "not") return Value::Of(!value.IsTrue());
  if (value.AsInt() == nullptr) {
    return Fail(absl::StrCat("no number: ", value.KindName()));
  }
  return e.name == "-" ? Arithmetic("-", Value::Of(int64_t{0}), value) : value;
}

Value Interpreter::Binary(const Expression& e) {
  Value a = Evaluate(*e.operands[0]);
  if (e.name == "and") return a.IsTrue() ? Evaluate(*e.operands[1]) : a;
  if (e.name == "or") return a.IsTrue() ? a : Evaluate(*e.operands[1]);
  const Value b = Evaluate(*e.operands[1]);
  if (e.name == "==") return Value::Of(Equal(a, b));
  if (e.name == "!=") return Value::Of(!Equal(a, b));
  if (e.name == "in") return Value::Of(Contains(b, a));
  if (e.name[0] == '<' || e.name[0] == '>') return Compare(e.name, a, b);
  if (e.name == "~") return Concatenate(ToText(a), ToText(b));
  if (e.name == "+" && a.AsText() != nullptr) return Concatenate(a, b);
  if (e.name == "+" && a.AsList() != nullptr && b.AsList() != nullptr) {
    List joined = ItemsOf(a);
    for (Value& item : ItemsOf(b)) joined.push_back(std::move(item));
    return Value::Of(std::move(joined));
  }
  return Arithmetic(e.name, a, b);
}

Value Interpreter::Concatenate(const Value& a, const Value& b) {
  if (a.AsText() == nullptr || b.AsText() == nullptr) {
    return Fail(
        absl::StrCat("cannot add ", b.KindName(), " to ", a.KindName()));
  }
  if (!Charge(a.AsText()->bytes.size() + b.AsText()->bytes.size())) return {};
  MarkedText joined = *a.AsText();
  joined.Append(*b.AsText());
  return Value::Of(std::move(joined));
}

Value Interpreter::Arithmetic(const std::string& op, const Value& a,
                              const Value& b) {
  if (a.AsInt() == nullptr || b.AsInt() == nullptr) {
    return Fail(
        absl::StrCat("'", op, "' of ", a.KindName(), " and ", b.KindName()));
  }
  const int64_t x = *a.AsInt(), y = *b.AsInt();
  int64_t result = 0;
  bool fits = true;
  if (op == "+") {
    fits = !__builtin_add_overflow(x, y, &result);
  } else if (op == "-") {
    fits = !__builtin_sub_overflow(x, y, &result);
  } else if (op == "*") {
    fits = !__builtin_mul_overflow(x, y, &result);
  } else if ((op == "%" || op == "//") && y > 0) {
    const int64_t remainder = (x % y + y) % y;  // as Python has it
    result = op == "%" ? remainder : x / y - (x % y < 0 ? 1 : 0);
  } else {
    fits = false;
  }
  if (!fits) return Fail(absl::StrCat(x, " ", op, " ", y, " is not there"));
  return Value::Of(result);
}

bool Interpreter::Equal(const Value& a, const Value& b) {
  if (a.AsText() != nullptr && b.AsText() != nullptr) {
    const size_t size = a.AsText()->bytes.size();
    if (size == b.AsText()->bytes.size()) Charge(size);
  }
  return a == b;
}

bool Interpreter::Contains(const Value& container, const Value& item) {
  if (container.AsList() != nullptr) {
    for (const Value& other : *container.AsList()) {
      if (!Step()) return false;
      if (Equal(other, item)) return true;
    }
    return false;
  }
  if (item.AsText() == nullptr) {
    Fail(absl::StrCat("'in' of ", item.KindName(), " and ",
                      container.KindName()));
    return false;
  }
  if (container.AsDict() != nullptr) {
    return Find(*container.AsDict(), item.AsText()->bytes) != nullptr;
  }
  if (container.AsText() == nullptr) {
    Fail(absl::StrCat("cannot look into ", container.KindName()));
    return false;
  }
  return Charge(container.AsText()->bytes.size()) &&
         absl::StrContains(container.AsText()->bytes, item.AsText()->bytes);
}

Value Interpreter::Compare(const std::string& op, const Value& a,
                           const Value& b) {
  int order = 0;
  if (a.AsInt() != nullptr && b.AsInt() != nullptr) {
    order = *a.AsInt() < *b.AsInt() ? -1 : *a.AsInt() > *b.AsInt();
  } else if (a.AsText() != nullptr && b.AsText() != nullptr) {
    Charge(std::min(a.AsText()->bytes.size(), b.AsText()->bytes.size()));
    order = a.AsText()->bytes.compare(b.AsText()->bytes);
  } else {
    return Fail(
        absl::StrCat("cannot compare ", a.KindName(), " with ", b.KindName()));
  }
  if (order == 0) return Value::Of(op.size() == 2);
  return Value::Of((order < 0) == (op[0] == '<'));
}

// Values in values are bounded in depth and never make a circle.
Value Interpreter::Storable(Value value) {
  if (value.AsNamespace() != nullptr) {
    return Fail("a namespace cannot be part of another value");
  }
  if (value.depth() >= kMaxListDepth) return Fail("lists are nested too deep");
  return value;
}

Value Interpreter::MakeList(const Expression& e) {
  List list;
  for (const auto& operand : e.operands) {
    if (!Charge(kBytesPerItem)) return {};
    list.push_back(Storable(Evaluate(*operand)));
  }
  return Value::Of(std::move(list));
}

Value Interpreter::MakeDict(const Expression& e) {
  Dict dict;
  for (size_t i = 0; i + 1 < e.operands.size(); i += 2) {
    const Value key = Evaluate(*e.operands[i]);
    if (key.AsText() == nullptr) return Fail("a dictionary's key is no text");
    if (!Charge(kBytesPerItem + key.AsText()->bytes.size())) return {};
    dict.emplace_back(key.AsText()->bytes,
                      Storable(Evaluate(*e.operands[i + 1])));
  }
  return Value::Of(std::move(dict));
}

Value Interpreter::Attribute(const Value& base, const std::string& name) {
  const Dict* dict = base.AsDict();
  if (base.AsNamespace() != nullptr) dict = &base.AsNamespace()->entries;
  if (dict == nullptr) {
    if (base.IsUndefined()) {
      return Fail(absl::StrCat("'", name, "' of something undefined"));
    }
    return {};
  }
  const Value* found = Find(*dict, name);
  return found == nullptr ? Value() : *found;
}

Value Interpreter::Item(const Value& base, const Value& index) {
  if (index.AsText() != nullptr) {
    return Attribute(base, index.AsText()->bytes);
  }
  if (index.AsInt() == nullptr || base.AsList() == nullptr) {
    return Fail(
        absl::StrCat("an item of ", base.KindName(), " by ", index.KindName()));
  }
  const auto size = static_cast<int64_t>(base.AsList()->size());
  int64_t at = *index.AsInt();
  if (at < 0) at += size;
  return at < 0 || at >= size ? Value() : (*base.AsList())[at];
}

Value Interpreter::Slice(const Expression& e) {
  const Value base = Evaluate(*e.operands[0]);
  std::optional<int64_t> bounds[3];
  for (int i = 0; i < 3; ++i) {
    if (e.operands[i + 1] == nullptr) continue;
    const Value bound = Evaluate(*e.operands[i + 1]);
    if (bound.AsInt() == nullptr) return Fail("a slice by no number");
    bounds[i] = *bound.AsInt();
  }
  const int64_t step = bounds[2].value_or(1);
  const bool whole = !bounds[0].has_value() && !bounds[1].has_value();
  if (step != 1 && (step != -1 || !whole)) {
    return Fail("a slice with such a step is not there");
  }
  if (base.AsText() != nullptr && step == 1) {
    return SliceText(*base.AsText(), bounds[0], bounds[1]);
  }
  if (base.AsList() == nullptr) {
    return Fail(absl::StrCat("a slice of ", base.KindName()));
  }
  const List& list = *base.AsList();
  const auto [begin, end] = Clamp(bounds[0], bounds[1], list.size());
  if (!Charge((end - begin) * kBytesPerItem)) return {};
  List part(list.begin() + begin, list.begin() + end);
  if (step == -1) std::reverse(part.begin(), part.end());
  return Value::Of(std::move(part));
}

// Counts characters, as Python does.
Value Interpreter::SliceText(const MarkedText& text,
                             std::optional<int64_t> from,
                             std::optional<int64_t> to) {
  if (!Charge(8 * text.bytes.size())) return {};
  std::vector<size_t> starts;
  for (size_t i = 0; i < text.bytes.size(); ++i) {
    if ((text.bytes[i] & 0xC0) != 0x80) starts.push_back(i);
  }
  const auto [begin, end] = Clamp(from, to, starts.size());
  starts.push_back(text.bytes.size());
  return Value::Of(text.Part(starts[begin], starts[end] - starts[begin]));
}

}  // namespace millrace::text::jinja
