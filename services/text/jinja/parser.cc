#include "services/text/jinja/parser.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/text/jinja/lexer.h"

namespace millrace::text::jinja {
namespace {

using ExpressionPtr = std::unique_ptr<Expression>;
using EKind = Expression::Kind;
using SKind = Statement::Kind;
using TKind = Token::Kind;

// Blocks within blocks, and expressions within expressions.
constexpr int kMaxDepth = 128;
// Of the tree of an expression: a chain such as a + b + c is as deep as long.
constexpr int kMaxHeight = 256;

// Recursive descent, one function per level of Jinja's grammar. The first error
// stays; after it the end of the source seems reached, so every loop ends.
class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  absl::StatusOr<Block> Run() {
    Block block = ParseBlock({});
    if (status_.ok() && Now().kind != TKind::kEnd) Fail("unexpected tag");
    if (!status_.ok()) return status_;
    return block;
  }

 private:
  struct Deeper {
    explicit Deeper(Parser* parser) : parser(parser) {
      if (++parser->depth_ > kMaxDepth) parser->Fail("nested too deep");
    }
    ~Deeper() { --parser->depth_; }
    Parser* parser;
  };

  const Token& Now() const { return tokens_[at_]; }
  bool Is(TKind kind, absl::string_view text) const {
    return Now().kind == kind && Now().text == text;
  }
  bool IsName(absl::string_view name) const { return Is(TKind::kName, name); }
  bool IsNextName(absl::string_view name) const {
    return tokens_[at_].kind != TKind::kEnd &&
           tokens_[at_ + 1].kind == TKind::kName &&
           tokens_[at_ + 1].text == name;
  }
  void Advance() {
    if (Now().kind != TKind::kEnd) ++at_;
  }
  bool Take(TKind kind, absl::string_view text) {
    if (!Is(kind, text)) return false;
    Advance();
    return true;
  }
  bool TakeOperator(absl::string_view op) { return Take(TKind::kOperator, op); }
  bool TakeName(absl::string_view name) { return Take(TKind::kName, name); }
  void Expect(absl::string_view op) {
    if (!TakeOperator(op)) Fail(absl::StrCat("'", op, "' expected"));
  }
  void ExpectEndOfTag() {
    if (Now().kind != TKind::kEndBlock) return Fail("'%}' expected");
    Advance();
  }
  std::string Name() {
    if (Now().kind != TKind::kName) {
      Fail("a name expected");
      return "";
    }
    std::string name = Now().text;
    Advance();
    return name;
  }
  void Fail(absl::string_view what) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(absl::StrCat(
        "template, offset ", Now().offset, ": ", what,
        Now().text.empty()
            ? ""
            : absl::StrCat(", not '", Now().text.substr(0, 40), "'")));
    at_ = tokens_.size() - 1;
  }

  // Parses up to a tag that begins with one of `ends`, and past its name.
  Block ParseBlock(std::initializer_list<absl::string_view> ends);
  bool AtEndOf(std::initializer_list<absl::string_view> ends) const;
  void ParseTag(Block& block);
  Statement ParseIf();
  Statement ParseFor();
  Statement ParseSet();

  ExpressionPtr ParseExpression();
  ExpressionPtr ParseChain(std::initializer_list<absl::string_view> operators,
                           ExpressionPtr (Parser::*operand)());
  ExpressionPtr ParseOr() { return ParseChain({"or"}, &Parser::ParseAnd); }
  ExpressionPtr ParseAnd() { return ParseChain({"and"}, &Parser::ParseNot); }
  ExpressionPtr ParseNot();
  ExpressionPtr ParseComparison();
  ExpressionPtr ParseSum() {
    return ParseChain({"+", "-"}, &Parser::ParseConcat);
  }
  ExpressionPtr ParseConcat() {
    return ParseChain({"~"}, &Parser::ParseProduct);
  }
  ExpressionPtr ParseProduct() {
    return ParseChain({"*", "//", "/", "%"}, &Parser::ParseUnary);
  }
  ExpressionPtr ParseUnary();
  ExpressionPtr ParsePostfix(ExpressionPtr base);
  ExpressionPtr ParseSubscript(ExpressionPtr base);
  ExpressionPtr ParseTest(ExpressionPtr base);
  ExpressionPtr ParsePrimary();
  ExpressionPtr ParseConstantOrName();
  ExpressionPtr ParseItems(EKind kind, absl::string_view close);
  void ParseArguments(Expression& call);

  static ExpressionPtr Make(EKind kind, std::string name = "") {
    auto made = std::make_unique<Expression>();
    made->kind = kind;
    made->name = std::move(name);
    return made;
  }
  ExpressionPtr Make(EKind kind, std::string name, ExpressionPtr first) {
    auto made = Make(kind, std::move(name));
    Adopt(*made, std::move(first));
    return made;
  }
  void Adopt(Expression& parent, ExpressionPtr operand) {
    if (operand != nullptr) {
      parent.height = std::max(parent.height, operand->height + 1);
      if (parent.height > kMaxHeight) Fail("an expression is too long");
    }
    parent.operands.push_back(std::move(operand));
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  absl::Status status_;
};

// ---- Statements ----

bool Parser::AtEndOf(std::initializer_list<absl::string_view> ends) const {
  if (Now().kind != TKind::kBeginBlock) return false;
  for (absl::string_view end : ends) {
    if (IsNextName(end)) return true;
  }
  return false;
}

Block Parser::ParseBlock(std::initializer_list<absl::string_view> ends) {
  const Deeper deeper(this);
  Block block;
  while (Now().kind != TKind::kEnd && !AtEndOf(ends)) {
    if (Now().kind == TKind::kText) {
      Statement& text = block.emplace_back();
      text.name = Now().text;
      Advance();
    } else if (Now().kind == TKind::kBeginOutput) {
      Advance();
      Statement& output = block.emplace_back();
      output.kind = SKind::kOutput;
      output.expression = ParseExpression();
      if (Now().kind != TKind::kEndOutput) Fail("'}}' expected");
      Advance();
    } else if (Now().kind == TKind::kBeginBlock) {
      Advance();
      ParseTag(block);
    } else {
      Fail("a tag expected");
    }
  }
  if (ends.size() > 0 && Now().kind == TKind::kEnd) {
    Fail(absl::StrCat("'", *(ends.end() - 1), "' is missing"));
  }
  if (ends.size() > 0) Advance();  // "{%"; the caller reads the name
  return block;
}

void Parser::ParseTag(Block& block) {
  if (TakeName("if")) {
    block.push_back(ParseIf());
  } else if (TakeName("for")) {
    block.push_back(ParseFor());
  } else if (TakeName("set")) {
    block.push_back(ParseSet());
  } else if (IsName("break") || IsName("continue")) {
    block.emplace_back().kind =
        IsName("break") ? SKind::kBreak : SKind::kContinue;
    Advance();
    ExpectEndOfTag();
  } else if (TakeName("generation") || TakeName("endgeneration")) {
    ExpectEndOfTag();  // marks what to train on; renders as its content
  } else {
    Fail("if, for, set, break or continue expected");
  }
}

Statement Parser::ParseIf() {
  const Deeper deeper(this);
  Statement made;
  made.kind = SKind::kIf;
  made.expression = ParseExpression();
  ExpectEndOfTag();
  made.body = ParseBlock({"elif", "else", "endif"});
  if (TakeName("elif")) {
    made.otherwise.push_back(ParseIf());  // reads endif, too
    return made;
  }
  if (TakeName("else")) {
    ExpectEndOfTag();
    made.otherwise = ParseBlock({"endif"});
  }
  if (!TakeName("endif")) Fail("endif expected");
  ExpectEndOfTag();
  return made;
}

Statement Parser::ParseFor() {
  Statement made;
  made.kind = SKind::kFor;
  do {
    made.targets.push_back(Name());
  } while (TakeOperator(","));
  if (!TakeName("in")) Fail("'in' expected");
  made.expression = ParseOr();  // not a condition: its "if" is the loop's
  if (TakeName("if")) made.condition = ParseExpression();
  ExpectEndOfTag();
  made.body = ParseBlock({"else", "endfor"});
  if (TakeName("else")) {
    ExpectEndOfTag();
    made.otherwise = ParseBlock({"endfor"});
  }
  if (!TakeName("endfor")) Fail("endfor expected");
  ExpectEndOfTag();
  return made;
}

Statement Parser::ParseSet() {
  Statement made;
  made.kind = SKind::kSet;
  made.targets.push_back(Name());
  if (Now().kind == TKind::kEndBlock) {
    Advance();
    made.body = ParseBlock({"endset"});
    if (!TakeName("endset")) Fail("endset expected");
    ExpectEndOfTag();
    return made;
  }
  if (TakeOperator(".")) made.name = Name();
  Expect("=");
  made.expression = ParseExpression();
  ExpectEndOfTag();
  return made;
}

// ---- Expressions, loosest first ----

ExpressionPtr Parser::ParseExpression() {
  const Deeper deeper(this);
  ExpressionPtr value = ParseOr();
  if (!TakeName("if")) return value;
  ExpressionPtr made = Make(EKind::kCondition, "", std::move(value));
  Adopt(*made, ParseOr());
  Adopt(*made, TakeName("else") ? ParseExpression() : Make(EKind::kLiteral));
  return made;
}

ExpressionPtr Parser::ParseChain(
    std::initializer_list<absl::string_view> operators,
    ExpressionPtr (Parser::*operand)()) {
  ExpressionPtr left = (this->*operand)();
  while (status_.ok()) {
    bool found = false;
    for (absl::string_view op : operators) {
      if (!TakeOperator(op) && !TakeName(op)) continue;
      left = Make(EKind::kBinary, std::string(op), std::move(left));
      Adopt(*left, (this->*operand)());
      found = true;
      break;
    }
    if (!found) break;
  }
  return left;
}

ExpressionPtr Parser::ParseNot() {
  const Deeper deeper(this);
  if (status_.ok() && TakeName("not")) {
    return Make(EKind::kUnary, "not", ParseNot());
  }
  return ParseComparison();
}

ExpressionPtr Parser::ParseComparison() {
  ExpressionPtr left = ParseSum();
  if (IsName("not") && IsNextName("in")) {
    Advance();
    Advance();
    ExpressionPtr in = Make(EKind::kBinary, "in", std::move(left));
    Adopt(*in, ParseSum());
    return Make(EKind::kUnary, "not", std::move(in));
  }
  for (absl::string_view op : {"==", "!=", "<=", ">=", "<", ">", "in"}) {
    if (!TakeOperator(op) && !TakeName(op)) continue;
    ExpressionPtr made = Make(EKind::kBinary, std::string(op), std::move(left));
    Adopt(*made, ParseSum());
    return made;
  }
  return left;
}

ExpressionPtr Parser::ParseUnary() {
  const Deeper deeper(this);
  if (status_.ok()) {
    if (TakeOperator("-")) return Make(EKind::kUnary, "-", ParseUnary());
    if (TakeOperator("+")) return Make(EKind::kUnary, "+", ParseUnary());
  }
  return ParsePostfix(ParsePrimary());
}

ExpressionPtr Parser::ParsePostfix(ExpressionPtr base) {
  while (status_.ok()) {
    if (TakeOperator(".")) {
      base = Make(EKind::kAttribute, Name(), std::move(base));
    } else if (TakeOperator("[")) {
      base = ParseSubscript(std::move(base));
    } else if (TakeOperator("(")) {
      base = Make(EKind::kCall, "", std::move(base));
      ParseArguments(*base);
    } else if (TakeOperator("|")) {
      base = Make(EKind::kFilter, Name(), std::move(base));
      if (TakeOperator("(")) ParseArguments(*base);
    } else if (TakeName("is")) {
      base = ParseTest(std::move(base));
    } else {
      break;
    }
  }
  return base;
}

ExpressionPtr Parser::ParseTest(ExpressionPtr base) {
  const bool negated = TakeName("not");
  ExpressionPtr test = Make(EKind::kTest, Name(), std::move(base));
  if (!negated) return test;
  return Make(EKind::kUnary, "not", std::move(test));
}

ExpressionPtr Parser::ParseSubscript(ExpressionPtr base) {
  const auto bound = [&]() -> ExpressionPtr {
    if (Is(TKind::kOperator, ":") || Is(TKind::kOperator, "]")) return nullptr;
    return ParseExpression();
  };
  ExpressionPtr first = bound();
  if (!Is(TKind::kOperator, ":")) {
    if (first == nullptr) Fail("an index expected");
    Expect("]");
    ExpressionPtr item = Make(EKind::kItem, "", std::move(base));
    Adopt(*item, std::move(first));
    return item;
  }
  ExpressionPtr slice = Make(EKind::kSlice, "", std::move(base));
  Adopt(*slice, std::move(first));
  Adopt(*slice, TakeOperator(":") ? bound() : nullptr);
  Adopt(*slice, TakeOperator(":") ? bound() : nullptr);
  Expect("]");
  return slice;
}

void Parser::ParseArguments(Expression& call) {
  while (status_.ok() && !TakeOperator(")")) {
    const bool named = Now().kind == TKind::kName &&
                       tokens_[at_ + 1].kind == TKind::kOperator &&
                       tokens_[at_ + 1].text == "=";
    if (named) {
      std::string name = Name();
      Expect("=");
      ExpressionPtr value = ParseExpression();
      call.height = std::max(call.height, value->height + 1);
      call.named.emplace_back(std::move(name), std::move(value));
    } else {
      Adopt(call, ParseExpression());
    }
    if (!TakeOperator(",") && !Is(TKind::kOperator, ")")) Fail("')' expected");
  }
}

ExpressionPtr Parser::ParseItems(EKind kind, absl::string_view close) {
  ExpressionPtr made = Make(kind);
  while (status_.ok() && !TakeOperator(close)) {
    Adopt(*made, ParseExpression());
    if (kind == EKind::kDict) {
      Expect(":");
      Adopt(*made, ParseExpression());
    }
    if (!TakeOperator(",") && !Is(TKind::kOperator, close)) {
      Fail(absl::StrCat("'", close, "' expected"));
    }
  }
  return made;
}

ExpressionPtr Parser::ParseConstantOrName() {
  std::string name = Name();
  ExpressionPtr made = Make(EKind::kLiteral);
  if (name == "true" || name == "True") {
    made->literal = Value::Of(true);
  } else if (name == "false" || name == "False") {
    made->literal = Value::Of(false);
  } else if (name == "none" || name == "None") {
    made->literal = Value::OfNone();
  } else {
    made = Make(EKind::kName, std::move(name));
  }
  return made;
}

ExpressionPtr Parser::ParsePrimary() {
  if (TakeOperator("(")) {
    ExpressionPtr inner = ParseExpression();
    Expect(")");
    return inner;
  }
  if (TakeOperator("[")) return ParseItems(EKind::kList, "]");
  if (TakeOperator("{")) return ParseItems(EKind::kDict, "}");
  if (Now().kind == TKind::kName) return ParseConstantOrName();
  ExpressionPtr made = Make(EKind::kLiteral);
  int64_t number = 0;
  if (Now().kind == TKind::kString) {
    std::string text;  // neighbours are one text, as in Python
    for (; Now().kind == TKind::kString; Advance()) text += Now().text;
    made->literal = Value::OfTemplate(text);
    return made;
  }
  if (Now().kind == TKind::kNumber && absl::SimpleAtoi(Now().text, &number)) {
    made->literal = Value::Of(number);
    Advance();
    return made;
  }
  Fail("a value expected");
  return made;
}

}  // namespace

absl::StatusOr<Block> Parse(absl::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("template of ", source.size(), " bytes: at most ",
                     kMaxSourceBytes, " are read"));
  }
  auto tokens = Tokenise(source);
  if (!tokens.ok()) return tokens.status();
  return Parser(*std::move(tokens)).Run();
}

}  // namespace millrace::text::jinja
