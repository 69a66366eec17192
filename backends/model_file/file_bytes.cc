#include "backends/model_file/file_bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "backends/model_file/sha256.h"

namespace millrace::backends {
namespace {

// Small enough for the hash to find it in the second-level cache.
constexpr uint64_t kPieceBytes = 256 << 10;

// Above this, memory comes in 2 MiB pages: fewer faults than bytes would need.
constexpr uint64_t kHugePagesFrom = 64 << 20;

bool SameTime(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

bool SameFile(const struct stat& a, const struct stat& b) {
  return a.st_size == b.st_size && SameTime(a.st_mtim, b.st_mtim) &&
         SameTime(a.st_ctim, b.st_ctim);
}

absl::Status Changed(absl::string_view how) {
  return absl::AbortedError(absl::StrCat(
      "the file changed while it was read: ", how,
      "; put model files in place by renaming, not by writing over them"));
}

class LoadedFile final : public FileBytes {
 public:
  LoadedFile(int fd, const struct stat& opened, uint8_t* memory)
      : fd_(fd), opened_(opened), memory_(memory) {}

  ~LoadedFile() override {
    munmap(memory_, size());
    close(fd_);
  }

  uint64_t size() const override { return opened_.st_size; }

  absl::StatusOr<absl::Span<const uint8_t>> Load(uint64_t end) override {
    while (loaded_ < end) {
      absl::Status status = ReadPiece();
      if (!status.ok()) return status;
    }
    return absl::MakeConstSpan(memory_, loaded_);
  }

  absl::StatusOr<absl::Span<const uint8_t>> LoadAll() override {
    absl::StatusOr<absl::Span<const uint8_t>> bytes = Load(size());
    if (!bytes.ok()) return bytes;
    struct stat now;
    if (fstat(fd_, &now) != 0) return absl::ErrnoToStatus(errno, "fstat");
    if (!SameFile(opened_, now)) {
      return Changed(absl::StrCat(
          "it had ", opened_.st_size, " bytes when it was opened and has ",
          now.st_size, " now, or its times are others"));
    }
    if (sha256_.empty()) sha256_ = hash_.Finish();
    return bytes;
  }

  const std::string& sha256() const override { return sha256_; }

 private:
  absl::Status ReadPiece() {
    uint8_t* const piece = memory_ + loaded_;
    const uint64_t wanted = std::min(kPieceBytes, size() - loaded_);
    const ssize_t got = pread(fd_, piece, wanted, loaded_);
    if (got < 0 && errno == EINTR) return absl::OkStatus();
    if (got < 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("read at byte ", loaded_));
    }
    if (got == 0) {
      return Changed(absl::StrCat("it ends at byte ", loaded_, " of ", size()));
    }
    hash_.Update(absl::MakeConstSpan(piece, got));
    loaded_ += got;
    return absl::OkStatus();
  }

  const int fd_;
  const struct stat opened_;
  uint8_t* const memory_;  // [size()], of which loaded_ are read
  uint64_t loaded_ = 0;
  Sha256 hash_;
  std::string sha256_;
};

absl::string_view KindOf(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  if (S_ISSOCK(mode)) return "a socket";
  return "of an unknown kind";
}

absl::Status CheckKind(const struct stat& file) {
  if (!S_ISREG(file.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "it is ", KindOf(file.st_mode), "; a regular file is needed"));
  }
  if (file.st_size == 0) return absl::InvalidArgumentError("it is empty");
  return absl::OkStatus();
}

absl::Status OpenError(int error) {
  absl::Status status = absl::ErrnoToStatus(error, "open");
  switch (error) {
    case ENOENT:
    case EACCES:
    case EPERM:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return status;  // NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED
    default:
      return absl::InvalidArgumentError(status.message());
  }
}

uint64_t PhysicalMemory() {
  return uint64_t{1} * sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
}

// Address space for the file; memory is taken as it is written to.
absl::StatusOr<uint8_t*> ReserveMemory(uint64_t bytes) {
  if (bytes > PhysicalMemory()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("it has ", bytes, " bytes, and this machine's memory ",
                     PhysicalMemory()));
  }
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "it has ", bytes, " bytes, more than this process can hold"));
  }
  if (bytes >= kHugePagesFrom) madvise(memory, bytes, MADV_HUGEPAGE);
  return static_cast<uint8_t*>(memory);
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileBytes>> FileBytes::Open(
    const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return OpenError(errno);
  struct stat opened;
  absl::Status status = fstat(fd, &opened) == 0
                            ? CheckKind(opened)
                            : absl::ErrnoToStatus(errno, "fstat");
  absl::StatusOr<uint8_t*> memory = nullptr;
  if (status.ok()) {
    memory = ReserveMemory(opened.st_size);
    status = memory.status();
  }
  if (!status.ok()) {
    close(fd);
    return status;
  }
  return std::make_unique<LoadedFile>(fd, opened, *memory);
}

}  // namespace millrace::backends
