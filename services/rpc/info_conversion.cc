#include "services/rpc/info_conversion.h"

#include <openssl/sha.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "backends/quant/weight_type.h"
#include "cache/policies/registry.h"
#include "services/errors/errors.h"
#include "services/rpc/time_conversion.h"

namespace millrace::rpc {
namespace {

void AddWeightTypes(const backends::ModelFile& file, v1::ModelInfo& out) {
  std::map<std::string, std::pair<uint32_t, uint64_t>> by_type;
  for (const std::string& name : file.TensorNames()) {
    const auto tensor = file.FindTensor(name);
    if (!tensor.ok()) continue;
    auto& [tensors, bytes] =
        by_type[std::string(backends::WeightTypeName(tensor->type))];
    ++tensors;
    bytes += tensor->rows * tensor->row_bytes();
  }
  for (const auto& [name, sizes] : by_type) {
    v1::WeightType* type = out.add_weight_types();
    type->set_name(name);
    type->set_tensors(sizes.first);
    type->set_bytes(sizes.second);
  }
  std::sort(out.mutable_weight_types()->begin(),
            out.mutable_weight_types()->end(),
            [](const auto& a, const auto& b) { return a.bytes() > b.bytes(); });
}

v1::TokenizerInfo ToTokenizerInfo(const backends::TokenizerMetadata& metadata,
                                  const text::Tokenizer& tokenizer) {
  v1::TokenizerInfo out;
  out.set_model(metadata.model);
  out.set_pre_tokenizer(metadata.pre_tokenizer);
  out.set_adds_beginning_of_text(tokenizer.bos_id().has_value());
  if (const auto sink = tokenizer.sink_id()) out.set_sink_token_id(*sink);
  for (int32_t id = 0; id < tokenizer.vocabulary_size(); ++id) {
    if (!tokenizer.IsSpecial(id)) continue;
    v1::SpecialToken* token = out.add_special_tokens();
    token->set_token_id(id);
    token->set_text(std::string(tokenizer.Spelling(id)));
  }
  for (int32_t id : tokenizer.end_of_turn_ids()) {
    out.add_end_of_turn_token_ids(id);
  }
  return out;
}

std::string Fingerprint(const std::string& text) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         digest);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), 6));
}

v1::ChatTemplateInfo ToChatInfo(const std::string& source,
                                const absl::Status& status) {
  v1::ChatTemplateInfo out;
  out.set_usable(status.ok());
  if (!status.ok()) {
    out.set_unusable_reason(errors::ReasonOf(status));
    out.set_explanation(std::string(status.message()));
  }
  if (!source.empty()) out.set_fingerprint(Fingerprint(source));
  return out;
}

v1::PolicyOption ToOption(const cache::PolicyOptionInfo& info,
                          bool has_sink_token) {
  const std::string& default_value =
      has_sink_token && !info.default_with_sink_token.empty()
          ? info.default_with_sink_token
          : info.default_value;
  v1::PolicyOption out;
  out.set_name(info.name);
  out.set_description(absl::StrCat(info.summary, " (", info.range,
                                   "; default: ", default_value, ")"));
  if (info.type == "uint") {
    out.set_type(v1::OPTION_TYPE_NUMBER);
    // "0 to 8192"; an end that depends on the model is in words.
    const std::pair<std::string, std::string> ends =
        absl::StrSplit(info.range, absl::MaxSplits(" to ", 1));
    uint64_t value;
    if (absl::SimpleAtoi(ends.first, &value)) out.set_minimum(value);
    if (absl::SimpleAtoi(ends.second, &value)) out.set_maximum(value);
    if (!absl::SimpleAtoi(default_value, &value)) return out;
  } else if (info.type == "bool") {
    out.set_type(v1::OPTION_TYPE_BOOLEAN);
  } else {
    out.set_type(v1::OPTION_TYPE_CHOICE);
    for (absl::string_view choice : absl::StrSplit(info.type, '|')) {
      out.add_choices(std::string(choice));
    }
  }
  out.set_default_value(default_value);
  return out;
}

}  // namespace

v1::ModelInfo ToModelInfo(const std::string& name,
                          const backends::ModelFile& file,
                          const text::Tokenizer& tokenizer,
                          const absl::Status& chat_status,
                          const cache::KvSpec& kv) {
  const backends::ModelConfig& config = file.config();
  v1::ModelInfo out;
  out.set_name(name);
  out.set_architecture(config.architecture);
  out.set_sha256(file.info().sha256);
  out.set_file_bytes(file.info().file_bytes);
  out.set_parameters(file.info().num_parameters);
  out.set_layers(config.num_layers);
  out.set_heads(config.num_heads);
  out.set_kv_heads(config.num_kv_heads);
  out.set_head_dim(config.head_dim);
  out.set_embedding_length(config.embedding_size);
  out.set_feed_forward_length(config.feed_forward_size);
  out.set_vocabulary_size(config.vocabulary_size);
  out.set_trained_context_tokens(config.trained_context);
  out.set_rope_base(config.rope_base);
  AddWeightTypes(file, out);
  out.set_kv_dtype(std::string(cache::KvDtypeName(kv.dtype)));
  out.set_kv_bytes_per_token(kv.BytesPerToken());
  *out.mutable_tokenizer() = ToTokenizerInfo(file.tokenizer(), tokenizer);
  *out.mutable_chat_template() =
      ToChatInfo(file.tokenizer().chat_template, chat_status);
  return out;
}

v1::Limits ToLimits(const RequestLimits& limits) {
  v1::Limits out;
  out.set_max_pending_input_bytes(limits.max_pending_input_bytes);
  out.set_default_turn_tokens(limits.default_turn_tokens);
  if (limits.max_turn_tokens) out.set_max_turn_tokens(*limits.max_turn_tokens);
  if (limits.max_turn_duration != absl::InfiniteDuration()) {
    *out.mutable_max_turn_duration() = ToProto(limits.max_turn_duration);
  }
  out.set_max_stop_strings(limits.max_stop_strings);
  out.set_max_stop_bytes(limits.max_stop_bytes);
  out.set_max_logit_bias(limits.max_logit_bias);
  out.set_max_top_logprobs(limits.max_top_logprobs);
  *out.mutable_session_idle_timeout() = ToProto(limits.session_idle_timeout);
  *out.mutable_detach_timeout() = ToProto(limits.detach_timeout);
  out.set_special_tokens_allowed(limits.allow_special_tokens);
  return out;
}

std::vector<v1::PolicyInfo> ToPolicyInfos(bool has_sink_token) {
  std::vector<v1::PolicyInfo> out;
  for (const cache::PolicyInfo& info : cache::AllPolicies()) {
    v1::PolicyInfo policy;
    policy.set_name(info.name);
    policy.set_description(info.summary);
    for (const auto& option : info.options) {
      *policy.add_options() = ToOption(option, has_sink_token);
    }
    policy.set_supported(true);  // no policy yet needs what a backend may lack
    out.push_back(std::move(policy));
  }
  return out;
}

}  // namespace millrace::rpc
