#include "backends/model_file/gguf_cursor.h"

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "backends/model_file/invalid_file.h"

namespace millrace::backends {

bool GgufCursor::Need(uint64_t bytes, absl::string_view field) {
  if (!ok()) return false;
  if (bytes <= loaded_ - offset_) return true;
  if (bytes > bytes_left()) {
    Fail(offset_, field,
         absl::StrCat("needs ", bytes, " bytes, and the file has ",
                      bytes_left(), " left"));
    return false;
  }
  if (bytes > limit_ - offset_) {
    Fail(offset_, field,
         absl::StrCat("ends beyond the first ", limit_,
                      " bytes, the longest header that is supported"));
    return false;
  }
  absl::StatusOr<absl::Span<const uint8_t>> loaded =
      file_.Load(offset_ + bytes);
  if (!loaded.ok()) {
    status_ = loaded.status();
    return false;
  }
  data_ = loaded->data();
  // Load() may have read more; the limit holds for what is looked at.
  loaded_ = loaded->size() < limit_ ? loaded->size() : limit_;
  return true;
}

absl::string_view GgufCursor::ReadString(absl::string_view field) {
  const uint64_t length = ReadU64(field);
  if (!Need(length, field)) return "";
  const char* begin = reinterpret_cast<const char*>(data_ + offset_);
  offset_ += length;
  return absl::string_view(begin, length);
}

uint64_t GgufCursor::Skip(uint64_t bytes, absl::string_view field) {
  const uint64_t begin = offset_;
  if (Need(bytes, field)) offset_ += bytes;
  return begin;
}

void GgufCursor::Fail(uint64_t offset, absl::string_view field,
                      absl::string_view problem) {
  if (ok()) status_ = InvalidFile(offset, field, problem);
}

}  // namespace millrace::backends
