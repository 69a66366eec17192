// Renders a parsed template: the subset of Jinja2 that chat templates use.
//
//   auto block = Parse("{{ greeting | upper }}");
//   Render(*block, {{"greeting", Value::OfTemplate("hi")}}, {});  // "HI"
//
// There is: text, output, if, for (with loop.*, if, else, break, continue),
// set, namespace, the operators, slices, conditions; the filters trim, length,
// upper, lower, tojson, string, default, first, last, list, join, safe; the
// tests defined, none, string, mapping, iterable, sequence, number, boolean,
// true, false; raise_exception, range; methods of texts. Whatever else a
// template uses is an error when it is reached.
#ifndef MILLRACE_SERVICES_TEXT_JINJA_INTERPRETER_H_
#define MILLRACE_SERVICES_TEXT_JINJA_INTERPRETER_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "services/text/jinja/syntax.h"

namespace millrace::text::jinja {

// Templates are untrusted programs.
struct Limits {
  int64_t steps = 100'000;  // expressions evaluated
  int64_t bytes = 4 << 20;  // made or looked through, output included
};

// INVALID_ARGUMENT: the template raised an exception, did what is not there or
// makes no sense. RESOURCE_EXHAUSTED: beyond the limits.
absl::StatusOr<MarkedText> Render(const Block& block, const Dict& variables,
                                  const Limits& limits);

}  // namespace millrace::text::jinja

#endif  // MILLRACE_SERVICES_TEXT_JINJA_INTERPRETER_H_
