// Reads a file once, front to back, into memory of its own.
//
//   auto file = FileBytes::Open(path);
//   auto header = file->Load(4096);       // bytes [0, 4096), as far as wanted
//   ... refuse the file here, and nothing more is read ...
//   auto all = file->LoadAll();           // the rest
//   file->sha256();
//
// Bytes are copied, not mapped: a file that shrinks is an error here and can
// never be a SIGBUS later. A change while it is read is noticed by size and
// times of the file, or as too few bytes. The hash is computed in the same
// pass, while a piece is still in the processor's cache.
#ifndef MILLRACE_BACKENDS_MODEL_FILE_FILE_BYTES_H_
#define MILLRACE_BACKENDS_MODEL_FILE_FILE_BYTES_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace millrace::backends {

// Not thread-safe while loading; immutable afterwards. Spans and views into
// the bytes stay valid while the object lives: nothing ever moves.
class FileBytes {
 public:
  // Opens a regular file; symbolic links are followed. Never blocks, on a FIFO
  // for instance. Errors: NOT_FOUND, PERMISSION_DENIED; INVALID_ARGUMENT if it
  // is empty or not a regular file; RESOURCE_EXHAUSTED if it is larger than
  // the machine's memory.
  static absl::StatusOr<std::unique_ptr<FileBytes>> Open(
      const std::string& path);

  virtual ~FileBytes() = default;

  // Bytes of the file when it was opened.
  virtual uint64_t size() const = 0;

  // Reads on until the first `end` bytes are in memory and returns all that
  // are: `end` or more, page-aligned. Memory is taken for what has been read,
  // in pieces of 256 KiB. ABORTED if the file changed meanwhile; other codes
  // if the system cannot read it.
  // REQUIRES: end <= size().
  virtual absl::StatusOr<absl::Span<const uint8_t>> Load(uint64_t end) = 0;

  // Reads the whole file and makes sure that it is the one that was opened:
  // ABORTED if size or times have changed since.
  virtual absl::StatusOr<absl::Span<const uint8_t>> LoadAll() = 0;

  // SHA-256 of the file, 64 lower-case hex digits; empty before LoadAll().
  virtual const std::string& sha256() const = 0;
};

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_FILE_BYTES_H_
