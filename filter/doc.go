// Package filter decides which messages somebody wants, by expressions in CEL,
// the Common Expression Language, at the speed of a broker.
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
// A [Set] holds many filters and finds those that a message matches in a time
// that grows with the matches and not with the filters.
//
// # Semantics
//
// The answers are those of cel-go. A differential fuzz test holds the package to
// these clauses:
//
//   - CEL-1: A filter that was compiled for a Go type gives the same answer for a
//     value of that type and for its JSON text.
//   - CEL-2: A filter compiled with [Exact] gives the answer, error or not, that
//     cel-go gives over what json.Unmarshal makes of the text, whatever the bytes.
//   - CEL-3: Any other filter gives the same answer for valid text in which no
//     object has two members of one name. Where one has, the first counts.
//   - CEL-4: Without Exact the text is read, and checked, from its beginning up
//     to the end of the last field that the expression needs. Damage behind that
//     place is not noticed; before it, it is an error. A document that is cut off
//     has the answer of the whole document or none. A part that runs on the
//     interpreter needs the whole payload.
//   - CEL-5: A Set reports exactly the filters that match alone.
//
// Without a declared type, a number is a double, as in all of JSON: write
// data.total + 1.0, not data.total + 1. Comparisons do not mind: data.total > 1
// is right.
//
// # Failing
//
// A field that is not there is CEL's error "no such field". A filter that fails
// does not match; [Filter.Eval] gives the error. && and || ignore errors of a
// side that does not matter: false && error is false, true || error is true. To
// ask first, write has(data.total) && data.total > 1.
//
// # Limits
//
// Expressions may come from strangers, and so may payloads. The length and the
// nesting of an expression, the size of its regular expressions, the nesting of
// its macros, the steps that they take and the depth of payloads are limited; see
// the Default constants and the options of these names. Patterns of matches must
// be constants, and headers can only be looked up by name. Evaluation takes time
// in proportion to the expression and, within these limits, to the payload.
//
// # Concurrency
//
// A Filter and a Set may be used by any number of goroutines at once. They do not
// keep the message or its payload. The bytes of a payload must not be written to
// while a filter looks at them.
package filter
