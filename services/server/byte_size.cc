#include "services/server/byte_size.h"

#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace millrace::server {
namespace {

struct Unit {
  absl::string_view suffix;
  int64_t bytes;
};
// Largest first: printing takes the first that divides.
constexpr Unit kUnits[] = {{"TiB", int64_t{1} << 40},
                           {"GiB", 1 << 30},
                           {"MiB", 1 << 20},
                           {"KiB", 1 << 10}};

}  // namespace

bool AbslParseFlag(absl::string_view text, ByteSize* size, std::string* error) {
  absl::string_view number = text;
  int64_t unit = 1;
  for (const Unit& u : kUnits) {
    if (absl::ConsumeSuffix(&number, u.suffix)) {
      unit = u.bytes;
      break;
    }
  }
  double value;
  const bool is_number = absl::SimpleAtod(number, &value);
  if (!is_number || !std::isfinite(value) || value < 0 ||
      value * unit > 9.2e18 || (unit == 1 && value != std::floor(value))) {
    *error = absl::StrCat("'", text,
                          "' is no size; write bytes, or a number and KiB, "
                          "MiB, GiB or TiB");
    return false;
  }
  size->bytes = static_cast<int64_t>(value * unit);
  return true;
}

std::string AbslUnparseFlag(ByteSize size) {
  for (const Unit& u : kUnits) {
    if (size.bytes > 0 && size.bytes % u.bytes == 0) {
      return absl::StrCat(size.bytes / u.bytes, u.suffix);
    }
  }
  return absl::StrCat(size.bytes);
}

}  // namespace millrace::server
