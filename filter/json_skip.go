package filter

import (
	"encoding/binary"
	"math/bits"
)

// Most of the time that it takes to find a field is spent in the methods of
// this file: they skip and check what no expression asks for.

// key moves from after the opening brace of an object (if first is true) or
// from after a member's value to the first byte of the next member's value, and
// returns the position of that member's name. At the end of the object, more is
// false and the position is after the closing brace.
func (s *scanner) key(first bool) (start, end int, flags textFlags, more, ok bool) {
	i, c := s.token(s.i)
	if c == '}' {
		s.i = i + 1
		s.depth--
		return 0, 0, 0, false, true
	}
	if !first {
		if c != ',' {
			return 0, 0, 0, false, false
		}
		i, c = s.token(i + 1)
	}
	if c != '"' {
		return 0, 0, 0, false, false
	}
	start, end = i+1, 0
	if i+9 < len(s.b) {
		// Most names have fewer than eight characters, and so end in this word.
		// The bits below the lowest bit of stop are those that stop-1 has and
		// stop lacks.
		w := binary.LittleEndian.Uint64(s.b[i+1:])
		stop := stops(w)
		at := i + 1 + bits.TrailingZeros64(stop)>>3
		if s.b[at] == '"' && w&highs&(stop-1)&^stop == 0 {
			end = at
		}
	}
	if end > 0 {
		i = end + 1
	} else {
		s.i = start
		if _, end, flags, ok = s.stringEnd(); !ok {
			return 0, 0, 0, false, false
		}
		i = s.i
	}
	i, c = s.token(i)
	if c != ':' {
		return 0, 0, 0, false, false
	}
	s.i, _ = s.token(i + 1)
	return start, end, flags, true, true
}

// token returns the first position from i on that is not white space, and the
// byte there, or 0 at the end of the text.
func (s *scanner) token(i int) (int, byte) {
	if i < len(s.b) && s.b[i] > ' ' {
		return i, s.b[i]
	}
	return s.tokenSlow(i)
}

func (s *scanner) tokenSlow(i int) (int, byte) {
	for i < len(s.b) {
		if c := s.b[i]; !isSpace(c) {
			return i, c
		}
		i++
	}
	return i, 0
}

// nextElement moves to the first byte of the next element of an array, or past
// its closing bracket.
func (s *scanner) nextElement(first bool) (more, ok bool) {
	s.skipSpace()
	if s.i >= len(s.b) {
		return false, false
	}
	c := s.b[s.i]
	if c == ']' {
		s.i++
		s.depth--
		return false, true
	}
	if first {
		return true, true
	}
	if c != ',' {
		return false, false
	}
	s.i++
	s.skipSpace()
	return true, true
}

func isSpace(c byte) bool {
	return c <= ' ' && (c == ' ' || c == '\n' || c == '\r' || c == '\t')
}

func (s *scanner) enter() bool {
	s.depth++
	if s.depth > s.maxDepth {
		s.tooDeep = true
		return false
	}
	return true
}

// skipValue skips a value whose first byte is at the position.
func (s *scanner) skipValue() bool {
	if s.i >= len(s.b) {
		return false
	}
	switch s.b[s.i] {
	case '"':
		s.i = skipString(s.b, s.i+1)
		return s.i > 0
	case '{':
		s.i++
		return s.enter() && s.skipMembers(true)
	case '[':
		s.i++
		return s.enter() && s.skipElements()
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	}
	_, _, ok := s.numberEnd()
	return ok
}

// stops returns a word that has the top bit of a byte set if that byte of w is
// a quote, a backslash or a control character. Only the lowest bit is reliable;
// it marks the first such byte.
func stops(w uint64) uint64 {
	quote, escape := w^ones*'"', w^ones*'\\'
	return ((quote - ones) | (escape - ones) | (w - ones*0x20)) &^ w & highs
}

// pastString is skipString with the first word checked inline in the caller.
// Most strings end within that word.
func pastString(b []byte, i int) int {
	if i+8 < len(b) {
		i += bits.TrailingZeros64(stops(binary.LittleEndian.Uint64(b[i:]))) >> 3
		if b[i] == '"' {
			return i + 1
		}
	}
	return skipString(b, i)
}

// skipNumber returns the position after a number that needs no closer look: one
// with a few digits and perhaps a fraction. It returns 0 for all others.
func skipNumber(b []byte, i int) int {
	start := i
	if b[i] == '-' {
		i++
	}
	first := i
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	if i == first || b[first] == '0' && i > first+1 {
		return 0
	}
	if i < len(b) && b[i] == '.' {
		i++
		point := i
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
		if i == point {
			return 0
		}
	}
	if i >= len(b) || b[i]|0x20 == 'e' || i-start > 300 {
		return 0
	}
	return i
}

// skipString returns the position after the closing quote of the string that
// contains i, or -1 if there is none.
func skipString(b []byte, i int) int {
	for {
		for i+8 <= len(b) {
			if stop := stops(binary.LittleEndian.Uint64(b[i:])); stop != 0 {
				i += bits.TrailingZeros64(stop) >> 3
				break
			}
			i += 8
		}
		if i >= len(b) {
			return -1
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c == '\\':
			if i = skipEscape(b, i); i < 0 {
				return -1
			}
		case c < 0x20:
			return -1
		default:
			i++
		}
	}
}

// skipEscape returns the position after the escape sequence at i, or -1.
func skipEscape(b []byte, i int) int {
	if i+1 >= len(b) {
		return -1
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		if i+6 <= len(b) && hex4(b[i+2:i+6]) >= 0 {
			return i + 6
		}
	}
	return -1
}

// skipMembers skips the rest of an object. first reports whether the position
// is right after the opening brace rather than after a member.
func (s *scanner) skipMembers(first bool) bool {
	if first {
		return s.skipRest(inObject)
	}
	return s.skipRest(behindMember)
}

// skipElements skips the rest of an array, starting after its opening bracket.
func (s *scanner) skipElements() bool { return s.skipRest(inArray) }

// skipPlace is where skipRest starts.
type skipPlace uint8

const (
	inObject skipPlace = iota
	behindMember
	inArray
)

// skipLevels is how many nested containers one run of skipRest keeps track of.
const skipLevels = 64

// skipRest skips to the end of the container that the position is in. It is a
// single loop that keeps the kinds of the nested containers as bits of a word.
func (s *scanner) skipRest(from skipPlace) bool {
	b, i := s.b, s.i
	objects, level := uint64(1), 1 // bit 0: the innermost container is an object
	if from == inArray {
		objects = 0
	}
	first := from != behindMember
	for {
		// After an opening bracket or after a value.
		var c byte
		i, c = s.next(b, i)
		object := objects&1 != 0
		if c == '}' && object || c == ']' && !object {
			i++
			s.depth--
			objects >>= 1
			if level--; level == 0 {
				s.i = i
				return true
			}
			first = false
			continue
		}
		if !first {
			if c != ',' {
				return false
			}
			i, c = s.next(b, i+1)
		}
		first = false
		if object {
			if c != '"' {
				return false
			}
			if i = pastString(b, i+1); i < 0 {
				return false
			}
			if i, c = s.next(b, i); c != ':' {
				return false
			}
			i, c = s.next(b, i+1)
		}
		switch c {
		case 0: // the end of the text, and no value begins with this byte
			return false
		case '"':
			if i = pastString(b, i+1); i < 0 {
				return false
			}
		case '{', '[':
			if !s.enter() {
				return false
			}
			i++
			if level == skipLevels {
				if s.i = i; !s.skipRest(within(c)) {
					return false
				}
				i = s.i
				continue
			}
			objects <<= 1
			if c == '{' {
				objects |= 1
			}
			level++
			first = true
		default:
			if end := skipNumber(b, i); end > 0 {
				i = end
				continue
			}
			if s.i = i; !s.skipValue() {
				return false
			}
			i = s.i
		}
	}
}

// within returns the place after an opening bracket.
func within(bracket byte) skipPlace {
	if bracket == '[' {
		return inArray
	}
	return inObject
}

// next is token for skipRest: it also notes white space.
func (s *scanner) next(b []byte, i int) (int, byte) {
	if i < len(b) && b[i] > ' ' {
		return i, b[i]
	}
	return s.nextSlow(b, i)
}

func (s *scanner) nextSlow(b []byte, i int) (int, byte) {
	for ; i < len(b); i++ {
		if c := b[i]; !isSpace(c) {
			return i, c
		}
		s.spaced = true
	}
	return i, 0
}
