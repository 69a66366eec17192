// Messages in their text form: Parse<v1::SamplingParams>("temperature: 0").
#ifndef MILLRACE_TESTS_SERVICES_RPC_PARSE_TEXT_H_
#define MILLRACE_TESTS_SERVICES_RPC_PARSE_TEXT_H_

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>

namespace millrace {

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message))
      << text;
  return message;
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_SERVICES_RPC_PARSE_TEXT_H_
