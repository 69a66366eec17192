#include "services/text/jinja/lexer.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace millrace::text::jinja {
namespace {

using Kind = Token::Kind;

class Lexer {
 public:
  explicit Lexer(absl::string_view source) : source_(source) {}

  absl::StatusOr<std::vector<Token>> Run();

 private:
  absl::Status Wrong(absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat("template, offset ", at_, ": ", what));
  }
  absl::string_view Rest() const { return source_.substr(at_); }
  bool Skip(absl::string_view text) {
    if (!absl::StartsWith(Rest(), text)) return false;
    at_ += text.size();
    return true;
  }
  void Add(Kind kind, std::string text) {
    tokens_.push_back({kind, std::move(text), at_});
  }

  void Text(size_t end);
  absl::Status Tag();
  absl::Status Comment();
  absl::Status Inside(absl::string_view close, Kind end);
  absl::Status Inner();
  absl::Status String();
  void AfterTag(bool trim_all, bool is_block);

  const absl::string_view source_;
  size_t at_ = 0;
  bool strip_next_ = false;  // white space after "-%}"
  bool drop_newline_ = false;
  std::vector<Token> tokens_;
};

// Emits source_[at_, end), trimmed for the tags around it.
void Lexer::Text(size_t end) {
  absl::string_view text = source_.substr(at_, end - at_);
  const bool begins_line = at_ == 0 || drop_newline_;
  if (strip_next_) {
    text = absl::StripLeadingAsciiWhitespace(text);
  } else if (drop_newline_) {
    if (absl::StartsWith(text, "\r\n")) text.remove_prefix(1);
    if (absl::StartsWith(text, "\n")) text.remove_prefix(1);
  }
  const absl::string_view tag = source_.substr(end, 3);
  if (tag.size() == 3 && tag[2] == '-') {
    text = absl::StripTrailingAsciiWhitespace(text);
  } else if (tag.size() == 3 && tag[1] != '{' && tag[2] != '+') {
    size_t size = text.size();
    while (size > 0 && (text[size - 1] == ' ' || text[size - 1] == '\t')) {
      --size;
    }
    const bool whole_line =
        size == 0 ? begins_line || (end > text.size() &&
                                    source_[end - text.size() - 1] == '\n')
                  : text[size - 1] == '\n';
    if (whole_line) text = text.substr(0, size);
  }
  if (!text.empty()) Add(Kind::kText, std::string(text));
  at_ = end;
  strip_next_ = drop_newline_ = false;
}

void Lexer::AfterTag(bool trim_all, bool is_block) {
  strip_next_ = trim_all;
  drop_newline_ = is_block && !trim_all;
}

absl::Status Lexer::Comment() {
  const size_t end = source_.find("#}", at_ + 2);
  if (end == absl::string_view::npos) return Wrong("a comment has no end");
  const bool trim = end > at_ + 2 && source_[end - 1] == '-';
  at_ = end + 2;
  AfterTag(trim, true);
  return absl::OkStatus();
}

absl::Status Lexer::Inside(absl::string_view close, Kind end) {
  while (true) {
    while (at_ < source_.size() && absl::ascii_isspace(source_[at_])) ++at_;
    if (at_ >= source_.size()) return Wrong("a tag has no end");
    const bool trim = absl::StartsWith(Rest(), absl::StrCat("-", close));
    const bool keep = absl::StartsWith(Rest(), absl::StrCat("+", close));
    if (trim || keep || absl::StartsWith(Rest(), close)) {
      Add(end, "");
      at_ += close.size() + (trim || keep);
      AfterTag(trim, end == Kind::kEndBlock && !keep);
      return absl::OkStatus();
    }
    const absl::Status status = Inner();
    if (!status.ok()) return status;
  }
}

absl::Status Lexer::String() {
  const char quote = source_[at_];
  std::string text;
  size_t i = at_ + 1;
  for (; i < source_.size() && source_[i] != quote; ++i) {
    if (source_[i] != '\\' || i + 1 >= source_.size()) {
      text += source_[i];
      continue;
    }
    switch (const char c = source_[++i]) {
      case 'n':
        text += '\n';
        break;
      case 't':
        text += '\t';
        break;
      case 'r':
        text += '\r';
        break;
      case '\\':
      case '\'':
      case '"':
        text += c;
        break;
      default:
        text += '\\';
        text += c;
    }
  }
  if (i >= source_.size()) return Wrong("a text has no end");
  Add(Kind::kString, std::move(text));
  at_ = i + 1;
  return absl::OkStatus();
}

// One token within a tag.
absl::Status Lexer::Inner() {
  const char c = source_[at_];
  if (c == '\'' || c == '"') return String();
  const auto take = [&](Kind kind, auto belongs) {
    size_t end = at_;
    while (end < source_.size() && belongs(source_[end])) ++end;
    Add(kind, std::string(source_.substr(at_, end - at_)));
    at_ = end;
    return absl::OkStatus();
  };
  if (absl::ascii_isdigit(c)) {
    return take(Kind::kNumber, [](char d) { return absl::ascii_isdigit(d); });
  }
  if (absl::ascii_isalpha(c) || c == '_') {
    return take(Kind::kName,
                [](char d) { return absl::ascii_isalnum(d) || d == '_'; });
  }
  for (absl::string_view op : {"==", "!=", "<=", ">=", "//", "**"}) {
    if (!absl::StartsWith(Rest(), op)) continue;
    Add(Kind::kOperator, std::string(op));
    at_ += op.size();
    return absl::OkStatus();
  }
  if (!absl::StrContains("<>+-*/%~|.,:()[]{}=", c)) {
    return Wrong(absl::StrCat("unexpected byte ", static_cast<uint8_t>(c)));
  }
  Add(Kind::kOperator, std::string(1, c));
  ++at_;
  return absl::OkStatus();
}

absl::Status Lexer::Tag() {
  if (absl::StartsWith(Rest(), "{#")) return Comment();
  const bool output = absl::StartsWith(Rest(), "{{");
  Add(output ? Kind::kBeginOutput : Kind::kBeginBlock, "");
  at_ += 2;
  if (!Skip("-")) Skip("+");
  return output ? Inside("}}", Kind::kEndOutput)
                : Inside("%}", Kind::kEndBlock);
}

absl::StatusOr<std::vector<Token>> Lexer::Run() {
  while (at_ < source_.size()) {
    size_t tag = at_;
    while (tag < source_.size() &&
           !(source_[tag] == '{' && tag + 1 < source_.size() &&
             absl::StrContains("{%#", source_[tag + 1]))) {
      ++tag;
    }
    Text(tag);
    if (tag == source_.size()) break;
    const absl::Status status = Tag();
    if (!status.ok()) return status;
  }
  Add(Kind::kEnd, "");
  return std::move(tokens_);
}

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenise(absl::string_view source) {
  if (absl::EndsWith(source, "\n")) source.remove_suffix(1);
  return Lexer(source).Run();
}

}  // namespace millrace::text::jinja
