package filter

// maxValidDepth is how deep encoding/json lets values be nested.
const maxValidDepth = 10_000

// ValidJSON reports whether text is valid JSON. The answer is that of json.Valid, in
// a fraction of the time.
func ValidJSON(text []byte) bool {
	valid, _ := checkJSON(text)
	return valid
}

// CompactJSON reports whether text is valid JSON that json.Compact would leave as it
// is: without white space outside of strings.
func CompactJSON(text []byte) bool {
	valid, spaced := checkJSON(text)
	return valid && !spaced
}

func checkJSON(text []byte) (valid, spaced bool) {
	s := scanner{b: text, maxDepth: maxValidDepth}
	s.skipSpace()
	first := s.i
	if !s.skipValue() {
		return false, false
	}
	end := s.i
	s.skipSpace()
	return s.i == len(text), s.spaced || first > 0 || end < len(text)
}
