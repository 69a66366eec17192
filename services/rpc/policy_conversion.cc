#include "services/rpc/policy_conversion.h"

#include <optional>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "services/errors/errors.h"

namespace millrace::rpc {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// "ON_FULL_" of enum OnFull: the name of its zero, without UNSPECIFIED.
std::string EnumPrefix(const EnumDescriptor& type) {
  const std::string& zero = type.FindValueByNumber(0)->name();
  return zero.substr(0, zero.size() - sizeof("UNSPECIFIED") + 1);
}

// The text of a set field; nullopt for an enum's zero, which counts as unset.
std::optional<std::string> ValueText(const Message& message,
                                     const FieldDescriptor* field) {
  const Reflection& reflection = *message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
      return absl::StrCat(reflection.GetUInt32(message, field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrCat(reflection.GetUInt64(message, field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return absl::StrCat(reflection.GetDouble(message, field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.GetBool(message, field) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int number = reflection.GetEnumValue(message, field);
      if (number == 0) return std::nullopt;
      const EnumValueDescriptor* value =
          field->enum_type()->FindValueByNumber(number);
      if (value == nullptr) return absl::StrCat(number);
      return absl::AsciiStrToLower(
          value->name().substr(EnumPrefix(*field->enum_type()).size()));
    }
    default:
      return "unsupported";  // refused by the registry, and by a test of ours
  }
}

bool SetValue(Message& message, const FieldDescriptor* field,
              const std::string& text) {
  const Reflection& reflection = *message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32: {
      uint32_t value;
      if (!absl::SimpleAtoi(text, &value)) return false;
      reflection.SetUInt32(&message, field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      uint64_t value;
      if (!absl::SimpleAtoi(text, &value)) return false;
      reflection.SetUInt64(&message, field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double value;
      if (!absl::SimpleAtod(text, &value)) return false;
      reflection.SetDouble(&message, field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_BOOL: {
      if (text != "true" && text != "false") return false;
      reflection.SetBool(&message, field, text == "true");
      return true;
    }
    case FieldDescriptor::CPPTYPE_ENUM: {
      const EnumDescriptor& type = *field->enum_type();
      const EnumValueDescriptor* value = type.FindValueByName(
          absl::StrCat(EnumPrefix(type), absl::AsciiStrToUpper(text)));
      if (value == nullptr) return false;
      reflection.SetEnum(&message, field, value);
      return true;
    }
    default:
      return false;
  }
}

absl::Status UnknownInside(const Message& message, absl::string_view field) {
  const auto& unknown = message.GetReflection()->GetUnknownFields(message);
  if (unknown.empty()) return absl::OkStatus();
  return errors::InvalidField(
      field,
      absl::StrCat(field, " has field number ", unknown.field(0).number(),
                   ", which this server does not know; GetServerInfo "
                   "lists its policies and their options"));
}

}  // namespace

absl::StatusOr<cache::PolicyConfig> FromProto(const v1::CachePolicy& policy,
                                              absl::string_view field) {
  if (absl::Status known = UnknownInside(policy, field); !known.ok()) {
    return known;
  }
  const Reflection& reflection = *policy.GetReflection();
  const FieldDescriptor* arm = reflection.GetOneofFieldDescriptor(
      policy, policy.GetDescriptor()->FindOneofByName("policy"));
  if (arm == nullptr) {
    return errors::InvalidField(
        field, absl::StrCat(field, " is set but names no policy"));
  }
  const Message& options = reflection.GetMessage(policy, arm);
  const std::string path = absl::StrCat(field, ".", arm->name());
  if (absl::Status known = UnknownInside(options, path); !known.ok()) {
    return known;
  }
  cache::PolicyConfig config{.name = arm->name(), .options = {}};
  for (int i = 0; i < options.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* option = options.GetDescriptor()->field(i);
    if (!options.GetReflection()->HasField(options, option)) continue;
    if (auto text = ValueText(options, option)) {
      config.options.emplace_back(option->name(), *text);
    }
  }
  return config;
}

absl::StatusOr<v1::CachePolicy> ToProto(const cache::PolicyConfig& config) {
  v1::CachePolicy out;
  const FieldDescriptor* arm =
      out.GetDescriptor()->FindFieldByName(config.name);
  if (arm == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("CachePolicy has no arm '", config.name, "'"));
  }
  Message* options = out.GetReflection()->MutableMessage(&out, arm);
  for (const auto& [name, value] : config.options) {
    const FieldDescriptor* option =
        options->GetDescriptor()->FindFieldByName(name);
    if (option == nullptr || !SetValue(*options, option, value)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "CachePolicy.", config.name, " cannot hold ", name, "=", value));
    }
  }
  return out;
}

v1::CachePolicy PolicyFromText(absl::string_view text) {
  const absl::StatusOr<cache::PolicyConfig> config = cache::ParsePolicy(text);
  if (!config.ok()) return {};
  return ToProto(*config).value_or(v1::CachePolicy());
}

}  // namespace millrace::rpc
