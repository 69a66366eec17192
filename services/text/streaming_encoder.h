// StreamingEncoder tokenises a text that arrives in pieces: the ids are those
// of the whole text, however it was cut. Holds back what the next piece might
// still change, in bounded memory.
//
//   StreamingEncoder encoder(&tokenizer, SpecialTokens::kAsText);
//   encoder.Add("Hel");  // {}
//   encoder.Add("lo ");  // {19556}
//   encoder.Finish();    // the rest
//
// Not thread-safe.
#ifndef MILLRACE_SERVICES_TEXT_STREAMING_ENCODER_H_
#define MILLRACE_SERVICES_TEXT_STREAMING_ENCODER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/text/tokenizer.h"

namespace millrace::text {

class StreamingEncoder {
 public:
  // `tokenizer` is borrowed and outlives the encoder.
  StreamingEncoder(const Tokenizer* tokenizer, SpecialTokens special)
      : tokenizer_(tokenizer), special_(special) {}

  // Ids that no later piece can change. REQUIRES: valid UTF-8.
  std::vector<int32_t> Add(absl::string_view piece);

  // Ids of what was held back; the encoder is then as new.
  std::vector<int32_t> Finish();

  // Bytes held back.
  size_t held_bytes() const { return held_.size(); }

 private:
  const Tokenizer* tokenizer_;
  SpecialTokens special_;
  std::string held_;
};

}  // namespace millrace::text

#endif  // MILLRACE_SERVICES_TEXT_STREAMING_ENCODER_H_
