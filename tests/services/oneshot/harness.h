// An engine with the fake model, and what requests share.
#ifndef MILLRACE_TESTS_SERVICES_ONESHOT_HARNESS_H_
#define MILLRACE_TESTS_SERVICES_ONESHOT_HARNESS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "cache/policies/registry.h"
#include "services/engine/engine.h"
#include "services/oneshot/generation.h"
#include "tests/testing/fake_model.h"
#include "tests/testing/fake_tokenizer.h"

namespace millrace::oneshot {

class Harness {
 public:
  explicit Harness(int num_blocks = 200,
                   AdmissionQueue::Options queue_options = {},
                   const testing::FakeModelHooks* hooks = nullptr)
      : engine(std::make_unique<testing::FakeModel>(
                   testing::FakeModelOptions{.picks_tokens = true}, hooks),
               std::make_unique<testing::FakeKvStorage>(num_blocks), {}),
        queue(&engine, queue_options, [this] { return now; }) {
    deps.engine = &engine;
    deps.queue = &queue;
    deps.active = &active;
    deps.tokenizer = &tokenizer;
    engine.Start();
  }
  ~Harness() { engine.Stop(); }

  // Runs on the engine thread, and waits for it.
  void Do(const std::function<void()>& task) {
    absl::Notification done;
    engine.Post([&] {
      task();
      done.Notify();
    });
    done.WaitForNotification();
  }

  // Once the engine has published what earlier tasks did: at the latest when
  // the second of two tasks runs.
  cache::CacheManager::Stats CacheAtRest() {
    Do([] {});
    Do([] {});
    return engine.stats().cache;
  }

  static cache::MadePolicy Policy(const std::string& text) {
    return *cache::MakePolicy(*cache::ParsePolicy(text),
                              {.trained_context = 8192,
                               .pinned_tokens = 0,
                               .max_resident_tokens = 8192,
                               .extra_tokens = 64});
  }

  engine::Engine engine;
  absl::Time now = absl::UnixEpoch();  // of the queue
  AdmissionQueue queue;
  ActiveRequests active;
  testing::FakeTokenizer tokenizer{Pieces(), {"<end>"}};
  Dependencies deps;

 private:
  // As many tokens as the fake model has.
  static std::vector<std::string> Pieces() {
    std::vector<std::string> pieces;
    for (int i = 0; i < 96; ++i) {
      pieces.push_back(
          std::string(1 + i / 64, static_cast<char>('0' + i % 64)));
    }
    return pieces;
  }
};

// What came of admission, for the test thread to wait for.
class Outcome {
 public:
  Generation::Admitted callback() {
    return [this](absl::Status status) {
      status_ = status;
      done_.Notify();
    };
  }
  const absl::Status& Wait() {
    done_.WaitForNotification();
    return status_;
  }

 private:
  absl::Notification done_;
  absl::Status status_;
};

}  // namespace millrace::oneshot

#endif  // MILLRACE_TESTS_SERVICES_ONESHOT_HARNESS_H_
