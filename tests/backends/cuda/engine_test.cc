// The engine over a tiny model on the emulated device: tokens that never pass
// through the host, and a device that fails.

#include "services/engine/engine.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/cuda/backend.h"
#include "gtest/gtest.h"
#include "tests/services/engine/engine_harness.h"
#include "tests/services/engine/tiny_model_harness.h"
#include "tests/testing/cuda_emulator/emulated_device.h"
#include "tests/testing/named_policy.h"

namespace millrace::engine {
namespace {

class CudaEngineTest : public ::testing::Test {
 protected:
  void Start(const EngineOptions& options) {
    device_ = backends::cuda::NewEmulatedDevice();
    const auto backend =
        *backends::NewBackendOnDevice({.deterministic = true}, device_);
    harness_ = NewTinyModelHarness({.matrices = testing::WeightType::kQ4_1},
                                   cache::KvDtype::kF16, options, *backend);
  }

  void Begin(Writer& writer, int i, int64_t count) {
    writer.Open(&harness_->engine,
                testing::NamedPolicy(policies_[i % policies_.size()]));
    writer.Read(Text(i, 3 + 3 * i));
    writer.Write(count);
  }

  // What the first `count` write, all at once.
  std::vector<std::vector<int32_t>> Together(int count) {
    std::vector<Writer> writers(count);
    harness_->Do([&] {
      for (int i = 0; i < count; ++i) Begin(writers[i], i, 24);
    });
    std::vector<std::vector<int32_t>> written;
    for (Writer& writer : writers) {
      writer.WaitUntilDone();
      written.push_back(writer.written);
    }
    harness_->engine.Stop();
    return written;
  }

  std::vector<std::string> policies_ = {"full:max_tokens=200",
                                        "sinks:sink_tokens=2,window_tokens=20"};
  std::shared_ptr<backends::cuda::EmulatedDevice> device_;
  std::unique_ptr<EngineHarness> harness_;
};

TEST_F(CudaEngineTest, SessionsTogetherWriteWhatEachWritesAlone) {
  constexpr int kSessions = 12;
  Start({.max_decode_rows = 8, .prefill_chunk_tokens = 48});
  const auto together = Together(kSessions);
  Start({.max_decode_rows = 1, .prefill_chunk_tokens = 7});
  EXPECT_EQ(Together(kSessions), together);
  EXPECT_NE(together[0], together[1]);
  EXPECT_GT(device_->stats().launches_behind, device_->stats().launches / 2);
}

// These need the host between two steps; the others wait for them.
TEST_F(CudaEngineTest, PoliciesThatReadAttentionOrRecomputeShareTheSteps) {
  policies_ = {"sinks:sink_tokens=2,window_tokens=20", "tova:budget_tokens=24",
               "reprefill:window_tokens=20,rebuild_every=8"};
  Start({.max_decode_rows = 2, .prefill_chunk_tokens = 48});  // in turns
  const auto together = Together(6);
  Start({.max_decode_rows = 1, .prefill_chunk_tokens = 48});
  EXPECT_EQ(Together(6), together);
}

TEST_F(CudaEngineTest, AFailingDeviceEndsEverySessionOnceAndHangsNowhere) {
  Start({.max_decode_rows = 4, .prefill_chunk_tokens = 16});
  Writer writers[6], late;
  writers[0].after_token = [&](Writer& writer) {
    if (writer.written.size() == 5) device_->Break();
  };
  harness_->Do([&] {
    for (int i = 0; i < 6; ++i) Begin(writers[i], i, 1'000'000);
  });
  for (Writer& writer : writers) writer.WaitUntilDone();
  harness_->Do([&] {
    for (const Writer& writer : writers) {
      ASSERT_EQ(writer.errors.size(), 1u);
      EXPECT_EQ(writer.errors[0].code(), absl::StatusCode::kInternal);
      EXPECT_EQ(writer.sequence->pending_tokens(), 0);
    }
    EXPECT_EQ(harness_->engine.stats().last_step.code(),
              absl::StatusCode::kInternal);  // what health looks at
    Begin(late, 1, 10);
  });
  late.WaitUntilDone();
  harness_->engine.Stop();
  EXPECT_EQ(late.errors.size(), 1u);
}

}  // namespace
}  // namespace millrace::engine
