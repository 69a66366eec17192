// Walks over the header of a GGUF file and never beyond what is there.
//
//   GgufCursor cursor(file, 16 << 20);
//   const uint32_t version = cursor.ReadU32("version");
//   const absl::string_view key = cursor.ReadString("key");
//   if (!cursor.ok()) return cursor.status();
//
// The first failure sticks: reads after it return zeros and move nothing, so
// that a caller looks at status() once per record and not once per field.
// Nothing is allocated for a length before the bytes behind it are there.
#ifndef MILLRACE_BACKENDS_MODEL_FILE_GGUF_CURSOR_H_
#define MILLRACE_BACKENDS_MODEL_FILE_GGUF_CURSOR_H_

#include <cstdint>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "backends/model_file/file_bytes.h"

namespace millrace::backends {

class GgufCursor {
 public:
  // Reads from the start of `file`, which must outlive the cursor, at most
  // `limit` bytes.
  GgufCursor(FileBytes& file, uint64_t limit) : file_(file), limit_(limit) {}

  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

  // Bytes from the start of the file to the next read.
  uint64_t offset() const { return offset_; }

  // Bytes of the file behind offset().
  uint64_t bytes_left() const { return file_.size() - offset_; }

  // `field` names the thing in an error: "key 'llama.block_count'".
  uint32_t ReadU32(absl::string_view field) { return Read<uint32_t>(field); }
  uint64_t ReadU64(absl::string_view field) { return Read<uint64_t>(field); }

  // A 64-bit length and as many bytes. The view lives as long as the file.
  absl::string_view ReadString(absl::string_view field);

  // Steps over `bytes`; returns where they start.
  uint64_t Skip(uint64_t bytes, absl::string_view field);

  // Fails with InvalidFile(offset, field, problem), unless it has already.
  void Fail(uint64_t offset, absl::string_view field,
            absl::string_view problem);

 private:
  template <typename T>
  T Read(absl::string_view field) {
    T value = 0;
    if (Need(sizeof(T), field)) {
      std::memcpy(&value, data_ + offset_, sizeof(T));
      offset_ += sizeof(T);
    }
    return value;
  }

  // Makes sure that `bytes` more bytes are in memory.
  bool Need(uint64_t bytes, absl::string_view field);

  FileBytes& file_;
  const uint64_t limit_;
  const uint8_t* data_ = nullptr;  // [loaded_]
  uint64_t loaded_ = 0;
  uint64_t offset_ = 0;  // <= loaded_
  absl::Status status_;
};

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_GGUF_CURSOR_H_
