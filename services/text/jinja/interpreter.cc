// Statements, and the call of it all.
#include "services/text/jinja/interpreter.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/text/jinja/evaluation.h"

namespace millrace::text::jinja {
namespace {

using SKind = Statement::Kind;

}  // namespace

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

absl::StatusOr<MarkedText> Render(const Block& block, const Dict& variables,
                                  const Limits& limits) {
  return Interpreter(variables, limits).Run(block);
}

}  // namespace millrace::text::jinja
