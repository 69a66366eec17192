// The engine with a real transformer, tiny and random, on the reference
// backend: what the fake model cannot show, such as rows that share one
// product.

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "services/engine/engine.h"
#include "tests/services/engine/engine_harness.h"
#include "tests/services/engine/tiny_model_harness.h"
#include "tests/testing/gguf_writer.h"

namespace millrace::engine {
namespace {

class TinyModelTest : public ::testing::Test {
 protected:
  static std::unique_ptr<EngineHarness> NewHarness(
      const EngineOptions& options) {
    return NewTinyModelHarness({.matrices = testing::WeightType::kQ4_1},
                               cache::KvDtype::kF16, options);
  }

  static std::shared_ptr<const cache::CachePolicy> Policy(size_t i) {
    return i % 2 == 0 ? Full(200) : Sinks(2, 20);
  }

  static std::vector<int32_t> Prompt(size_t i) {
    return Text(i, 3 + 3 * static_cast<int64_t>(i));
  }

  static void Begin(EngineHarness& harness, Writer& writer, size_t i) {
    writer.Open(&harness.engine, Policy(i), /*rollback_tokens=*/8);
    writer.Read(Prompt(i));
    writer.Write(24);
  }
};

TEST_F(TinyModelTest, ThirtyTwoTogetherWriteWhatEachWritesAlone) {
  const auto together =
      NewHarness({.max_decode_rows = 32, .prefill_chunk_tokens = 48});
  const auto alone =
      NewHarness({.max_decode_rows = 1, .prefill_chunk_tokens = 7});
  std::vector<Writer> writers(32);
  together->Do([&] {
    for (size_t i = 0; i < 32; ++i) Begin(*together, writers[i], i);
  });
  for (Writer& writer : writers) writer.WaitUntilDone();
  std::vector<std::vector<int32_t>> different;
  for (size_t i = 0; i < 32; ++i) {
    Writer writer;
    alone->Do([&] { Begin(*alone, writer, i); });
    writer.WaitUntilDone();
    alone->Do([&] { writer.Leave(); });
    EXPECT_EQ(writers[i].written, writer.written) << i;
    different.push_back(writer.written);
  }
  together->engine.Stop();
  int most = 0;
  for (const StepTrace& trace : together->traces) {
    most = std::max(most, trace.decode_rows);
  }
  EXPECT_GE(most, 16);
  // A model that says the same to everybody would prove nothing.
  std::sort(different.begin(), different.end());
  different.erase(std::unique(different.begin(), different.end()),
                  different.end());
  EXPECT_GT(different.size(), 16u);
}

TEST_F(TinyModelTest, GoesOnAfterACutAsIfTheRestHadNeverBeen) {
  const auto harness =
      NewHarness({.max_decode_rows = 8, .prefill_chunk_tokens = 32});
  for (const size_t i : {10, 11}) {
    Writer writer;
    harness->Do([&] { Begin(*harness, writer, i); });
    writer.WaitUntilDone();
    const std::vector<int32_t> whole = writer.written;
    harness->Do([&] {
      writer.written.clear();
      Sequence& sequence = *writer.sequence;
      ASSERT_TRUE(sequence.Truncate(sequence.length() - 6).ok());
      writer.Write(6);
    });
    writer.WaitUntilDone();
    EXPECT_EQ(writer.written,
              std::vector<int32_t>(whole.end() - 6, whole.end()));
    harness->Do([&] { writer.Leave(); });
  }
}

}  // namespace
}  // namespace millrace::engine
