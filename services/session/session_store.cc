#include "services/session/session_store.h"

#include <atomic>
#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "services/errors/errors.h"
#include "services/session/open_session.h"
#include "services/session/session_entry.h"

namespace millrace::session {
namespace {

using errors::MakeError;
using errors::Reason;

constexpr absl::Duration kRetryAfter = absl::Seconds(5);

absl::Status NotFound() {
  return MakeError(absl::StatusCode::kNotFound, Reason::kSessionNotFound,
                   "no such session, or not its resume token");
}

absl::Status Draining() {
  return MakeError(absl::StatusCode::kUnavailable, Reason::kDraining,
                   "the server is about to end and opens no sessions",
                   {.retry_after = absl::Seconds(1)});
}

absl::Status Exhausted(Reason reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kResourceExhausted, reason, message,
                   {.retry_after = kRetryAfter});
}

using Entry = std::shared_ptr<SessionEntry>;

// Outlives the store in tasks that are posted.
struct Core {
  Core(const StoreOptions& o, const StoreDependencies& d)
      : options(o), deps(d) {}

  Entry Find(const std::string& id) const {
    absl::MutexLock lock(&mutex);
    const auto found = entries.find(id);
    return found == entries.end() ? nullptr : found->second;
  }
  std::vector<Entry> All() const {
    absl::MutexLock lock(&mutex);
    std::vector<Entry> all;
    for (const auto& [id, entry] : entries) all.push_back(entry);
    return all;
  }
  int size() const {
    absl::MutexLock lock(&mutex);
    return static_cast<int>(entries.size());
  }
  // The session has ended; it is in the midst of saying so, and goes when the
  // engine is back.
  void Remove(const std::shared_ptr<Core>& self, const std::string& id) {
    {
      absl::MutexLock lock(&mutex);
      const auto found = entries.find(id);
      if (found == entries.end()) return;
      stats.paused += found->second->times_paused();
      closed.push_back(std::move(found->second));
      entries.erase(found);
    }
    deps.engine->Post([self] { self->DropClosed(); });
  }
  void DropClosed() {
    std::vector<Entry> dropped;
    absl::MutexLock lock(&mutex);
    dropped.swap(closed);
  }

  const StoreOptions options;
  const StoreDependencies deps;
  std::atomic<bool> draining = false;
  mutable absl::Mutex mutex;
  std::map<std::string, Entry, std::less<>> entries ABSL_GUARDED_BY(mutex);
  std::vector<Entry> closed ABSL_GUARDED_BY(mutex);
  StoreStats stats ABSL_GUARDED_BY(mutex);
};

class Store final : public SessionStore {
 public:
  Store(const StoreOptions& options, const StoreDependencies& deps)
      : core_(std::make_shared<Core>(options, deps)) {}
  ~Store() override;

  void Open(OpenOptions options, StreamId stream, StreamOwner* owner,
            OpenCallback done) override;
  void Resume(std::string session_id, std::string resume_token,
              uint64_t last_sequence_number, StreamId stream,
              StreamOwner* owner, OpenCallback done) override;
  absl::Status Delete(absl::string_view session_id) override;
  absl::StatusOr<SessionInfo> Get(absl::string_view session_id) const override;
  std::vector<SessionInfo> List(absl::string_view after,
                                int limit) const override;
  void Tick() override;
  void StartDrain(absl::Time deadline) override;
  void FinishDrain() override;
  int num_sessions() const override { return core_->size(); }
  StoreStats stats() const override;

 private:
  void Post(std::function<void()> task) {
    core_->deps.engine->Post(std::move(task));
  }

  const std::shared_ptr<Core> core_;
};

Store::~Store() {
  for (const Entry& entry : core_->All()) entry->Abandon();
  core_->DropClosed();
  std::map<std::string, Entry, std::less<>> dropped;
  absl::MutexLock lock(&core_->mutex);
  dropped.swap(core_->entries);
}

Entry MakeEntry(const std::shared_ptr<Core>& core, const OpenOptions& open,
                PreparedSession prepared, StreamId stream, StreamOwner* owner) {
  // The entry's name is known only when it is made.
  const auto id = std::make_shared<std::string>();
  auto entry = std::make_shared<SessionEntry>(
      open, std::move(prepared), core->options, core->deps, stream, owner,
      [core, id] { core->Remove(core, *id); },
      [core] {
        absl::MutexLock lock(&core->mutex);
        ++core->stats.slow_consumers;
      });
  *id = entry->id();
  return entry;
}

absl::StatusOr<Entry> Admit(const std::shared_ptr<Core>& core,
                            const OpenOptions& open, PreparedSession prepared,
                            StreamId stream, StreamOwner* owner) {
  if (core->draining) return Draining();
  const int limit = core->options.max_sessions;
  if (limit > 0 && core->size() >= limit) {
    return Exhausted(Reason::kSessionLimit,
                     absl::StrCat("all of ", limit,
                                  " sessions are open; "
                                  "retry when one has ended"));
  }
  const Entry entry = MakeEntry(core, open, std::move(prepared), stream, owner);
  const absl::Status status = entry->Start();
  if (absl::IsResourceExhausted(status)) {
    return Exhausted(Reason::kKvBudget, status.message());
  }
  if (!status.ok()) return status;
  absl::MutexLock lock(&core->mutex);
  core->entries.emplace(entry->id(), entry);
  return entry;
}

void Store::Open(OpenOptions options, StreamId stream, StreamOwner* owner,
                 OpenCallback done) {
  auto prepared = PrepareSession(options, core_->options, core_->deps);
  Post([core = core_, options = std::move(options),
        prepared = std::move(prepared), stream, owner,
        done = std::move(done)]() mutable {
    if (!prepared.ok()) return done(std::move(prepared).status());
    absl::StatusOr<Entry> entry =
        Admit(core, options, *std::move(prepared), stream, owner);
    if (!entry.ok()) return done(std::move(entry).status());
    done(*std::move(entry));
  });
}

void Store::Resume(std::string session_id, std::string resume_token,
                   uint64_t last_sequence_number, StreamId stream,
                   StreamOwner* owner, OpenCallback done) {
  Post([core = core_, session_id = std::move(session_id),
        resume_token = std::move(resume_token), last_sequence_number, stream,
        owner, done = std::move(done)] {
    const Entry entry = core->Find(session_id);
    // As long a comparison for a session that is not there.
    const bool known = entry != nullptr
                           ? entry->HasToken(resume_token)
                           : SessionEntry::IsNobodysToken(resume_token);
    if (!known) return done(NotFound());
    entry->Attach(stream, owner, last_sequence_number);
    {
      absl::MutexLock lock(&core->mutex);
      ++core->stats.resumed;
    }
    done(entry);
  });
}

absl::Status Store::Delete(absl::string_view session_id) {
  const Entry entry = core_->Find(std::string(session_id));
  if (entry == nullptr) return NotFound();
  Post([entry] { entry->session().Close(CloseReason::kDeleted); });
  return absl::OkStatus();
}

absl::StatusOr<SessionInfo> Store::Get(absl::string_view session_id) const {
  const Entry entry = core_->Find(std::string(session_id));
  if (entry == nullptr) return NotFound();
  return entry->info();
}

std::vector<SessionInfo> Store::List(absl::string_view after, int limit) const {
  std::vector<Entry> page;
  {
    absl::MutexLock lock(&core_->mutex);
    for (auto next = core_->entries.upper_bound(after);
         next != core_->entries.end() && static_cast<int>(page.size()) < limit;
         ++next) {
      page.push_back(next->second);
    }
  }
  std::vector<SessionInfo> infos;
  for (const Entry& entry : page) infos.push_back(entry->info());
  return infos;
}

void Store::Tick() {
  Post([core = core_] {
    const absl::Time now = core->deps.now();
    for (const Entry& entry : core->All()) {
      if (!entry->Tick(now, core->options.slow_reader_timeout)) continue;
      absl::MutexLock lock(&core->mutex);
      ++core->stats.expired;
    }
  });
}

void Store::StartDrain(absl::Time deadline) {
  core_->draining = true;
  Post([core = core_, deadline] {
    const GoAway go_away{
        .deadline = deadline, .reason = "DRAINING", .resumable = false};
    for (const Entry& entry : core->All()) entry->session().StartDrain(go_away);
  });
}

void Store::FinishDrain() {
  core_->draining = true;
  Post([core = core_] {
    for (const Entry& entry : core->All()) {
      entry->session().Close(CloseReason::kDrained);
    }
  });
}

StoreStats Store::stats() const {
  absl::MutexLock lock(&core_->mutex);
  StoreStats stats = core_->stats;
  for (const auto& [id, entry] : core_->entries) {
    stats.paused += entry->times_paused();
  }
  return stats;
}

}  // namespace

std::unique_ptr<SessionStore> SessionStore::Create(
    const StoreOptions& options, const StoreDependencies& deps) {
  return std::make_unique<Store>(options, deps);
}

StreamId SessionStore::NewStreamId() {
  static std::atomic<StreamId> last = 0;
  return ++last;
}

}  // namespace millrace::session
