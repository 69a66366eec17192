// The keys of a GGUF file, by name, with their types and ranges checked.
//
//   GgufMetadata metadata(header);
//   config.num_layers = metadata.Int("llama.block_count", 1, 512);
//   config.rope_base = metadata.FloatOr("llama.rope.freq_base", 1e4, 1, 1e12);
//   metadata.RefuseUnread("llama.");
//   if (!metadata.ok()) return metadata.status();
//
// The first failure sticks, and getters return their default or 0 after it.
// A key remembers that it was asked for, so that what nobody has understood
// can be refused instead of ignored.
#ifndef MILLRACE_BACKENDS_MODEL_FILE_GGUF_METADATA_H_
#define MILLRACE_BACKENDS_MODEL_FILE_GGUF_METADATA_H_

#include <cstdint>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "backends/model_file/gguf_header.h"

namespace millrace::backends {

// Not thread-safe. Valid as long as the file of the header.
class GgufMetadata {
 public:
  explicit GgufMetadata(const GgufHeader& header);

  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

  bool Has(absl::string_view name) const { return keys_.contains(name); }

  // A number of any integer type, from min to max, both included.
  int64_t Int(absl::string_view name, int64_t min, int64_t max);
  int64_t IntOr(absl::string_view name, int64_t otherwise, int64_t min,
                int64_t max);

  // A finite number of a floating-point type, from min to max.
  double Float(absl::string_view name, double min, double max);
  double FloatOr(absl::string_view name, double otherwise, double min,
                 double max);

  bool BoolOr(absl::string_view name, bool otherwise);

  // At most `longest` bytes of valid UTF-8.
  std::string String(absl::string_view name, uint64_t longest);
  std::string StringOr(absl::string_view name, absl::string_view otherwise,
                       uint64_t longest);

  // Elements of an array, from min to max.
  int64_t ArrayCount(absl::string_view name, int64_t min, int64_t max);

  // Calls `visit(i, element)` for the strings of an array, in order, until
  // there is a failure.
  void ForEachString(absl::string_view name,
                     absl::FunctionRef<void(int64_t, absl::string_view)> visit);

  // The same for an array of integers.
  void ForEachInt(absl::string_view name,
                  absl::FunctionRef<void(int64_t, int64_t)> visit);

  // Marks keys as understood: those of this name, and those that start with it
  // if it ends in '.'.
  void Ignore(absl::string_view name);

  // Fails at the first key that starts with `prefix` and that nobody read.
  void RefuseUnread(absl::string_view prefix);

  // Fails with the place and name of a key, unless there was a failure.
  void Fail(absl::string_view name, absl::string_view problem);

 private:
  // The key if it is there and no array; `required` makes its absence fail.
  const GgufKey* Scalar(absl::string_view name, bool required);
  const GgufKey* Array(absl::string_view name);
  int64_t ToInt(const GgufKey& key, int64_t min, int64_t max);
  double ToFloat(const GgufKey& key, double min, double max);

  const GgufHeader& header_;
  absl::flat_hash_map<absl::string_view, const GgufKey*> keys_;
  absl::flat_hash_set<absl::string_view> read_;
  absl::Status status_;
};

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_GGUF_METADATA_H_
