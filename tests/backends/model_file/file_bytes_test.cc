// What is no ordinary file, and what changes while it is read.
#include "backends/model_file/file_bytes.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>

#include "backends/model_file/registry.h"
#include "backends/model_file/sha256.h"
#include "gmock/gmock.h"
#include "tests/backends/model_file/model_file_matchers.h"
#include "tests/testing/gguf_writer.h"

namespace millrace::backends {
namespace {

using ::testing::HasSubstr;
using testing::WriteTestFile;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::Status Refusal(const std::string& path) {
  return OpenModelFile(path, {}).status();
}

// A path in the test's own folder where nothing is.
std::string NewPath() {
  const std::string path = WriteTestFile("");
  unlink(path.c_str());
  return path;
}

std::string LinkTo(const std::string& target) {
  const std::string path = NewPath();
  EXPECT_EQ(symlink(target.c_str(), path.c_str()), 0);
  return path;
}

std::string Fifo() {
  const std::string path = NewPath();
  EXPECT_EQ(mkfifo(path.c_str(), 0600), 0);
  return path;
}

TEST(FileKindTest, RefusesWhatIsNotThere) {
  const auto refused =
      IsRefused(absl::StatusCode::kNotFound, {"No such file or directory"});
  EXPECT_THAT(Refusal("/nonexistent/model.gguf"), refused);
  EXPECT_THAT(Refusal(""), refused);
  EXPECT_THAT(Refusal(LinkTo("/nonexistent/model.gguf")), refused);
}

TEST(FileKindTest, RefusesDirectories) {
  const auto refused =
      IsRefused(kInvalid, {"it is a directory; a regular file is needed"});
  EXPECT_THAT(Refusal("/"), refused);
  EXPECT_THAT(Refusal(LinkTo("/")), refused);
}

TEST(FileKindTest, RefusesAFifoWithoutWaitingForAWriter) {
  const auto refused = IsRefused(kInvalid, {"it is a FIFO"});
  const std::string fifo = Fifo();
  EXPECT_THAT(Refusal(fifo), refused);
  EXPECT_THAT(Refusal(LinkTo(fifo)), refused);
}

TEST(FileKindTest, RefusesDevices) {
  EXPECT_THAT(Refusal("/dev/zero"), IsRefused(kInvalid, {"it is a device"}));
  EXPECT_THAT(Refusal(LinkTo("/dev/null")),
              IsRefused(kInvalid, {"it is a device"}));
}

TEST(FileKindTest, RefusesSockets) {
  const std::string path = NewPath();
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  if (path.size() >= sizeof(address.sun_path)) {
    GTEST_SKIP() << "the folder of tests has too long a name for a socket";
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
            0);
  EXPECT_THAT(Refusal(path), IsRefused(kInvalid, {"open"}));
  close(fd);
}

TEST(FileKindTest, RefusesALinkToItself) {
  const std::string path = NewPath();
  ASSERT_EQ(symlink(path.c_str(), path.c_str()), 0);
  EXPECT_THAT(Refusal(path), IsRefused(kInvalid, {"symbolic links"}));
}

TEST(FileKindTest, RefusesEmptyFiles) {
  EXPECT_THAT(Refusal(WriteTestFile("")), IsRefused(kInvalid, {"it is empty"}));
}

TEST(FileKindTest, RefusesWhatMayNotBeRead) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const std::string path = WriteTestFile("GGUF");
  ASSERT_EQ(chmod(path.c_str(), 0), 0);
  EXPECT_THAT(Refusal(path),
              IsRefused(absl::StatusCode::kPermissionDenied, {"open"}));
}

TEST(FileKindTest, RefusesAFileLargerThanTheMemoryOfTheMachine) {
  const std::string path = WriteTestFile("GGUF");
  if (truncate(path.c_str(), int64_t{1} << 43) != 0) {  // 8 TiB, all a hole
    GTEST_SKIP() << "no such large file here: " << std::strerror(errno);
  }
  EXPECT_THAT(Refusal(path), IsRefused(absl::StatusCode::kResourceExhausted,
                                       {"it has 8796093022208 bytes"}));
}

TEST(FileKindTest, RefusesABrokenPin) {
  EXPECT_THAT(OpenModelFile("x", {.expected_sha256 = "12ab"}).status(),
              IsRefused(kInvalid, {"'12ab'; it must be 64 hex digits"}));
}

TEST(FileBytesTest, ReadsNoMoreThanAskedFor) {
  const std::string path = WriteTestFile(std::string(1 << 20, 'x'));
  const auto file = FileBytes::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->size(), 1 << 20);
  EXPECT_EQ((*file)->Load(0)->size(), 0);
  const auto bytes = (*file)->Load(10);
  EXPECT_GE(bytes->size(), 10);
  EXPECT_LE(bytes->size(), 256 << 10);
  EXPECT_EQ((*file)->LoadAll()->size(), 1 << 20);
  EXPECT_EQ(bytes->data(), (*file)->LoadAll()->data());
}

TEST(FileBytesTest, NoticesAFileThatShrinks) {
  const std::string path = WriteTestFile(std::string(1 << 20, 'x'));
  const auto file = FileBytes::Open(path);
  ASSERT_TRUE((*file)->Load(10).ok());
  ASSERT_EQ(truncate(path.c_str(), 300'000), 0);
  EXPECT_THAT((*file)->LoadAll().status(),
              StatusIs(absl::StatusCode::kAborted,
                       HasSubstr("it ends at byte 300000 of 1048576")));
}

TEST(FileBytesTest, NoticesAFileThatGrows) {
  const std::string path = WriteTestFile(std::string(1 << 20, 'x'));
  const auto file = FileBytes::Open(path);
  std::ofstream(path, std::ios::app) << "more";
  EXPECT_THAT((*file)->LoadAll().status(),
              StatusIs(absl::StatusCode::kAborted,
                       HasSubstr("had 1048576 bytes when it was opened and has "
                                 "1048580 now")));
}

TEST(FileBytesTest, NoticesAFileThatIsWrittenOver) {
  const std::string path = WriteTestFile(std::string(1 << 20, 'x'));
  // Far from now, so that the write below changes the time for certain.
  const timespec past[2] = {{.tv_sec = 1000, .tv_nsec = 0},
                            {.tv_sec = 1000, .tv_nsec = 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), past, 0), 0);
  const auto file = FileBytes::Open(path);
  ASSERT_TRUE((*file)->Load(1 << 20).ok());
  std::fstream(path, std::ios::in | std::ios::out) << "y";
  EXPECT_THAT((*file)->LoadAll().status(),
              StatusIs(absl::StatusCode::kAborted,
                       HasSubstr("changed while it was read")));
}

TEST(FileBytesTest, KeepsItsBytesWhenTheFileGoesAfterwards) {
  const std::string path = WriteTestFile(std::string(1 << 20, 'x'));
  const auto file = FileBytes::Open(path);
  const auto bytes = (*file)->LoadAll();
  ASSERT_EQ(truncate(path.c_str(), 0), 0);
  EXPECT_EQ((*bytes)[1'000'000], 'x');
}

TEST(Sha256Test, IsThatOfFips180) {
  Sha256 whole;
  whole.Update({reinterpret_cast<const uint8_t*>("abc"), 3});
  EXPECT_EQ(whole.Finish(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256().Finish(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(FileBytesTest, HashesTheWholeFileInPieces) {
  const std::string text(700'000, 'x');
  Sha256 whole;
  whole.Update({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  const auto file = FileBytes::Open(WriteTestFile(text));
  ASSERT_TRUE((*file)->Load(1).ok());
  EXPECT_EQ((*file)->sha256(), "");
  ASSERT_TRUE((*file)->LoadAll().ok());
  EXPECT_EQ((*file)->sha256(), whole.Finish());
}

}  // namespace
}  // namespace millrace::backends
