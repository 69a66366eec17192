#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "services/text/jinja/interpreter.h"
#include "services/text/jinja/parser.h"
#include "tests/testing/test_files.h"

namespace millrace::text::jinja {
namespace {

using ::testing::HasSubstr;

Value Content(absl::string_view text) {
  return Value::Of(MarkedText::Of(text, MarkedText::kContent));
}

Dict Variables() {
  return {{"name", Content("World")},
          {"empty", Content("")},
          {"seven", Value::Of(int64_t{7})},
          {"yes", Value::Of(true)},
          {"list", Value::Of(List{Content("a"), Content("b"), Content("c")})},
          {"map", Value::Of(Dict{{"key", Content("value")}})}};
}

absl::StatusOr<MarkedText> RenderMarked(absl::string_view source) {
  const auto block = Parse(source);
  if (!block.ok()) return block.status();
  return Render(*block, Variables(), {});
}

absl::StatusOr<std::string> Render(absl::string_view source) {
  const auto text = RenderMarked(source);
  if (!text.ok()) return text.status();
  return text->bytes;
}

struct Case {
  const char* source;
  const char* text;
};

// What Jinja2 3.1 with trim_blocks and lstrip_blocks prints.
TEST(Jinja, PrintsWhatJinjaPrints) {
  for (const Case& c : {
           Case{"plain", "plain"},
           {"Hello {{ name }}!", "Hello World!"},
           {"{{ 'a' + 'b' ~ 7 }}", "ab7"},
           {"{{ \"it's\\n\" }}|", "it's\n|"},
           {"{{ nothing }}|{{ none }}|{{ true }}", "|None|True"},
           {"{# comment #}x", "x"},
           {"{% if yes %}\nline\n{% endif %}\nend", "line\nend"},
           {"  {% if yes %}\n  line\n  {% endif %}\nend", "  line\nend"},
           {"a {%- if yes -%} b {%- endif %} c", "ab c"},
           {"a\n{{- name -}}\nb", "aWorldb"},
           {"x\n", "x"},
           {"{% if seven == 7 and not empty %}y{% else %}n{% endif %}", "y"},
           {"{% if seven > 7 %}a{% elif seven >= 7 %}b{% endif %}", "b"},
           {"{{ 'yes' if seven < 3 else 'no' }}", "no"},
           {"{{ 'yes' if seven < 3 }}|", "|"},
           {"{% for x in list %}{{ loop.index0 }}{{ x }}"
            "{% if not loop.last %},{% endif %}{% endfor %}",
            "0a,1b,2c"},
           {"{% for x in [] %}x{% else %}none{% endfor %}", "none"},
           {"{% for x in list if x != 'b' %}{{ x }}{{ loop.length }}"
            "{% endfor %}",
            "a2c2"},
           {"{% for k, v in map.items() %}{{ k }}={{ v }}{% endfor %}",
            "key=value"},
           {"{% for x in list %}{% if x == 'b' %}{% break %}{% endif %}{{ x }}"
            "{% endfor %}",
            "a"},
           {"{% set x = 1 %}{% for y in list %}{% set x = 2 %}{% endfor %}"
            "{{ x }}",
            "1"},
           {"{% set ns = namespace(x=1) %}{% for y in list %}"
            "{% set ns.x = ns.x + 1 %}{% endfor %}{{ ns.x }}",
            "4"},
           {"{% set b %}<{{ name }}>{% endset %}{{ b }}{{ b }}",
            "<World><World>"},
           {"{{ list[0] }}{{ list[-1] }}{{ list[1:]|join('+') }}", "acb+c"},
           {"{{ list[::-1]|join }}{{ name[1:3] }}", "cbaor"},
           {"{{ map['key'] }}{{ map.key }}{{ map.get('no', 'd') }}",
            "valuevalued"},
           {"{{ 'key' in map }}{{ 'orl' in name }}{{ 'b' not in list }}",
            "TrueTrueFalse"},
           {"{{ '  x '|trim }}{{ ' y '.strip() }}{{ 'xyx'.lstrip('x') }}",
            "xyyx"},
           {"{{ 'a-b-c'.split('-')[1] }}{{ 'Ab'|upper }}{{ 'Ab'.lower() }}",
            "bABab"},
           {"{{ list|length }}{{ name|length }}", "35"},
           {"{{ nothing|default('d') }}{{ empty|default('e', true) }}", "de"},
           {"{{ name is defined }}{{ nothing is not defined }}"
            "{{ none is none }}{{ name is string }}{{ map is mapping }}",
            "TrueTrueTrueTrueTrue"},
           {"{{ 7 % 2 }}{{ -7 // 2 }}{{ 2 * 3 - 1 }}", "1-45"},
           {"{{ seven is odd }}{{ range(3)|join(',') }}", "True0,1,2"},
           {"{{ name.startswith('Wo') and name.endswith('ld') }}", "True"},
           {"{{ {'a': 1}.a }}", "1"},
           {"{{ name|tojson }}{{ 'a\"b\\n'|tojson }}",
            "\"World\"\"a\\\"b\\n\""},
           {"{{ ('a' 'b') }}", "ab"},
           {"{% generation %}g{% endgeneration %}", "g"},
       }) {
    const auto text = Render(c.source);
    ASSERT_TRUE(text.ok()) << c.source << ": " << text.status();
    EXPECT_EQ(*text, c.text) << c.source;
  }
}

TEST(Jinja, WhatIsNotUnderstoodIsNamed) {
  for (const Case& c : {
           Case{"a\n{% if x", "offset 9: a tag has no end"},
           {"{% macro x() %}{% endmacro %}",
            "if, for, set, break or continue expected, not 'macro'"},
           {"{% include 'x' %}", "not 'include'"},
           {"{{ 'x }}", "offset 3: a text has no end"},
           {"{# x", "a comment has no end"},
           {"{{ ? }}", "unexpected byte 63"},
           {"{% if yes %}", "'endif' is missing"},
           {"{{ 99999999999999999999 }}", "a value expected, not '9999"},
           {"{% endif %}", "not 'endif'"},
           {"{{ name|frobnicate }}", "filter 'frobnicate' of a text is not"},
           {"{{ name.encode() }}", "method 'encode' of a text is not there"},
           {"{{ strftime_now('%Y') }}", "function 'strftime_now' is not there"},
           {"{{ nothing.x }}", "'x' of something undefined"},
           {"{{ list }}", "cannot write a list"},
           {"{{ raise_exception('roles must alternate') }}",
            "refuses: roles must alternate"},
           {"{{ name + 1 }}", "cannot add a number to a text"},
           {"{{ 7 // 0 }}", "7 // 0 is not there"},
           {"{{ 9223372036854775807 + 1 }}", "is not there"},
           {"{% set n = namespace(x=1) %}{% set n.x = [n] %}",
            "a namespace cannot be part of another value"},
       }) {
    const auto text = Render(c.source);
    ASSERT_FALSE(text.ok()) << c.source;
    EXPECT_THAT(text.status().message(), HasSubstr(c.text)) << c.source;
  }
}

TEST(Jinja, WorkIsBounded) {
  // A loop in a loop in a loop ...
  std::string source;
  for (int i = 0; i < 9; ++i) source += "{% for a in range(99999) %}";
  source += "x";
  for (int i = 0; i < 9; ++i) source += "{% endfor %}";
  EXPECT_TRUE(absl::IsResourceExhausted(Render(source).status()));

  // A string that doubles.
  EXPECT_TRUE(absl::IsResourceExhausted(
      Render("{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}"
             "{% set n.x = n.x + n.x %}{% endfor %}")
          .status()));

  // Nesting that would exhaust the stack.
  EXPECT_THAT(
      Render("{{ " + std::string(50'000, '(') + " }}").status().message(),
      HasSubstr("nested too deep"));
  std::string ifs;
  for (int i = 0; i < 4'000; ++i) ifs += "{% if yes %}";
  EXPECT_THAT(Render(ifs).status().message(), HasSubstr("nested too deep"));
  EXPECT_FALSE(Render("{{ " + std::string(50'000, '-') + "1 }}").ok());
  std::string sum = "1";
  for (int i = 0; i < 20'000; ++i) sum += "+1";
  EXPECT_THAT(Render("{{ " + sum + " }}").status().message(),
              HasSubstr("an expression is too long"));
  EXPECT_THAT(Render(std::string(100'000, 'x')).status().message(),
              HasSubstr("at most 65536 are read"));

  // Lists in lists, and lists of what was a list before.
  EXPECT_THAT(Render("{% set n = namespace(x=[]) %}{% for i in range(60) %}"
                     "{% set n.x = [n.x, n.x] %}{% endfor %}")
                  .status()
                  .message(),
              HasSubstr("lists are nested too deep"));
}

TEST(Jinja, KnowsWhatTheTemplateWroteAndWhatAMessageBrought) {
  const auto text = RenderMarked("<{{ name|upper }}>{{ 'x' + name[:1] }}");
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(text->bytes, "<WORLD>xW");
  EXPECT_EQ(text->marks,
            "tccccct"
            "tc");
}

// Whatever the bytes are: an answer, no crash, no hang.
TEST(Jinja, MutatedTemplatesAreAnswered) {
  const std::string whole =
      "{% set ns = namespace(a=1) %}{% for m in list %}{% if loop.first and "
      "m[0] != 'x' %}{{ 'sys\\n' ~ m|trim }}{% elif m is defined %}"
      "{{ list[1:][0].strip() }}{% endif %}{% endfor %}{{ ns.a if ns else 2 }}";
  std::mt19937 random(11);
  const int rounds = testing::FullTests() ? 200'000 : 3'000;
  int understood = 0;
  for (int i = 0; i < rounds; ++i) {
    std::string source = whole;
    for (int n = 1 + random() % 3; n > 0; --n) {
      const size_t at = random() % source.size();
      switch (random() % 3) {
        case 0:
          source[at] = static_cast<char>(random());
          break;
        case 1:
          source.erase(at, 1 + random() % 8);
          break;
        default:
          source.insert(at, source.substr(random() % source.size(), 6));
      }
      if (source.empty()) source = "{";
    }
    understood += Render(source).ok() ? 1 : 0;
  }
  EXPECT_GT(understood, 0);
  EXPECT_LT(understood, rounds);
}

}  // namespace
}  // namespace millrace::text::jinja
