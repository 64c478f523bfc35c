package filter

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads JSON text. It accepts exactly what encoding/json accepts. A
// method that finds damage returns false and leaves the position undefined.
type scanner struct {
	b []byte
	i int

	depth    int // containers open at i
	maxDepth int // a greater depth is damage
	// checkRange treats a number that does not fit in a float64 as damage, as
	// encoding/json does when it decodes into an interface.
	checkRange bool
	tooDeep    bool
	spaced     bool // skipRest has skipped white space

	// scratch holds decoded strings, and the strings handed out share its
	// memory. It only grows by append, so older strings stay intact.
	scratch []byte
}

// textFlags describe the contents of a JSON string.
type textFlags uint8

const (
	textEscaped textFlags = 1 << iota
	textNonASCII
)

func (s *scanner) skipSpace() {
	b, i := s.b, s.i
	for i < len(b) && b[i] <= ' ' && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	s.i = i
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// stringEnd reads a string whose opening quote has been read, and moves past
// its closing quote.
func (s *scanner) stringEnd() (start, end int, flags textFlags, ok bool) {
	b, i := s.b, s.i
	start = i
	for {
		// Skip eight bytes at a time as long as none of them is a quote, a
		// backslash or a control character.
		for i+8 <= len(b) {
			w := binary.LittleEndian.Uint64(b[i:])
			stop := stops(w)
			if w&highs != 0 {
				flags |= textNonASCII
			}
			if stop != 0 {
				i += bits.TrailingZeros64(stop) >> 3
				break
			}
			i += 8
		}
		if i >= len(b) {
			return 0, 0, 0, false
		}
		switch c := b[i]; {
		case c == '"':
			s.i = i + 1
			return start, i, flags, true
		case c == '\\':
			flags |= textEscaped
			if i+1 >= len(b) {
				return 0, 0, 0, false
			}
			switch b[i+1] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				i += 2
			case 'u':
				if i+6 > len(b) || hex4(b[i+2:i+6]) < 0 {
					return 0, 0, 0, false
				}
				i += 6
			default:
				return 0, 0, 0, false
			}
		case c < 0x20:
			return 0, 0, 0, false
		default:
			if c >= utf8.RuneSelf {
				flags |= textNonASCII
			}
			i++
		}
	}
}

func hex4(b []byte) rune {
	var r rune
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// text returns the decoded string between start and end. It returns the bytes
// in place if they need no decoding, and otherwise decodes them into scratch.
func (s *scanner) text(start, end int, flags textFlags) string {
	raw := s.b[start:end]
	if flags == 0 || flags == textNonASCII && utf8.Valid(raw) {
		return viewString(raw)
	}
	at := len(s.scratch)
	s.scratch = appendDecoded(s.scratch, raw)
	return viewString(s.scratch[at:])
}

// appendDecoded appends the decoded contents of a JSON string to dst. Invalid
// UTF-8 and unpaired surrogates become U+FFFD, as in encoding/json.
func appendDecoded(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		switch c := raw[i]; {
		case c == '\\':
			switch raw[i+1] {
			case 'u':
				r := hex4(raw[i+2 : i+6])
				i += 6
				if utf16.IsSurrogate(r) {
					low := rune(-1)
					if i+6 <= len(raw) && raw[i] == '\\' && raw[i+1] == 'u' {
						low = hex4(raw[i+2 : i+6])
					}
					if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
						i += 6
						r = pair
					} else {
						r = utf8.RuneError
					}
				}
				dst = utf8.AppendRune(dst, r)
				continue
			case 'b':
				dst = append(dst, '\b')
			case 'f':
				dst = append(dst, '\f')
			case 'n':
				dst = append(dst, '\n')
			case 'r':
				dst = append(dst, '\r')
			case 't':
				dst = append(dst, '\t')
			default:
				dst = append(dst, raw[i+1])
			}
			i += 2
		case c < utf8.RuneSelf:
			dst = append(dst, c)
			i++
		default:
			r, n := utf8.DecodeRune(raw[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
		}
	}
	return dst
}

// numberEnd reads a number and returns its text. integer reports whether it has
// neither a fraction nor an exponent.
func (s *scanner) numberEnd() (text []byte, integer, ok bool) {
	b, i := s.b, s.i
	start := i
	if i < len(b) && b[i] == '-' {
		i++
	}
	switch {
	case i >= len(b):
		return nil, false, false
	case b[i] == '0':
		i++
	case b[i] >= '1' && b[i] <= '9':
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
	default:
		return nil, false, false
	}
	integer = true
	if i < len(b) && b[i] == '.' {
		integer = false
		i++
		at := i
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
		if i == at {
			return nil, false, false
		}
	}
	exponent := false
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		integer, exponent = false, true
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		at := i
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
		if i == at {
			return nil, false, false
		}
	}
	if i == len(b) && s.depth > 0 {
		return nil, false, false // further digits may have been cut off
	}
	s.i = i
	text = b[start:i]
	// Only these can exceed the largest float64, which has 309 digits.
	if s.checkRange && (exponent || len(text) > 300) {
		if _, err := strconv.ParseFloat(viewString(text), 64); err != nil {
			return nil, false, false
		}
	}
	return text, integer, true
}

var pow10 = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
}

// parseFloat converts the text of a JSON number. Short decimals, which most
// numbers are, are the exact quotient of two floats; strconv converts the
// others.
func parseFloat(text []byte) (float64, bool) {
	i, neg := 0, false
	if text[0] == '-' {
		i, neg = 1, true
	}
	if len(text)-i <= 16 {
		var mantissa uint64
		point := -1
		for ; i < len(text); i++ {
			c := text[i] - '0'
			if c > 9 {
				if text[i] == '.' {
					point = i + 1
					continue
				}
				break
			}
			mantissa = mantissa*10 + uint64(c)
		}
		if i == len(text) && mantissa < 1<<53 {
			f := float64(mantissa)
			if point >= 0 {
				f /= pow10[len(text)-point]
			}
			if neg {
				f = -f
			}
			return f, true
		}
	}
	f, err := strconv.ParseFloat(viewString(text), 64)
	return f, err == nil
}

func (s *scanner) literal(word string) bool {
	if len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		return false
	}
	s.i += len(word)
	return true
}
