// Sequences under several policies that take random parts in random steps.
#ifndef MILLRACE_TESTS_EXACTNESS_CROWD_H_
#define MILLRACE_TESTS_EXACTNESS_CROWD_H_

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "cache/cache_policy.h"
#include "tests/testing/model_runner.h"

namespace millrace::testing {

class Crowd {
 public:
  using Policies = std::vector<std::shared_ptr<const cache::CachePolicy>>;

  // Eight sequences, each with a text of its own; `runner` is borrowed.
  Crowd(ModelRunner* runner, const Policies& policies);

  // Closes member `leaver` after a few steps; -1: nobody.
  void ReadTogether(int leaver);

  // Bit by bit.
  void ExpectEachAsAlone();

 private:
  struct Member {
    std::shared_ptr<const cache::CachePolicy> policy;
    std::vector<int32_t> text;
    cache::SequenceId id = 0;
    Rows rows = {};
    bool left = false;
  };

  bool Step(std::mt19937& random);

  ModelRunner* const runner_;
  std::vector<Member> members_;
};

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_EXACTNESS_CROWD_H_
