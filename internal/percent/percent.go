// Package percent writes and reads values of headers in the way that the bindings
// of CloudEvents to HTTP and NATS ask for: spaces, double quotes, percent signs and
// all that is not printable ASCII are percent-encoded.
package percent

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Encode writes a value. One that needs no encoding is returned as it is.
func Encode(s string) string {
	i := 0
	for i < len(s) && !mustEncode(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	b.WriteString(s[:i])
	for ; i < len(s); i++ {
		if c := s[i]; mustEncode(c) {
			b.WriteByte('%')
			WriteHex(&b, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func mustEncode(c byte) bool { return c <= ' ' || c >= 0x7f || c == '"' || c == '%' }

const upperHex = "0123456789ABCDEF"

// WriteHex writes the two digits of a byte.
func WriteHex(b *strings.Builder, c byte) {
	b.WriteByte(upperHex[c>>4])
	b.WriteByte(upperHex[c&15])
}

// Decode reads a value that is text in UTF-8, as Encode writes it, or as older
// bindings did, in double quotes.
func Decode(s string) (string, error) {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = unquote(s[1 : len(s)-1])
	}
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	b, err := Bytes(s)
	if err == nil && !utf8.Valid(b) {
		err = fmt.Errorf("%q is not percent-encoded UTF-8", s)
	}
	return string(b), err
}

// Bytes reads a value of any bytes.
func Bytes(s string) ([]byte, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0 {
			return nil, fmt.Errorf("%q is not percent-encoded at byte %d", s, i)
		}
		b = append(b, byte(unhex(s[i+1])<<4|unhex(s[i+2])))
		i += 2
	}
	return b, nil
}

// unquote resolves the backslashes of a quoted string.
func unquote(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
