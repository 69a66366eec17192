#include "services/rpc/inference_service.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "millrace/v1/inference.grpc.pb.h"
#include "services/errors/errors.h"
#include "services/oneshot/prompt.h"
#include "services/rpc/generate_call.h"
#include "services/rpc/request_conversion.h"
#include "services/rpc/score_call.h"
#include "services/rpc/unary_call.h"

namespace millrace::rpc {
namespace {

using grpc::ByteBuffer;
using grpc::CallbackServerContext;

absl::Status Tokenize(const Serving& serving,
                      const v1::TokenizeRequest& request,
                      v1::TokenizeResponse& response) {
  if (request.has_model()) {
    absl::Status status = CheckModelName(request.model(), serving.limits);
    if (!status.ok()) return status;
  }
  const auto inputs = FromProto(request.inputs(), serving.limits);
  if (!inputs.ok()) return inputs.status();
  const auto prompt = oneshot::BuildPrompt(*inputs, serving.text,
                                           request.add_generation_prompt());
  if (!prompt.ok()) return prompt.status();
  if (request.add_generation_prompt() && !prompt->is_chat) {
    return errors::InvalidField(
        "add_generation_prompt",
        "add_generation_prompt goes with chat messages only");
  }
  for (int32_t id : prompt->ids) response.add_token_ids(id);
  response.set_rendered_text(prompt->rendered_text);
  return absl::OkStatus();
}

absl::Status Detokenize(const Serving& serving,
                        const v1::DetokenizeRequest& request,
                        v1::DetokenizeResponse& response) {
  if (request.has_model()) {
    absl::Status status = CheckModelName(request.model(), serving.limits);
    if (!status.ok()) return status;
  }
  const auto size =
      static_cast<uint32_t>(serving.text.tokenizer->vocabulary_size());
  std::vector<int32_t> ids;
  for (int i = 0; i < request.token_ids_size(); ++i) {
    if (request.token_ids(i) >= size) {
      const std::string field = absl::StrCat("token_ids[", i, "]");
      return errors::InvalidField(
          field, absl::StrCat(field, "=", request.token_ids(i),
                              " is not below the vocabulary size ", size));
    }
    ids.push_back(static_cast<int32_t>(request.token_ids(i)));
  }
  response.set_text(serving.text.tokenizer->Decode(
      ids, request.spell_special_tokens() ? text::SpecialTokens::kParsed
                                          : text::SpecialTokens::kAsText));
  return absl::OkStatus();
}

// Parses, answers by `handle`, and ends the call.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* Answer(
    CallbackServerContext* context, const ServiceContext& shared,
    std::string method, const ByteBuffer& request_bytes, ByteBuffer* out,
    absl::Status (*handle)(const Serving&, const Request&, Response&)) {
  return AnswerUnary(context, shared, std::move(method),
                     [&](const Serving& serving) {
                       Request request;
                       if (!ParseFrom(request_bytes, request))
                         return Malformed();
                       Response response;
                       absl::Status status = handle(serving, request, response);
                       if (status.ok()) *out = Serialize(response);
                       return status;
                     });
}

using Base = v1::InferenceService::WithRawCallbackMethod_Generate<
    v1::InferenceService::WithRawCallbackMethod_Score<
        v1::InferenceService::WithRawCallbackMethod_Tokenize<
            v1::InferenceService::WithRawCallbackMethod_Detokenize<
                v1::InferenceService::Service>>>>;

class InferenceService final : public Base {
 public:
  explicit InferenceService(const ServiceContext& shared) : shared_(shared) {}

  grpc::ServerWriteReactor<ByteBuffer>* Generate(
      CallbackServerContext* context, const ByteBuffer* request) override {
    return NewGenerateCall(context, shared_, *request);
  }

  grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>* Score(
      CallbackServerContext* context) override {
    return NewScoreCall(context, shared_);
  }

  grpc::ServerUnaryReactor* Tokenize(CallbackServerContext* context,
                                     const ByteBuffer* request,
                                     ByteBuffer* response) override {
    return Answer(context, shared_, "millrace.v1.InferenceService/Tokenize",
                  *request, response, rpc::Tokenize);
  }

  grpc::ServerUnaryReactor* Detokenize(CallbackServerContext* context,
                                       const ByteBuffer* request,
                                       ByteBuffer* response) override {
    return Answer(context, shared_, "millrace.v1.InferenceService/Detokenize",
                  *request, response, rpc::Detokenize);
  }

 private:
  const ServiceContext& shared_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewInferenceService(
    const ServiceContext& shared) {
  return std::make_unique<InferenceService>(shared);
}

}  // namespace millrace::rpc
