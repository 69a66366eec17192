#include "backends/onednn/memory_region.h"

#include <sys/mman.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace::backends::onednn {
namespace {

constexpr size_t kLargePage = size_t{2} << 20;

}  // namespace

absl::StatusOr<MemoryRegion> MemoryRegion::Map(size_t bytes,
                                               absl::string_view purpose) {
  MemoryRegion region;
  const size_t mapped_bytes = bytes + kLargePage;
  if (mapped_bytes > bytes) {
    region.mapped_ = mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  if (mapped_bytes <= bytes || region.mapped_ == MAP_FAILED) {
    region.mapped_ = nullptr;
    return absl::ResourceExhaustedError(
        absl::StrCat("allocate ", purpose, ": ", bytes,
                     " bytes do not fit the address space; ask for fewer"));
  }
  region.mapped_bytes_ = mapped_bytes;
  const auto address = reinterpret_cast<uintptr_t>(region.mapped_);
  region.data_ = reinterpret_cast<uint8_t*>((address + kLargePage - 1) /
                                            kLargePage * kLargePage);
  region.size_ = bytes;
  // Advice only: without large pages everything works, a little slower.
  madvise(region.data_, bytes, MADV_HUGEPAGE);
  return region;
}

MemoryRegion& MemoryRegion::operator=(MemoryRegion&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  return *this;
}

MemoryRegion::~MemoryRegion() {
  if (mapped_ != nullptr) munmap(mapped_, mapped_bytes_);
}

}  // namespace millrace::backends::onednn
