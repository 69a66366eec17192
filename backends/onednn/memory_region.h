// Memory straight from the operating system: address space at once, pages when
// they are first written, large pages where the system has them.
#ifndef MILLRACE_BACKENDS_ONEDNN_MEMORY_REGION_H_
#define MILLRACE_BACKENDS_ONEDNN_MEMORY_REGION_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace millrace::backends::onednn {

// Zero-filled and aligned to 2 MiB.
class MemoryRegion {
 public:
  // RESOURCE_EXHAUSTED, naming `purpose` and the bytes, if the address space
  // cannot be had.
  static absl::StatusOr<MemoryRegion> Map(size_t bytes,
                                          absl::string_view purpose);

  MemoryRegion() = default;
  MemoryRegion(MemoryRegion&& other) noexcept { *this = std::move(other); }
  MemoryRegion& operator=(MemoryRegion&& other) noexcept;
  ~MemoryRegion();

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  void* mapped_ = nullptr;
  size_t mapped_bytes_ = 0;
};

}  // namespace millrace::backends::onednn

#endif  // MILLRACE_BACKENDS_ONEDNN_MEMORY_REGION_H_
