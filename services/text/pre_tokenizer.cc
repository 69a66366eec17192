#include "services/text/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace millrace::text {
namespace {

// White space is Unicode's property: PCRE2's own \s has U+180E, too.
#define SPACE "\\p{White_Space}"
#define NOT_SPACE "\\P{White_Space}"

struct Named {
  absl::string_view name;
  const char* expression;
};

constexpr Named kExpressions[] = {
    // Digits one by one, then GPT-2's, which sees a digit as the end of text.
    {"smollm",
     "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+|\\p{N}"
     "| ?[^" SPACE "\\p{L}\\p{N}]+"
     "|" SPACE "+(?![^" SPACE "\\p{N}])|" SPACE "+"},
    {"gpt-2",
     "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+"
     "| ?[^" SPACE "\\p{L}\\p{N}]+"
     "|" SPACE "+(?!" NOT_SPACE ")|" SPACE "+"},
    {"llama-bpe",
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
     "|\\p{N}{1,3}| ?[^" SPACE "\\p{L}\\p{N}]+[\\r\\n]*"
     "|" SPACE "*[\\r\\n]+|" SPACE "+(?!" NOT_SPACE ")|" SPACE "+"},
    {"qwen2",
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
     "|\\p{N}| ?[^" SPACE "\\p{L}\\p{N}]+[\\r\\n]*"
     "|" SPACE "*[\\r\\n]+|" SPACE "+(?!" NOT_SPACE ")|" SPACE "+"},
};

#undef SPACE
#undef NOT_SPACE

std::string Names() {
  return absl::StrJoin(
      kExpressions, ", ",
      [](std::string* out, const Named& n) { absl::StrAppend(out, n.name); });
}

// Whether the text ends in white space (the characters with that property,
// Unicode 15).
bool EndsInSpace(absl::string_view text) {
  const auto ends = [&](absl::string_view end) {
    return absl::EndsWith(text, end);
  };
  if (absl::ascii_isspace(static_cast<unsigned char>(text.back()))) return true;
  for (absl::string_view space : {"\u0085", "\u00a0", "\u1680", "\u2028",
                                  "\u2029", "\u202f", "\u205f", "\u3000"}) {
    if (ends(space)) return true;
  }
  const size_t size = text.size();  // U+2000 to U+200A: E2 80 80 to E2 80 8A
  return size >= 3 && text.substr(size - 3, 2) == "\xE2\x80" &&
         static_cast<uint8_t>(text[size - 1]) <= 0x8A;
}

}  // namespace

struct PreTokenizer::Expression {
  ~Expression() { pcre2_code_free(code); }
  pcre2_code* code = nullptr;
};

PreTokenizer::PreTokenizer(std::unique_ptr<Expression> expression)
    : expression_(std::move(expression)) {}

PreTokenizer::~PreTokenizer() = default;

absl::StatusOr<std::unique_ptr<const PreTokenizer>> PreTokenizer::Create(
    absl::string_view name) {
  const auto* found =
      std::find_if(std::begin(kExpressions), std::end(kExpressions),
                   [&](const Named& named) { return named.name == name; });
  if (found == std::end(kExpressions)) {
    return absl::UnimplementedError(absl::StrCat(
        "pre-tokenizer '", name, "' is not there; there are ", Names()));
  }
  int error = 0;
  size_t offset = 0;
  auto expression = std::make_unique<Expression>();
  expression->code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(found->expression), PCRE2_ZERO_TERMINATED,
      PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &error, &offset, nullptr);
  if (expression->code == nullptr) {
    return absl::InternalError(absl::StrCat(
        "pre-tokenizer '", name, "': PCRE2 error ", error, " at ", offset));
  }
  // Without JIT (a hardened kernel) matching is slower, and right.
  pcre2_jit_compile(expression->code,
                    PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
  return std::unique_ptr<const PreTokenizer>(
      new PreTokenizer(std::move(expression)));
}

size_t PreTokenizer::Match(absl::string_view rest, bool may_grow) const {
  thread_local pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  const uint32_t options =
      PCRE2_NO_UTF_CHECK | (may_grow ? PCRE2_PARTIAL_HARD : 0);
  const int found =
      pcre2_match(expression_->code, reinterpret_cast<PCRE2_SPTR>(rest.data()),
                  rest.size(), 0, options, match, nullptr);
  if (found == PCRE2_ERROR_PARTIAL) return 0;
  // Every character is matched by some branch; an error (a resource limit)
  // makes one piece of the rest.
  if (found < 0) return may_grow ? 0 : rest.size();
  return pcre2_get_ovector_pointer(match)[1];
}

void PreTokenizer::ForEach(
    absl::string_view text,
    const std::function<void(absl::string_view)>& take) const {
  while (!text.empty()) {
    const size_t size = Match(text, /*may_grow=*/false);
    take(text.substr(0, size));
    text.remove_prefix(size);
  }
}

size_t PreTokenizer::LastStableBoundary(absl::string_view text) const {
  size_t boundary = 0, stable = 0;
  while (boundary < text.size()) {
    const size_t size = Match(text.substr(boundary), /*may_grow=*/true);
    if (size == 0) break;
    boundary += size;
    // White space looks ahead: without what follows it is cut differently.
    if (!EndsInSpace(text.substr(0, boundary))) stable = boundary;
  }
  return stable;
}

}  // namespace millrace::text
