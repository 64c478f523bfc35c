// Package names checks the dot-separated names of topics, channels, notifiers
// and values, and matches them against patterns.
//
// A name is one or more tokens joined by dots. In a pattern the token "*"
// stands for exactly one token and a last token ">" for one or more.
package names

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLen is the longest name or pattern accepted, in bytes.
const MaxLen = 255

// Error says what is wrong with a name or pattern and where.
type Error struct {
	Name   string // the rejected text
	Offset int    // byte offset of the fault in Name
	Reason string // what is wrong there
}

func (e *Error) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("invalid name %q: %s", e.Name, e.Reason)
	}
	return fmt.Sprintf("invalid name %q: %s at byte %d", e.Name, e.Reason, e.Offset)
}

// Check reports whether name is a valid name: no wildcards. The error is an
// *Error.
func Check(name string) error { return check(name, false) }

// CheckPattern reports whether pattern is a valid pattern. A plain name is
// one. The error is an *Error.
func CheckPattern(pattern string) error { return check(pattern, true) }

func check(name string, wild bool) error {
	fault := func(offset int, format string, args ...any) error {
		return &Error{Name: name, Offset: offset, Reason: fmt.Sprintf(format, args...)}
	}
	if name == "" {
		return fault(0, "the name is empty")
	}
	if len(name) > MaxLen {
		return fault(MaxLen, "longer than %d bytes", MaxLen)
	}
	for start := 0; ; {
		token, _, more := strings.Cut(name[start:], ".")
		last := !more
		switch {
		case token == "":
			return fault(start, "empty token")
		case start == 0 && token[0] == '$':
			return fault(0, "leading $ (such names are reserved)")
		case token == "*" || token == ">":
			if !wild {
				return fault(start, "wildcard %q in a name (only patterns have them)", token)
			}
			if token == ">" && !last {
				return fault(start, "%q before the last token", token)
			}
		default:
			if offset, reason := checkToken(token); reason != "" {
				return fault(start+offset, "%s", reason)
			}
		}
		if last {
			return nil
		}
		start += len(token) + 1
	}
}

func checkToken(token string) (offset int, reason string) {
	for i, r := range token {
		switch {
		case r > ' ' && r < utf8.RuneSelf && r != '*' && r != '>' && r != 0x7f:
		case r == utf8.RuneError && !utf8.ValidString(token[i:min(i+utf8.UTFMax, len(token))]):
			return i, "invalid UTF-8"
		case r == '*' || r == '>':
			return i, fmt.Sprintf("%q inside a token", r)
		case unicode.IsSpace(r):
			return i, "white space"
		case unicode.IsControl(r):
			return i, "control character"
		case IsInvisible(r):
			return i, fmt.Sprintf("invisible character %U", r)
		}
	}
	return 0, ""
}

// IsInvisible reports whether a character shows nothing itself but may change how
// the text around it looks, such as its direction: those of the categories Cf and
// Default_Ignorable_Code_Point. With them names that look the same would differ.
func IsInvisible(r rune) bool {
	return unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// IsPattern reports whether s has a wildcard token.
func IsPattern(s string) bool {
	for token := range strings.SplitSeq(s, ".") {
		if token == "*" || token == ">" {
			return true
		}
	}
	return false
}

// Match reports whether name, which must be valid, matches pattern, which
// must be valid. It allocates nothing.
func Match(pattern, name string) bool {
	for {
		p, restP, moreP := strings.Cut(pattern, ".")
		if p == ">" {
			return true
		}
		n, restN, moreN := strings.Cut(name, ".")
		if p != "*" && p != n {
			return false
		}
		if !moreP || !moreN {
			return moreP == moreN
		}
		pattern, name = restP, restN
	}
}

// Covers reports whether a pattern matches all names that another one matches; a
// name matches itself. Both must be valid. It allocates nothing.
func Covers(wide, narrow string) bool {
	for {
		w, restW, moreW := strings.Cut(wide, ".")
		n, restN, moreN := strings.Cut(narrow, ".")
		if w == ">" {
			return true
		}
		if n == ">" || w != "*" && w != n {
			return false
		}
		if !moreW || !moreN {
			return moreW == moreN
		}
		wide, narrow = restW, restN
	}
}
