#include "backends/decoder/decoder.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/testing/fake_model.h"

namespace millrace::backends {
namespace {

using ::testing::ElementsAre;

// Writes down what it is asked to do.
class RecordingOps final : public Ops {
 public:
  explicit RecordingOps(std::vector<std::string>* calls) : calls_(calls) {
    config_.num_layers = 2;
  }

  const ModelConfig& config() const override { return config_; }
  int max_rows() const override { return 17; }
  absl::Status Begin(const Batch&, cache::KvStorage&) override {
    Note("begin");
    return begins;
  }
  void Embed() override { Note("embed"); }
  void AttentionInput(int layer) override { Note("input", layer); }
  void Attention(int layer) override { Note("attention", layer); }
  void AttentionOutput(int layer) override { Note("output", layer); }
  void FeedForwardIn(int layer) override { Note("in", layer); }
  void FeedForwardOut(int layer) override { Note("out", layer); }
  absl::Status Logits(absl::Span<float>) override {
    Note("logits");
    return finishes;
  }
  void Read(Activation, absl::Span<float>) const override {}
  void Write(Activation, absl::Span<const float>) override {}

  absl::Status begins, finishes;

 private:
  void Note(absl::string_view what) { calls_->emplace_back(what); }
  void Note(absl::string_view what, int layer) {
    calls_->push_back(absl::StrCat(what, " ", layer));
  }

  ModelConfig config_;
  std::vector<std::string>* const calls_;
};

class DecoderTest : public ::testing::Test {
 protected:
  absl::Status Forward(std::unique_ptr<RecordingOps> ops) {
    testing::FakeKvStorage storage(1);
    return NewDecoder(std::move(ops))->Forward({}, storage, {});
  }

  std::vector<std::string> calls_;
};

TEST_F(DecoderTest, RunsLayerAfterLayer) {
  EXPECT_TRUE(Forward(std::make_unique<RecordingOps>(&calls_)).ok());
  EXPECT_THAT(calls_,
              ElementsAre("begin", "embed", "input 0", "attention 0",
                          "output 0", "in 0", "out 0", "input 1", "attention 1",
                          "output 1", "in 1", "out 1", "logits"));
}

TEST_F(DecoderTest, DoesNothingWhenAStepCannotBegin) {
  auto ops = std::make_unique<RecordingOps>(&calls_);
  ops->begins = absl::InvalidArgumentError("foreign storage");
  EXPECT_EQ(Forward(std::move(ops)).message(), "foreign storage");
  EXPECT_THAT(calls_, ElementsAre("begin"));
}

TEST_F(DecoderTest, TellsOfADeviceThatFailed) {
  auto ops = std::make_unique<RecordingOps>(&calls_);
  ops->finishes = absl::InternalError("the device is gone");
  EXPECT_EQ(Forward(std::move(ops)).message(), "the device is gone");
}

TEST_F(DecoderTest, AddsUpWhatEachPhaseTakes) {
  testing::FakeKvStorage storage(1);
  const auto model = NewDecoder(std::make_unique<RecordingOps>(&calls_));
  for (const absl::Duration time : model->phase_times()) {
    EXPECT_EQ(time, absl::ZeroDuration());
  }
  ASSERT_TRUE(model->Forward({}, storage, {}).ok());
  const PhaseTimes once = model->phase_times();
  ASSERT_TRUE(model->Forward({}, storage, {}).ok());
  for (int i = 0; i < kNumPhases; ++i) {
    EXPECT_GT(once[i], absl::ZeroDuration()) << PhaseName(i);
    EXPECT_GT(model->phase_times()[i], once[i]) << PhaseName(i);
  }
}

TEST_F(DecoderTest, IsOfTheShapeOfItsOperations) {
  const auto model = NewDecoder(std::make_unique<RecordingOps>(&calls_));
  EXPECT_EQ(model->config().num_layers, 2);
  EXPECT_EQ(model->max_rows(), 17);
}

}  // namespace
}  // namespace millrace::backends
