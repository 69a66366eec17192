#include "services/session/open_session.h"

#include <utility>

#include "absl/strings/string_view.h"

namespace millrace::session {
namespace {

absl::StatusOr<Format> ChooseFormat(const OpenOptions& open,
                                    const StoreDependencies& deps) {
  const bool has_template = deps.chat_format != nullptr;
  const Format format =
      open.format.value_or(has_template ? Format::kChat : Format::kPlain);
  if (format == Format::kChat && !has_template) return deps.chat_status;
  return format;
}

std::vector<int32_t> SystemBlock(const OpenOptions& open, Format format,
                                 const StoreDependencies& deps) {
  if (format == Format::kChat) {
    std::optional<absl::string_view> prompt;
    if (open.system_prompt) prompt = *open.system_prompt;
    return deps.chat_format->SystemBlock(prompt);
  }
  std::vector<int32_t> ids = deps.tokenizer->text_prefix();
  if (open.system_prompt) {
    const std::vector<int32_t> prompt = deps.tokenizer->Encode(
        *open.system_prompt, text::SpecialTokens::kAsText);
    ids.insert(ids.end(), prompt.begin(), prompt.end());
  }
  return ids;
}

int64_t BytesPerToken(const StoreOptions& options,
                      const StoreDependencies& deps) {
  const backends::ModelConfig& model = deps.engine->model_config();
  return cache::KvSpec{.num_layers = model.num_layers,
                       .num_kv_heads = model.num_kv_heads,
                       .head_dim = model.head_dim,
                       .dtype = options.kv_dtype}
      .BytesPerToken();
}

absl::StatusOr<cache::MadePolicy> ChoosePolicy(const OpenOptions& open,
                                               int64_t pinned_tokens,
                                               const StoreOptions& options,
                                               const StoreDependencies& deps) {
  absl::StatusOr<cache::PolicyConfig> config =
      open.policy ? *open.policy : cache::ParsePolicy(options.default_policy);
  if (!config.ok()) return config.status();
  return cache::MakePolicy(
      *config, {.trained_context = deps.engine->model_config().trained_context,
                .pinned_tokens = pinned_tokens,
                .max_resident_tokens =
                    options.session_kv_bytes / BytesPerToken(options, deps),
                .extra_tokens = deps.engine->options().prefill_chunk_tokens +
                                open.rollback_tokens +
                                deps.engine->extra_rollback_tokens(),
                .wide_prefix = HasWidePrefix(options.kv_dtype),
                .has_sink_token = deps.tokenizer->sink_id().has_value(),
                .backend = options.backend});
}

}  // namespace

absl::StatusOr<PreparedSession> PrepareSession(const OpenOptions& open,
                                               const StoreOptions& options,
                                               const StoreDependencies& deps) {
  const absl::StatusOr<Format> format = ChooseFormat(open, deps);
  if (!format.ok()) return format.status();
  PreparedSession prepared;
  prepared.system_ids = SystemBlock(open, *format, deps);
  absl::StatusOr<cache::MadePolicy> policy = ChoosePolicy(
      open, static_cast<int64_t>(prepared.system_ids.size()), options, deps);
  if (!policy.ok()) return policy.status();
  prepared.policy = *std::move(policy);
  prepared.options = {.format = *format,
                      .policy = prepared.policy.text,
                      .generation = open.generation,
                      .idle_timeout = open.idle_timeout,
                      .detach_timeout = open.detach_timeout,
                      .rollback_tokens = open.rollback_tokens};
  return prepared;
}

}  // namespace millrace::session
