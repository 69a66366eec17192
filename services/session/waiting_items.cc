#include "services/session/waiting_items.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/algorithm/container.h"

namespace millrace::session {
namespace {

uint64_t PositionOf(const WaitingItem& item) {
  return std::get<AtTextPosition>(item.input->placement).position;
}

}  // namespace

int64_t NumTokens(const PreparedInput& input) {
  int64_t tokens = 0;
  for (const InputPart& part : input.parts) {
    tokens += static_cast<int64_t>(part.ids.size());
  }
  return tokens;
}

bool HasMessage(const PreparedInput& input) {
  return absl::c_any_of(input.parts,
                        [](const InputPart& part) { return part.is_message; });
}

void WaitingItems::Push(WaitingItem item, bool writing) {
  if (!item.input) {
    Count(after_turn_, item, +1);
    after_turn_.push_back(std::move(item));
  } else if (std::holds_alternative<AtTextPosition>(item.input->placement)) {
    const auto later = std::upper_bound(
        positioned_.begin(), positioned_.end(), PositionOf(item),
        [](uint64_t position, const WaitingItem& other) {
          return position < PositionOf(other);
        });
    Count(positioned_, item, +1);
    positioned_.insert(later, std::move(item));
  } else if (writing &&
             std::holds_alternative<NextStep>(item.input->placement)) {
    Count(next_step_, item, +1);
    next_step_.push_back(std::move(item));
  } else {
    Count(after_turn_, item, +1);
    after_turn_.push_back(std::move(item));
  }
}

void WaitingItems::PushPiece(WaitingItem item, uint64_t seq_before,
                             bool before_is_placed) {
  if (before_is_placed) {
    Count(continuation_, item, +1);
    continuation_.push_back(std::move(item));
    return;
  }
  for (Queue* queue : {&next_step_, &after_turn_, &positioned_}) {
    const auto before = std::find_if(queue->rbegin(), queue->rend(),
                                     [&](const WaitingItem& other) {
                                       return other.client_seq == seq_before;
                                     });
    if (before == queue->rend()) continue;
    item.input->placement = before->input->placement;
    item.input->only_in_turn_started_by =
        before->input->only_in_turn_started_by;
    Count(*queue, item, +1);
    queue->insert(before.base(), std::move(item));
    return;
  }
  Push(std::move(item), /*writing=*/false);
}

WaitingItem WaitingItems::Pop(Queue* queue) {
  WaitingItem item = std::move(queue->front());
  queue->pop_front();
  Count(*queue, item, -1);
  if (queue != &continuation_ && item.input && item.input->more_follows) {
    while (!queue->empty() && queue->front().input &&
           queue->front().input->continues) {
      Count(*queue, queue->front(), -1);
      Count(continuation_, queue->front(), +1);
      continuation_.push_back(std::move(queue->front()));
      queue->pop_front();
    }
  }
  return item;
}

void WaitingItems::EndNextSteps() {
  Queue stay;
  for (auto item = next_step_.rbegin(); item != next_step_.rend(); ++item) {
    const auto& only = item->input->only_in_turn_started_by;
    const bool waits = only && HasTurnOf(*only);
    (waits ? stay : after_turn_).push_front(std::move(*item));
  }
  next_step_ = std::move(stay);
}

std::vector<WaitingItem> WaitingItems::TakeContinuation() {
  for (const WaitingItem& item : continuation_) Count(continuation_, item, -1);
  std::vector<WaitingItem> taken(std::make_move_iterator(continuation_.begin()),
                                 std::make_move_iterator(continuation_.end()));
  continuation_.clear();
  return taken;
}

void WaitingItems::EndText(uint64_t client_seq) {
  for (Queue* queue :
       {&continuation_, &next_step_, &after_turn_, &positioned_}) {
    for (WaitingItem& item : *queue) {
      if (item.client_seq == client_seq && item.input) {
        item.input->more_follows = false;
      }
    }
  }
}

std::vector<WaitingItem> WaitingItems::TakeAll() {
  std::vector<WaitingItem> taken;
  for (Queue* queue :
       {&continuation_, &next_step_, &after_turn_, &positioned_}) {
    for (WaitingItem& item : *queue) taken.push_back(std::move(item));
    queue->clear();
  }
  turns_ = 0;
  tokens_ = 0;
  return taken;
}

std::optional<TurnRequest> WaitingItems::TakeTurn(
    std::optional<uint64_t> started_by) {
  for (Queue* queue : {&continuation_, &next_step_, &after_turn_}) {
    for (auto item = queue->begin(); item != queue->end(); ++item) {
      if (!item->turn) continue;
      if (started_by && item->turn->started_by != *started_by) continue;
      std::optional<TurnRequest> turn = std::exchange(item->turn, std::nullopt);
      --turns_;
      if (!item->input) queue->erase(item);
      return turn;
    }
  }
  return std::nullopt;
}

bool WaitingItems::HasTurnOf(uint64_t started_by) const {
  for (const Queue* queue : {&continuation_, &next_step_, &after_turn_}) {
    if (absl::c_any_of(*queue, [&](const WaitingItem& item) {
          return item.turn && item.turn->started_by == started_by;
        })) {
      return true;
    }
  }
  return false;
}

bool WaitingItems::empty() const {
  return only_positioned() && positioned_.empty();
}

bool WaitingItems::only_positioned() const {
  return continuation_.empty() && next_step_.empty() && after_turn_.empty();
}

WaitingItems::Queue* WaitingItems::DueAt(int64_t length) {
  if (positioned_.empty() ||
      PositionOf(positioned_.front()) > static_cast<uint64_t>(length)) {
    return nullptr;
  }
  return &positioned_;
}

void WaitingItems::Count(const Queue& queue, const WaitingItem& item,
                         int sign) {
  if (item.turn && &queue != &positioned_) turns_ += sign;
  if (item.input) tokens_ += sign * NumTokens(*item.input);
}

}  // namespace millrace::session
