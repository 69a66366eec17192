#include "backends/model_file/gguf_tokenizer.h"

#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "backends/model_file/gguf_llama.h"
#include "backends/model_file/invalid_file.h"
#include "backends/model_file/utf8.h"

namespace millrace::backends {
namespace {

constexpr absl::string_view kModel = "tokenizer.ggml.model";
constexpr absl::string_view kTokens = "tokenizer.ggml.tokens";
constexpr absl::string_view kTypes = "tokenizer.ggml.token_type";
constexpr absl::string_view kMerges = "tokenizer.ggml.merges";
// Our own: GGUF names no key for a sink token.
constexpr absl::string_view kSink = "millrace.sink_token_id";

constexpr int64_t kMostMerges = 512 * 1024;
constexpr size_t kLongestToken = 1024;
constexpr uint64_t kLongestName = 64;
constexpr uint64_t kLongestTemplate = 256 * 1024;

using TokenSet = absl::flat_hash_set<absl::string_view>;

std::string Entry(int64_t i, absl::string_view text,
                  absl::string_view problem) {
  return absl::StrCat("has entry ", i, " '", Printable(text), "', ", problem);
}

TokenSet CheckTokens(GgufMetadata& metadata) {
  TokenSet set;
  set.reserve(metadata.ArrayCount(kTokens, 1, kLargestVocabulary));
  metadata.ForEachString(kTokens, [&](int64_t i, absl::string_view token) {
    if (token.empty() || token.size() > kLongestToken) {
      metadata.Fail(kTokens,
                    Entry(i, token,
                          absl::StrCat("of ", token.size(), " bytes; 1 to ",
                                       kLongestToken, " are supported")));
    } else if (!IsValidUtf8(token)) {
      metadata.Fail(kTokens, Entry(i, token, "which is not valid UTF-8"));
    } else if (!set.insert(token).second) {
      metadata.Fail(kTokens, Entry(i, token, "which an earlier one has too"));
    }
  });
  return set;
}

void CheckTypes(GgufMetadata& metadata, int64_t num_tokens) {
  const int64_t count = metadata.ArrayCount(kTypes, 0, kLargestVocabulary);
  if (metadata.ok() && count != num_tokens) {
    metadata.Fail(kTypes, absl::StrCat("has ", count, " elements for ",
                                       num_tokens, " tokens"));
  }
  metadata.ForEachInt(kTypes, [&](int64_t i, int64_t type) {
    if (type < 1 || type > 6) {
      metadata.Fail(kTypes, absl::StrCat("has type ", type, " for token ", i,
                                         "; 1 to 6 are defined"));
    }
  });
}

// What is wrong with a merge; empty: nothing.
std::string MergeProblem(const TokenSet& tokens, absl::string_view merge,
                         std::string& joined) {
  const size_t space = merge.find(' ');
  if (space == absl::string_view::npos ||
      merge.find(' ', space + 1) != absl::string_view::npos) {
    return "which is not two tokens with a space between";
  }
  if (merge.size() > 2 * kLongestToken) return "which is too long";
  const absl::string_view left = merge.substr(0, space);
  const absl::string_view right = merge.substr(space + 1);
  joined.assign(left.data(), left.size());
  joined.append(right.data(), right.size());
  for (const absl::string_view part :
       {left, right, absl::string_view(joined)}) {
    if (!tokens.contains(part)) {
      return absl::StrCat("whose '", Printable(part), "' is no token");
    }
  }
  return "";
}

void CheckMerges(GgufMetadata& metadata, const TokenSet& tokens) {
  metadata.ArrayCount(kMerges, 0, kMostMerges);
  std::string joined;
  metadata.ForEachString(kMerges, [&](int64_t i, absl::string_view merge) {
    const std::string problem = MergeProblem(tokens, merge, joined);
    if (!problem.empty()) metadata.Fail(kMerges, Entry(i, merge, problem));
  });
}

std::optional<int32_t> TokenId(GgufMetadata& metadata, absl::string_view name,
                               int64_t num_tokens) {
  const int64_t id = metadata.IntOr(name, -1, 0, num_tokens - 1);
  if (id < 0 || !metadata.Has(name)) return std::nullopt;
  return static_cast<int32_t>(id);
}

void ReadIds(GgufMetadata& metadata, int64_t num_tokens,
             TokenizerMetadata& out) {
  const auto id = [&](absl::string_view name) {
    return TokenId(metadata, name, num_tokens);
  };
  out.bos_id = id("tokenizer.ggml.bos_token_id");
  out.eos_id = id("tokenizer.ggml.eos_token_id");
  out.unknown_id = id("tokenizer.ggml.unknown_token_id");
  out.padding_id = id("tokenizer.ggml.padding_token_id");
  out.sink_id = id(kSink);
  for (const absl::string_view name :
       {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (const std::optional<int32_t> end = id(name)) {
      out.end_of_turn_ids.push_back(*end);
    }
  }
  if (out.add_bos && !out.bos_id.has_value()) {
    metadata.Fail("tokenizer.ggml.add_bos_token",
                  "is true, but 'tokenizer.ggml.bos_token_id' is missing");
  }
  if (out.add_eos && !out.eos_id.has_value()) {
    metadata.Fail("tokenizer.ggml.add_eos_token",
                  "is true, but 'tokenizer.ggml.eos_token_id' is missing");
  }
}

// Files for llama 3 ask for BOS by the name of their pre-tokenizer alone.
bool AddsBosByDefault(absl::string_view pre_tokenizer) {
  return pre_tokenizer == "llama-bpe" || pre_tokenizer == "llama3" ||
         pre_tokenizer == "llama-v3";
}

void ReadSettings(GgufMetadata& metadata, TokenizerMetadata& out) {
  out.model = metadata.String(kModel, kLongestName);
  if (metadata.ok() && out.model != "gpt2") {
    metadata.Fail(kModel, absl::StrCat("is '", Printable(out.model),
                                       "'; only 'gpt2' is supported"));
  }
  out.pre_tokenizer = metadata.String("tokenizer.ggml.pre", kLongestName);
  out.add_bos = metadata.BoolOr("tokenizer.ggml.add_bos_token",
                                AddsBosByDefault(out.pre_tokenizer));
  out.add_eos = metadata.BoolOr("tokenizer.ggml.add_eos_token", false);
  out.add_space_prefix =
      metadata.BoolOr("tokenizer.ggml.add_space_prefix", false);
  out.chat_template =
      metadata.StringOr("tokenizer.chat_template", "", kLongestTemplate);
}

// Keys that change nothing for byte-level BPE: scores, names of tokens for
// uses that we do not have, other templates than the default one.
void RefuseOtherKeys(GgufMetadata& metadata) {
  for (const absl::string_view name :
       {"tokenizer.ggml.scores", "tokenizer.ggml.seperator_token_id",
        "tokenizer.ggml.cls_token_id", "tokenizer.ggml.mask_token_id",
        "tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.fim_suf_token_id",
        "tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.fim_pad_token_id",
        "tokenizer.ggml.fim_rep_token_id", "tokenizer.ggml.fim_sep_token_id",
        "tokenizer.ggml.prefix_token_id", "tokenizer.ggml.suffix_token_id",
        "tokenizer.ggml.middle_token_id", "tokenizer.chat_templates",
        "tokenizer.chat_template.", "tokenizer.huggingface.json"}) {
    metadata.Ignore(name);
  }
  metadata.RefuseUnread("tokenizer.");
  metadata.RefuseUnread("millrace.");
}

void CopyEntries(GgufMetadata& metadata, int64_t num_tokens,
                 TokenizerMetadata& out) {
  out.tokens.reserve(num_tokens);
  out.token_types.reserve(num_tokens);
  metadata.ForEachString(kTokens, [&](int64_t, absl::string_view token) {
    out.tokens.emplace_back(token);
  });
  metadata.ForEachInt(kTypes, [&](int64_t, int64_t type) {
    out.token_types.push_back(static_cast<TokenType>(type));
  });
  out.merges.reserve(metadata.ArrayCount(kMerges, 0, kMostMerges));
  metadata.ForEachString(kMerges, [&](int64_t, absl::string_view merge) {
    out.merges.emplace_back(merge);
  });
}

}  // namespace

absl::StatusOr<TokenizerMetadata> ReadTokenizer(GgufMetadata& metadata) {
  TokenizerMetadata out;
  ReadSettings(metadata, out);
  const int64_t num_tokens =
      metadata.ArrayCount(kTokens, 1, kLargestVocabulary);
  ReadIds(metadata, num_tokens, out);
  CheckTypes(metadata, num_tokens);
  {  // The set is gone before entries are copied: peaks do not add up.
    const TokenSet tokens = CheckTokens(metadata);
    CheckMerges(metadata, tokens);
  }
  RefuseOtherKeys(metadata);
  if (metadata.ok()) CopyEntries(metadata, num_tokens, out);
  if (!metadata.ok()) return metadata.status();
  return out;
}

}  // namespace millrace::backends
