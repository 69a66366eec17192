#include "services/text/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace millrace::text {

std::optional<size_t> FindInvalidUtf8(absl::string_view text) {
  // PCRE2 checks its subject before it matches; the empty expression is as good
  // as any.
  static const pcre2_code* const code = [] {
    int error = 0;
    size_t offset = 0;
    return pcre2_compile(reinterpret_cast<PCRE2_SPTR>(""), 0,
                         PCRE2_UTF | PCRE2_ANCHORED, &error, &offset, nullptr);
  }();
  thread_local pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()),
                                text.size(), 0, 0, match, nullptr);
  if (found >= 0) return std::nullopt;
  return pcre2_get_startchar(match);
}

}  // namespace millrace::text
