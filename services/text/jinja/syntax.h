// The syntax tree of a template.
#ifndef MILLRACE_SERVICES_TEXT_JINJA_SYNTAX_H_
#define MILLRACE_SERVICES_TEXT_JINJA_SYNTAX_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/text/jinja/value.h"

namespace millrace::text::jinja {

struct Expression {
  enum class Kind {
    kLiteral,    // literal
    kName,       // name
    kList,       // operands
    kDict,       // operands: key, value, key, value ...
    kAttribute,  // operands[0].name
    kItem,       // operands[0][operands[1]]
    kSlice,      // operands[0][operands[1]:operands[2]:operands[3]]; null: none
    kCall,       // operands[0](operands[1] ..., named ...)
    kFilter,     // operands[0] | name(operands[1] ..., named ...)
    kTest,       // operands[0] is name
    kUnary,      // name ("not", "-", "+") operands[0]
    kBinary,     // operands[0] name operands[1]
    kCondition,  // operands[0] if operands[1] else operands[2]
  };
  Kind kind = Kind::kLiteral;
  int height = 1;  // of this tree
  std::string name;
  Value literal;
  std::vector<std::unique_ptr<Expression>> operands;
  std::vector<std::pair<std::string, std::unique_ptr<Expression>>> named;
};

struct Statement;
using Block = std::vector<Statement>;

struct Statement {
  enum class Kind {
    kText,    // name holds it
    kOutput,  // {{ expression }}
    kIf,      // if expression: body, else: otherwise (an elif is nested)
    kFor,     // for targets in expression if condition: body, else: otherwise
    kSet,     // set targets[0][.name] = expression; null: what body writes
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kText;
  std::string name;
  std::vector<std::string> targets;
  std::unique_ptr<Expression> expression;
  std::unique_ptr<Expression> condition;
  Block body;
  Block otherwise;
};

}  // namespace millrace::text::jinja

#endif  // MILLRACE_SERVICES_TEXT_JINJA_SYNTAX_H_
