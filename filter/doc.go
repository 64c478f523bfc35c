// Package filter selects messages by expressions in CEL, the Common Expression
// Language, at the speed of a broker.
//
//	f, err := filter.Compile(`type == "order.placed" && data.total > 100.0`)
//	sub, err := orders.Subscribe(handle, hark.Where(f))
//
// # Overview
//
// An expression sees the variables id, source, type, subject, topic and key,
// which are strings, time, a timestamp, headers["name"], and data, the payload.
// [Compile] parses and checks it with cel-go and turns it into closures over the
// fields that it names. [Filter.Match] takes these fields from JSON text, in one
// pass that ends when all of them are found, or from a Go value, and does not
// allocate. What the closures do not cover, such as the macros filter and map,
// runs on cel-go's interpreter; [Filter.Explain] says which parts do. [For]
// declares the Go type of the payload, so that a misspelt field is an error when
// the expression is compiled. Without it, a payload that is a Go value is encoded
// as JSON first, which allocates: in process, declare the type.
//
// A [Set] holds many filters and finds those that match a message in time that
// grows with the number of matches, not of filters.
//
// # Semantics
//
// The answers are those of cel-go. A differential fuzz test checks these
// clauses:
//
//   - CEL-1: A filter compiled for a Go type gives the same answer for a value
//     of that type and for its JSON text.
//   - CEL-2: A filter compiled with [Exact] gives the same answer, error or
//     not, as cel-go gives for the result of json.Unmarshal, whatever the
//     bytes.
//   - CEL-3: Any other filter gives the same answer for valid text in which no
//     object has two members with the same name. If one does, the first
//     member counts.
//   - CEL-4: Without Exact, the text is read and checked from its beginning to
//     the end of the last field that the expression needs. Damage after that
//     point is not noticed; before it, it is an error. A truncated document has
//     the same answer as the whole document, or none. A part that runs on the
//     interpreter needs the whole payload.
//   - CEL-5: A Set reports exactly those filters that match on their own.
//
// Without a declared type, every number is a double, as in JSON: write
// data.total + 1.0, not data.total + 1. Comparisons accept whole numbers too:
// data.total > 1 is right.
//
// # Failing
//
// A missing field is CEL's error "no such field". A filter that fails does not
// match; [Filter.Eval] returns the error. && and || ignore errors of a side that
// does not matter: false && error is false, true || error is true. To check
// first, write has(data.total) && data.total > 1.
//
// # Limits
//
// Expressions and payloads may come from untrusted sources. The length and the
// nesting of an expression, the size of its regular expressions, the nesting of
// its macros, the steps that they take and the depth of payloads are limited;
// see the Default constants and the options of these names. Patterns of matches
// must be constants, and headers can only be looked up by name. Evaluation takes
// time in proportion to the expression and, within these limits, to the payload.
//
// # Concurrency
//
// A Filter and a Set are safe for concurrent use. They do not keep the message
// or its payload. The bytes of a payload must not change while a filter
// evaluates it.
package filter
