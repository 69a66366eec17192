// The interpreter's state and parts, for its sources alone.
#ifndef MILLRACE_SERVICES_TEXT_JINJA_EVALUATION_H_
#define MILLRACE_SERVICES_TEXT_JINJA_EVALUATION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/text/jinja/interpreter.h"
#include "services/text/jinja/syntax.h"
#include "services/text/jinja/value.h"

namespace millrace::text::jinja {

inline constexpr int64_t kBytesPerItem = 64;  // what an entry of a list costs

enum class Flow { kOn, kBreak, kContinue };

// Renders one template once. The first error stays, and every loop ends at it.
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

  // ---- What everything is charged to ----
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

  // ---- Statements: interpreter.cc ----
  Flow Execute(const Block& block);
  Flow ExecuteOne(const Statement& statement);
  Flow ExecuteFor(const Statement& statement);
  void Bind(const Statement& loop, const Value& item);
  Value Capture(const Block& block);
  void Set(const Statement& statement);
  void Assign(const std::string& name, Value value);
  List ItemsOf(const Value& value);

  // ---- Expressions: expressions.cc ----
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

  // ---- Functions, methods, filters, tests: builtins.cc ----
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

}  // namespace millrace::text::jinja

#endif  // MILLRACE_SERVICES_TEXT_JINJA_EVALUATION_H_
