// AnswerMemory keeps the last answers of a session, so that a message that is
// sent twice gets its original answer again. Not thread-safe.
#ifndef MILLRACE_SERVICES_SESSION_ANSWER_MEMORY_H_
#define MILLRACE_SERVICES_SESSION_ANSWER_MEMORY_H_

#include <cstdint>
#include <map>
#include <utility>

#include "services/session/event.h"

namespace millrace::session {

class AnswerMemory {
 public:
  // As many answers, and of as many of the last messages, are remembered.
  static constexpr uint64_t kMessages = 512;

  // The message was taken, whatever becomes of it.
  void OnMessage(uint64_t client_seq) {
    last_ = client_seq;
    while (!answers_.empty() && !Reaches(answers_.begin()->first)) {
      answers_.erase(answers_.begin());
    }
  }
  // A later answer to the same message replaces the first.
  void Remember(uint64_t client_seq, EventBody answer) {
    if (Reaches(client_seq)) {
      answers_.insert_or_assign(client_seq, std::move(answer));
    }
  }

  // Null if it is not kept, or if the message was answered by what it did.
  const EventBody* Find(uint64_t client_seq) const {
    const auto found = answers_.find(client_seq);
    return found == answers_.end() ? nullptr : &found->second;
  }
  // Whether an answer to the message would still be kept.
  bool Reaches(uint64_t client_seq) const {
    return client_seq + kMessages > last_;
  }
  uint64_t last() const { return last_; }

 private:
  uint64_t last_ = 1;  // `open` is the first message
  std::map<uint64_t, EventBody> answers_;
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_ANSWER_MEMORY_H_
