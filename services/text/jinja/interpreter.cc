#include "services/text/jinja/interpreter.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace millrace::text::jinja {
namespace {

using EKind = Expression::Kind;
using SKind = Statement::Kind;

constexpr int kMaxListDepth = 16;
constexpr int64_t kBytesPerItem = 64;  // what an entry of a list costs

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

enum class Flow { kOn, kBreak, kContinue };

// The first error stays, and every loop ends at it.
class Interpreter {
 public:
  Interpreter(const Dict& variables, const Limits& limits)
      : left_(limits), scopes_{variables} {}

  absl::StatusOr<MarkedText> Run(const Block& block) {
    Execute(block);
    if (!status_.ok()) return status_;
    return std::move(output_);
  }

 private:
  using Arguments = std::vector<Value>;

  Value Fail(absl::string_view what) {
    if (status_.ok()) {
      status_ = absl::InvalidArgumentError(absl::StrCat("template: ", what));
    }
    return {};
  }
  // Whether there is enough left.
  bool Charge(int64_t bytes) {
    left_.bytes -= bytes;
    if (left_.bytes < 0 && status_.ok()) {
      status_ = absl::ResourceExhaustedError("template: makes too much text");
    }
    return status_.ok();
  }
  bool Step() {
    if (--left_.steps < 0 && status_.ok()) {
      status_ = absl::ResourceExhaustedError("template: takes too many steps");
    }
    return status_.ok();
  }

  Flow Execute(const Block& block);
  Flow ExecuteOne(const Statement& statement);
  Flow ExecuteFor(const Statement& statement);
  void Bind(const Statement& loop, const Value& item);
  Value Capture(const Block& block);
  void Set(const Statement& statement);
  void Assign(const std::string& name, Value value);
  List ItemsOf(const Value& value);

  Value Evaluate(const Expression& e);
  Value Lookup(const std::string& name) const;
  Value Unary(const Expression& e);
  Value Binary(const Expression& e);
  Value Arithmetic(const std::string& op, const Value& a, const Value& b);
  Value Concatenate(const Value& a, const Value& b);
  bool Contains(const Value& container, const Value& item);
  bool Equal(const Value& a, const Value& b);
  Value Compare(const std::string& op, const Value& a, const Value& b);
  Value MakeList(const Expression& e);
  Value MakeDict(const Expression& e);
  Value Storable(Value value);
  Value Attribute(const Value& base, const std::string& name);
  Value Item(const Value& base, const Value& index);
  Value Slice(const Expression& e);
  Value SliceText(const MarkedText& text, std::optional<int64_t> from,
                  std::optional<int64_t> to);
  Value Call(const Expression& e);
  Value CallFunction(const std::string& name, const Expression& e);
  Value CallMethod(const Value& base, const std::string& name,
                   const Arguments& arguments);
  Value TextMethod(const MarkedText& text, const std::string& name,
                   const Arguments& arguments);
  Value Split(const MarkedText& text, const std::string& separator);
  Value Filter(const Expression& e);
  Value Join(const Value& list, const MarkedText& separator);
  Value Length(const Value& value);
  Value Test(const Expression& e);
  Value ToText(const Value& value);
  Value ToJson(const Value& value);
  Value Strip(const MarkedText& text, const std::string& what, bool left,
              bool right);
  Value MapCase(const MarkedText& text, bool upper);
  Arguments EvaluateArguments(const Expression& e);

  Limits left_;
  std::vector<Dict> scopes_;  // innermost last
  MarkedText output_;
  absl::Status status_;
};

// ---- Statements ----

Flow Interpreter::Execute(const Block& block) {
  for (const Statement& statement : block) {
    if (!Step()) return Flow::kBreak;
    const Flow flow = ExecuteOne(statement);
    if (flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

Flow Interpreter::ExecuteOne(const Statement& statement) {
  switch (statement.kind) {
    case SKind::kText:
      if (Charge(statement.name.size())) {
        output_.Append(MarkedText::Of(statement.name, MarkedText::kTemplate));
      }
      return Flow::kOn;
    case SKind::kOutput: {
      const Value text = ToText(Evaluate(*statement.expression));
      if (text.AsText() == nullptr || !Charge(text.AsText()->bytes.size())) {
        return Flow::kBreak;
      }
      output_.Append(*text.AsText());
      return Flow::kOn;
    }
    case SKind::kIf:
      return Execute(Evaluate(*statement.expression).IsTrue()
                         ? statement.body
                         : statement.otherwise);
    case SKind::kFor:
      return ExecuteFor(statement);
    case SKind::kSet:
      Set(statement);
      return Flow::kOn;
    case SKind::kBreak:
      return Flow::kBreak;
    case SKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kOn;
}

List Interpreter::ItemsOf(const Value& value) {
  if (value.AsList() != nullptr) {
    if (!Charge(value.AsList()->size() * kBytesPerItem)) return {};
    return *value.AsList();
  }
  List keys;
  if (value.AsDict() != nullptr) {
    for (const auto& entry : *value.AsDict()) {
      keys.push_back(Value::OfTemplate(entry.first));
    }
  } else if (!value.IsUndefined()) {
    Fail(absl::StrCat("cannot loop over ", value.KindName()));
  }
  return keys;
}

void Interpreter::Bind(const Statement& loop, const Value& item) {
  if (loop.targets.size() == 1) return Assign(loop.targets[0], item);
  const List* parts = item.AsList();
  if (parts == nullptr || parts->size() != loop.targets.size()) {
    Fail("a loop's names are not as many as its values");
    return;
  }
  for (size_t i = 0; i < parts->size(); ++i) {
    Assign(loop.targets[i], (*parts)[i]);
  }
}

Flow Interpreter::ExecuteFor(const Statement& statement) {
  List items = ItemsOf(Evaluate(*statement.expression));
  if (statement.condition != nullptr) {
    List kept;
    for (const Value& item : items) {
      scopes_.emplace_back();
      Bind(statement, item);
      if (Evaluate(*statement.condition).IsTrue()) kept.push_back(item);
      scopes_.pop_back();
    }
    items = std::move(kept);
  }
  if (items.empty()) return Execute(statement.otherwise);
  const auto size = static_cast<int64_t>(items.size());
  for (int64_t i = 0; i < size && status_.ok(); ++i) {
    scopes_.emplace_back();
    Bind(statement, items[i]);
    Assign("loop", Value::Of(Dict{
                       {"index0", Value::Of(i)},
                       {"index", Value::Of(i + 1)},
                       {"first", Value::Of(i == 0)},
                       {"last", Value::Of(i + 1 == size)},
                       {"length", Value::Of(size)},
                       {"revindex", Value::Of(size - i)},
                       {"revindex0", Value::Of(size - i - 1)},
                       {"previtem", i > 0 ? items[i - 1] : Value()},
                       {"nextitem", i + 1 < size ? items[i + 1] : Value()},
                   }));
    const Flow flow = Execute(statement.body);
    scopes_.pop_back();
    if (flow == Flow::kBreak) break;
  }
  return Flow::kOn;
}

void Interpreter::Assign(const std::string& name, Value value) {
  for (auto& [known, old] : scopes_.back()) {
    if (known != name) continue;
    old = std::move(value);
    return;
  }
  scopes_.back().emplace_back(name, std::move(value));
}

// What the block writes, as a value.
Value Interpreter::Capture(const Block& block) {
  MarkedText before = std::exchange(output_, {});
  scopes_.emplace_back();
  Execute(block);
  scopes_.pop_back();
  return Value::Of(std::exchange(output_, std::move(before)));
}

void Interpreter::Set(const Statement& statement) {
  Value value = statement.expression == nullptr
                    ? Capture(statement.body)
                    : Evaluate(*statement.expression);
  if (statement.name.empty()) {
    return Assign(statement.targets[0], std::move(value));
  }
  Namespace* space = Lookup(statement.targets[0]).AsNamespace();
  if (space == nullptr) {
    Fail(absl::StrCat("'", statement.targets[0], "' is no namespace"));
    return;
  }
  value = Storable(std::move(value));
  for (auto& [known, old] : space->entries) {
    if (known != statement.name) continue;
    old = std::move(value);
    return;
  }
  space->entries.emplace_back(statement.name, std::move(value));
}

// ---- Expressions ----

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

// ---- Functions, methods, filters, tests ----

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

}  // namespace

absl::StatusOr<MarkedText> Render(const Block& block, const Dict& variables,
                                  const Limits& limits) {
  return Interpreter(variables, limits).Run(block);
}

}  // namespace millrace::text::jinja
