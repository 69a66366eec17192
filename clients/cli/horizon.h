// Horizon remembers the words around the border between what the model still
// sees and what it has forgotten.
//
//   horizon.Add(26, "Rivers flow");   // text that begins at position 26
//   horizon.Forget(30);               // positions below 30 are forgotten
//   horizon.Words()                   // "Rivers flow": the oldest seen piece
//
// Holds only pieces beyond the border. Not thread-safe.
#ifndef MILLRACE_CLIENTS_CLI_HORIZON_H_
#define MILLRACE_CLIENTS_CLI_HORIZON_H_

#include <cstdint>
#include <deque>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"

namespace millrace::cli {

class Horizon {
 public:
  void Add(uint64_t position, absl::string_view text);
  void Forget(uint64_t before);
  void Clear();

  // Whether the border has moved since the last call.
  bool TakeMoved() { return std::exchange(moved_, false); }

  // The first words that are still seen, about 32 bytes, on one line.
  std::string Words() const;

 private:
  std::deque<std::pair<uint64_t, std::string>> pieces_;
  bool moved_ = false;
};

}  // namespace millrace::cli

#endif  // MILLRACE_CLIENTS_CLI_HORIZON_H_
