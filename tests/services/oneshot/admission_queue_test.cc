#include "services/oneshot/admission_queue.h"

#include <gtest/gtest.h>

#include "services/errors/errors.h"
#include "tests/services/oneshot/harness.h"

namespace millrace::oneshot {
namespace {

// Nobody's client: the sequences of these tests never run.
class NoClient : public engine::SequenceClient {
 public:
  void OnRows(int64_t, int64_t, absl::Span<const float>) override {}
  void OnError(const absl::Status&) override {}
};

// 100 tokens and one chunk: about 12 blocks of 16.
class Queue : public ::testing::Test {
 protected:
  Queue()
      : harness_(/*num_blocks=*/12,
                 {.max_waiting = 2, .timeout = absl::Seconds(30)}) {}

  // What becomes of a request for so many tokens.
  struct Ticket {
    uint64_t number = 0;
    std::unique_ptr<engine::Sequence> sequence;
    std::string answer = "waiting";
  };
  void Ask(int tokens, Ticket& ticket) {
    const auto policy =
        Harness::Policy("full:max_tokens=" + std::to_string(tokens));
    ticket.number = harness_.queue.Submit(
        {.policy = policy.policy}, &client_, [&ticket](auto sequence) {
          ticket.answer =
              sequence.ok() ? "admitted" : errors::ReasonOf(sequence.status());
          if (sequence.ok()) ticket.sequence = *std::move(sequence);
        });
  }

  NoClient client_;
  Harness harness_;
};

TEST_F(Queue, AdmitsAtOnceWhileMemoryIsFree) {
  Ticket a, b;
  harness_.Do([&] {
    Ask(80, a);
    Ask(80, b);
    EXPECT_EQ(a.answer, "admitted");
    EXPECT_EQ(b.answer, "admitted");
    a.sequence.reset();
    b.sequence.reset();
  });
}

TEST_F(Queue, WaitsInOrderUntilMemoryComesFree) {
  Ticket a, b, c;
  harness_.Do([&] {
    Ask(150, a);
    Ask(150, b);
    Ask(10, c);  // would fit, but does not overtake
    EXPECT_EQ(b.answer, "waiting");
    EXPECT_EQ(c.answer, "waiting");
    EXPECT_EQ(harness_.queue.waiting(), 2);
    a.sequence.reset();
    harness_.queue.Tick();
    EXPECT_EQ(b.answer, "admitted");
    EXPECT_EQ(harness_.queue.waiting(), c.answer == "waiting" ? 1 : 0);
    b.sequence.reset();
    harness_.queue.Tick();
    EXPECT_EQ(c.answer, "admitted");
    c.sequence.reset();
  });
}

TEST_F(Queue, RefusesWhenTooManyWait) {
  Ticket a, b, c, d;
  harness_.Do([&] {
    Ask(150, a);
    Ask(150, b);
    Ask(150, c);
    Ask(150, d);
    EXPECT_EQ(d.answer, "QUEUE_FULL");
    EXPECT_EQ(harness_.queue.waiting(), 2);
    a.sequence.reset();
    harness_.queue.StartDrain();
  });
}

TEST_F(Queue, RefusesAtOnceWhatCanNeverFit) {
  Ticket a;
  harness_.Do([&] { Ask(1000, a); });
  EXPECT_EQ(a.answer, "KV_BUDGET");
}

TEST_F(Queue, RefusesWhoHasWaitedTooLong) {
  Ticket a, b;
  harness_.Do([&] {
    Ask(150, a);
    Ask(150, b);
    harness_.now += absl::Seconds(29);
    harness_.queue.Tick();
    EXPECT_EQ(b.answer, "waiting");
    harness_.now += absl::Seconds(1);
    harness_.queue.Tick();
    EXPECT_EQ(b.answer, "KV_BUDGET");
    EXPECT_EQ(harness_.queue.waiting(), 0);
    a.sequence.reset();
  });
}

TEST_F(Queue, ForgetsWhoCancels) {
  Ticket a, b;
  harness_.Do([&] {
    Ask(150, a);
    Ask(150, b);
    harness_.queue.Cancel(b.number);
    harness_.queue.Cancel(b.number);
    a.sequence.reset();
    harness_.queue.Tick();
    EXPECT_EQ(b.answer, "waiting");  // never called back
    EXPECT_EQ(harness_.queue.waiting(), 0);
  });
}

TEST_F(Queue, DrainRefusesWhoWaitsAndWhoComes) {
  Ticket a, b, c;
  harness_.Do([&] {
    Ask(150, a);
    Ask(150, b);
    harness_.queue.StartDrain();
    EXPECT_EQ(b.answer, "DRAINING");
    Ask(10, c);
    EXPECT_EQ(c.answer, "DRAINING");
    EXPECT_EQ(a.answer, "admitted");
    a.sequence.reset();
  });
}

}  // namespace
}  // namespace millrace::oneshot
