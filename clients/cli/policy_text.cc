#include "clients/cli/policy_text.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace millrace::cli {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::string FieldNames(const Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) {
    names.push_back(type.field(i)->name());
  }
  return names.empty() ? "none" : absl::StrJoin(names, ", ");
}

// ON_FULL_STOP -> "stop".
std::string ChoiceName(const EnumValueDescriptor& value) {
  const std::string prefix = absl::StrCat(
      absl::StripSuffix(value.type()->value(0)->name(), "UNSPECIFIED"));
  return absl::AsciiStrToLower(absl::StripPrefix(value.name(), prefix));
}

const EnumValueDescriptor* FindChoice(const EnumDescriptor& type,
                                      absl::string_view name) {
  for (int i = 1; i < type.value_count(); ++i) {
    if (ChoiceName(*type.value(i)) == name) return type.value(i);
  }
  return nullptr;
}

absl::Status BadValue(const FieldDescriptor& field, absl::string_view value,
                      absl::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat(
      "cache policy option ", field.name(), "=", value, ": ", wanted));
}

absl::Status SetOption(const FieldDescriptor& field, absl::string_view value,
                       Message& policy) {
  const auto& reflection = *policy.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32: {
      uint32_t number = 0;
      if (!absl::SimpleAtoi(value, &number)) {
        return BadValue(field, value, "not a number of tokens");
      }
      reflection.SetUInt32(&policy, &field, number);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      if (value != "true" && value != "false") {
        return BadValue(field, value, "neither true nor false");
      }
      reflection.SetBool(&policy, &field, value == "true");
      return absl::OkStatus();
    case FieldDescriptor::CPPTYPE_ENUM: {
      const auto* choice = FindChoice(*field.enum_type(), value);
      if (choice == nullptr) return BadValue(field, value, "no such choice");
      reflection.SetEnum(&policy, &field, choice);
      return absl::OkStatus();
    }
    default:
      return BadValue(field, value, "cannot be given as text");
  }
}

absl::Status SetOptions(absl::string_view options, Message& policy) {
  const Descriptor& type = *policy.GetDescriptor();
  for (absl::string_view option : absl::StrSplit(options, ',')) {
    const std::pair<std::string, std::string> pair =
        absl::StrSplit(option, absl::MaxSplits('=', 1));
    const FieldDescriptor* field = type.FindFieldByName(pair.first);
    if (field == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("cache policy has no option '", pair.first,
                       "'; its options: ", FieldNames(type)));
    }
    const absl::Status set = SetOption(*field, pair.second, policy);
    if (!set.ok()) return set;
  }
  return absl::OkStatus();
}

std::string OptionText(const FieldDescriptor& field, const Message& policy) {
  const auto& reflection = *policy.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
      return absl::StrCat(reflection.GetUInt32(policy, &field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.GetBool(policy, &field) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return ChoiceName(*reflection.GetEnum(policy, &field));
    default:
      return "?";
  }
}

}  // namespace

absl::StatusOr<v1::CachePolicy> ParsePolicy(absl::string_view text) {
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  v1::CachePolicy policy;
  const FieldDescriptor* arm =
      v1::CachePolicy::descriptor()->FindFieldByName(parts.first);
  if (arm == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown cache policy '", parts.first, "'; there are ",
                     FieldNames(*v1::CachePolicy::descriptor())));
  }
  Message& options = *policy.GetReflection()->MutableMessage(&policy, arm);
  if (absl::StrContains(text, ":")) {
    const absl::Status set = SetOptions(parts.second, options);
    if (!set.ok()) return set;
  }
  return policy;
}

std::string PolicyText(const v1::CachePolicy& policy) {
  const auto& reflection = *policy.GetReflection();
  std::vector<const FieldDescriptor*> arms;
  reflection.ListFields(policy, &arms);
  if (arms.empty()) return "";
  const Message& options = reflection.GetMessage(policy, arms[0]);
  std::vector<const FieldDescriptor*> fields;
  options.GetReflection()->ListFields(options, &fields);
  std::vector<std::string> texts;
  for (const FieldDescriptor* field : fields) {
    texts.push_back(
        absl::StrCat(field->name(), "=", OptionText(*field, options)));
  }
  return absl::StrCat(arms[0]->name(), texts.empty() ? "" : ":",
                      absl::StrJoin(texts, ","));
}

}  // namespace millrace::cli
