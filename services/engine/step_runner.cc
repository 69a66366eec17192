#include "services/engine/step_runner.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/time/time.h"
#include "services/engine/ngram_draft.h"

namespace millrace::engine {
namespace {

int64_t LeftOut(absl::Span<const SequenceFacts> facts,
                absl::Span<const PlannedRows> plan) {
  const auto waiting = absl::c_count_if(
      facts, [](const SequenceFacts& f) { return f.pending_tokens > 0; });
  return waiting - static_cast<int64_t>(plan.size());
}

}  // namespace

StepRunner::StepRunner(backends::Model& model, cache::KvStorage& storage,
                       const EngineOptions& options, SequenceTable& table)
    : model_(model),
      queue_(model.step_queue()),
      storage_(storage),
      options_(options),
      table_(table) {}

StepRunner::~StepRunner() {
  if (running_ != nullptr && running_->status.ok()) {
    queue_->End({}).IgnoreError();
  }
}

bool StepRunner::RunStep() {
  const std::unique_ptr<Step> step =
      running_ != nullptr ? std::move(running_) : BeginStep();
  if (step == nullptr) return false;
  running_ = BeginBehind(*step);
  Finish(*step);
  if (running_ != nullptr) Settle(*step, *running_);
  return true;
}

void StepRunner::Drain() {
  if (running_ != nullptr) Finish(*std::exchange(running_, nullptr));
}

// ---- A step ----

std::unique_ptr<Step> StepRunner::BeginStep() {
  for (const auto& [id, sequence] : table_.open) sequence->Prepare();
  const std::vector<SequenceFacts> facts = FactsWith(/*picks=*/{});
  const std::vector<PlannedRows> plan = Plan(facts);
  const int64_t left_out = LeftOut(facts, plan);
  if (plan.empty()) {
    left_out_ = left_out;
    return nullptr;
  }
  auto step = std::make_unique<Step>();
  step->left_out = left_out;
  step->begun = Clock::now();
  Prepare(plan, *step);
  Begin(*step);
  // Everything is committed before any client hears of it: from then on clients
  // may do what they like.
  if (!step->status.ok()) return step;
  for (const StepPart& part : step->parts) Find(part.id)->Commit(part.tokens);
  return step;
}

std::vector<PlannedRows> StepRunner::Plan(
    absl::Span<const SequenceFacts> facts) const {
  return PlanStep(facts,
                  {.max_decode_rows = options_.max_decode_rows,
                   .prefill_chunk_tokens = options_.prefill_chunk_tokens});
}

void StepRunner::Prepare(const std::vector<PlannedRows>& plan, Step& step) {
  for (const PlannedRows& rows : plan) {
    EngineSequence& sequence = *Find(rows.id);
    absl::StatusOr<StepPart> part = sequence.PreparePart(rows.tokens);
    if (part.ok()) {
      step.parts.push_back(*std::move(part));
    } else {
      step.refused.push_back({rows.id, part.status()});
    }
  }
  // Others would wait for the guessed rows.
  if (step.parts.size() == 1 && step.parts[0].decodes) {
    PrepareGuess(*Find(step.parts[0].id), step.parts[0]);
  }
  if (queue_ == nullptr) return;
  for (StepPart& part : step.parts) {
    const EngineSequence& sequence = *Find(part.id);
    if (part.logits_rows != 1 || part.guessed() > 0) continue;
    if (!sequence.PicksNext()) continue;
    part.sampling = sequence.client()->HowToPick(/*unknown_tokens=*/0);
  }
}

void StepRunner::PrepareGuess(EngineSequence& sequence, StepPart& part) {
  const absl::Span<const int32_t> guess = sequence.Guess(
      std::min(NgramDraft::kMaxTokens, model_.max_rows() - part.tokens));
  if (guess.empty()) return;
  absl::StatusOr<cache::KvView> view =
      sequence.ReserveGuess(static_cast<int>(guess.size()));
  if (!view.ok()) {  // there is no room for so many
    part.view = *sequence.Reserve(part.tokens);
    return;
  }
  part.ids.insert(part.ids.end(), guess.begin(), guess.end());
  part.logits_rows += part.guessed();
  part.view = *std::move(view);
}

void StepRunner::Begin(Step& step) {
  if (step.parts.empty()) return;
  step.MakeBatch();
  step.status = queue_ != nullptr
                    ? queue_->Begin(step.batch, storage_)
                    : model_.Forward(step.batch, storage_, LogitsOf(step));
  step.number = ++table_.steps;
}

void StepRunner::Finish(Step& step) {
  if (queue_ != nullptr && step.status.ok() && !step.parts.empty()) {
    step.status = queue_->End(LogitsOf(step));
  }
  const bool is_wanted = absl::c_any_of(
      step.parts, [](const StepPart& part) { return !part.dropped; });
  if (is_wanted || step.parts.empty()) status_ = step.status;
  left_out_ = step.left_out;
  Observe(step);
  if (step.status.ok()) {
    Deliver(step);
  } else {
    for (const StepPart& part : step.parts) {
      if (!part.dropped) Fail(part.id, step.status);
    }
  }
  for (const auto& [id, why] : step.refused) Fail(id, why);
}

// ---- The next one, behind it ----

std::unique_ptr<Step> StepRunner::BeginBehind(const Step& before) {
  if (queue_ == nullptr || !CanBeFollowed(before)) return nullptr;
  const Picks picks = PicksOf(before);
  const std::vector<SequenceFacts> facts = FactsWith(picks);
  const std::vector<PlannedRows> plan = Plan(facts);
  if (plan.empty() || !CanBeBegunBehind(picks, plan)) return nullptr;
  auto step = std::make_unique<Step>();
  step->left_out = LeftOut(facts, plan);
  step->begun = Clock::now();
  if (!PrepareBehind(picks, plan, *step)) {
    for (const StepPart& part : step->parts) Find(part.id)->Drop();
    return nullptr;
  }
  Begin(*step);
  return step;
}

StepRunner::Picks StepRunner::PicksOf(const Step& step) const {
  Picks picks;
  int number = 0;
  for (const StepPart& part : step.parts) {
    if (!part.sampling) continue;
    const EngineSequence* const sequence = Find(part.id);
    if (sequence != nullptr && !part.dropped && sequence->AwaitsPick()) {
      picks.emplace(part.id, number);
    }
    ++number;
  }
  return picks;
}

// Whether nothing of it has to reach the host before another is begun.
bool StepRunner::CanBeFollowed(const Step& before) const {
  if (!before.status.ok() || before.parts.empty()) return false;
  return absl::c_all_of(before.parts, [&](const StepPart& part) {
    const EngineSequence* const sequence = Find(part.id);
    return part.rows_of_logits() == 0 &&
           (sequence == nullptr || sequence->LeavesNoTrace());
  });
}

// As if the tokens that are being picked were there already.
std::vector<SequenceFacts> StepRunner::FactsWith(const Picks& picks) const {
  std::vector<SequenceFacts> facts;
  facts.reserve(table_.open.size());
  for (const auto& [id, sequence] : table_.open) {
    facts.push_back(sequence->Facts());
    if (picks.contains(id)) facts.back().pending_tokens = 1;
  }
  return facts;
}

// Not where one sequence of it has to wait: it would get every second step.
bool StepRunner::CanBeBegunBehind(const Picks& picks,
                                  const std::vector<PlannedRows>& plan) const {
  const bool one_waits = absl::c_any_of(plan, [&](const PlannedRows& rows) {
    return !Find(rows.id)->LeavesNoTrace();
  });
  if (one_waits) return false;
  // A guess may pay more than a step that is begun early.
  const bool may_guess = plan.size() == 1 && picks.contains(plan[0].id);
  return !may_guess || !Find(plan[0].id)->GuessComesNext();
}

bool StepRunner::PrepareBehind(const Picks& picks,
                               const std::vector<PlannedRows>& plan,
                               Step& step) {
  for (const PlannedRows& rows : plan) {
    EngineSequence& sequence = *Find(rows.id);
    const auto pick = picks.find(rows.id);
    const bool is_unknown = pick != picks.end();
    absl::StatusOr<StepPart> prepared =
        is_unknown ? sequence.PreparePick() : sequence.PreparePart(rows.tokens);
    if (!prepared.ok()) return false;
    step.parts.push_back(*std::move(prepared));
    StepPart& part = step.parts.back();
    if (is_unknown) part.picked_before = pick->second;
    if (part.logits_rows == 0) continue;
    if (part.logits_rows > 1 || !sequence.PicksNext()) return false;
    part.sampling = sequence.client()->HowToPick(is_unknown ? 1 : 0);
    if (!part.sampling) return false;
  }
  return true;
}

// Once the clients of the step before have done what they do: commits the parts
// that are what was begun, and drops the others.
void StepRunner::Settle(const Step& before, Step& step) {
  std::vector<int32_t> picked;
  for (const StepPart& part : before.parts) {
    if (part.sampling) picked.push_back(part.picked);
  }
  for (StepPart& part : step.parts) {
    EngineSequence* const sequence = Find(part.id);
    if (part.picked_before >= 0) part.ids[0] = picked[part.picked_before];
    part.dropped = sequence == nullptr || !sequence->CommitBegun(part);
  }
}

// ---- What comes of a step ----

void StepRunner::Observe(const Step& step) {
  const Clock::time_point now = Clock::now();
  const Clock::time_point begun = std::max(step.begun, last_end_);
  last_end_ = now;
  if (!observer_ || step.parts.empty()) return;
  StepTrace trace;
  trace.step = step.number;
  trace.duration = absl::FromChrono(now - begun);
  trace.accepted_before = std::exchange(accepted_, 0);
  for (const StepPart& part : step.parts) {
    if (part.dropped) {
      trace.dropped_rows += part.tokens;
      continue;
    }
    (part.decodes ? trace.decode_rows : trace.prefill_rows) += part.tokens;
    trace.draft_rows += part.guessed();
    trace.rows.emplace_back(part.id, part.tokens);
  }
  observer_(trace);
}

void StepRunner::Deliver(const Step& step) {
  size_t offset = 0;
  for (const StepPart& part : step.parts) {
    const size_t values =
        static_cast<size_t>(part.rows_of_logits()) * vocabulary();
    const auto logits = absl::MakeConstSpan(logits_).subspan(offset, values);
    part.guessed() > 0 ? DeliverGuess(part, logits) : DeliverTo(part, logits);
    offset += values;
  }
}

// Row by row, as if each had been a step: a guessed token is committed when its
// client has picked it, and not before.
void StepRunner::DeliverGuess(const StepPart& part,
                              absl::Span<const float> logits) {
  const auto deliver = [&](int row) {
    Find(part.id)->client()->OnRows(
        part.first + row, 1, logits.subspan(row * vocabulary(), vocabulary()));
    return Find(part.id);  // null: the client has closed it
  };
  EngineSequence* sequence = deliver(0);
  int taken = 0;
  while (sequence != nullptr && taken < part.guessed() &&
         sequence->cached_tokens() == part.first + taken + 1 &&
         sequence->Accept(part.ids[taken + 1])) {
    sequence = deliver(++taken);
  }
  accepted_ += taken;
  if (sequence != nullptr) sequence->EndGuess(part.guessed(), taken);
}

void StepRunner::DeliverTo(const StepPart& part,
                           absl::Span<const float> logits) {
  EngineSequence* const sequence = Find(part.id);
  // Another client's call may have closed the sequence, or cut it back, and
  // changed what it wants.
  if (sequence == nullptr || part.dropped) return;
  if (sequence->cached_tokens() != part.first + part.tokens) return;
  if (part.anew == part.tokens) return;  // nothing new
  const int64_t first = part.first + part.anew;
  const int count = part.tokens - part.anew;
  const int wanted = sequence->WantedRows(
      part.tokens, part.anew, part.tokens + sequence->queued_tokens());
  if (part.sampling && wanted == 1 && sequence->PicksNext()) {
    sequence->client()->OnPicked(first, count, part.picked);
    return;
  }
  const size_t values = static_cast<size_t>(wanted) * vocabulary();
  if (values > logits.size()) {
    logits = {};
  } else {
    logits.remove_prefix(logits.size() - values);
  }
  sequence->client()->OnRows(first, count, logits);
}

void StepRunner::Fail(int64_t id, const absl::Status& why) {
  EngineSequence* const sequence = Find(id);
  if (sequence == nullptr) return;
  sequence->DropPending();
  sequence->client()->OnError(why);
}

absl::Span<float> StepRunner::LogitsOf(const Step& step) {
  const size_t values =
      static_cast<size_t>(step.batch.logits_rows()) * vocabulary();
  if (logits_.size() < values) logits_.resize(values);
  return absl::MakeSpan(logits_).subspan(0, values);
}

EngineSequence* StepRunner::Find(int64_t id) const {
  const auto it = table_.open.find(id);
  return it == table_.open.end() ? nullptr : it->second;
}

}  // namespace millrace::engine
