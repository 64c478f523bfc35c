package names

import (
	"errors"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	tests := []struct {
		name    string
		pattern bool
		offset  int // -1 for a valid name
		reason  string
	}{
		{"orders", false, -1, ""},
		{"orders.placed.eu-1", false, -1, ""},
		{"größe.日本", false, -1, ""},
		{"a.$b", false, -1, ""},
		{"", false, 0, "empty"},
		{".a", false, 0, "empty token"},
		{"a..b", false, 2, "empty token"},
		{"a.", false, 2, "empty token"},
		{"a b", false, 1, "white space"},
		{"a.b\tc", false, 3, "white space"},
		{"a.b\x00", false, 3, "control"},
		{"a.\xff", false, 2, "UTF-8"},
		{"a.\ufffd", false, -1, ""},
		{"a.b\x7f", false, 3, "control"},
		{"a.b\u009b", false, 3, "control"},
		{"a.\u202eb", false, 2, "invisible character U+202E"},
		{"a.\u2066b", true, 2, "invisible character U+2066"},
		{"a\u200b", false, 1, "invisible character U+200B"},
		{"a\ufeff", false, 1, "invisible character U+FEFF"},
		{"a\u00ad", false, 1, "invisible character U+00AD"},
		{"a\ufe0f", false, 1, "invisible character U+FE0F"},
		{"a\u3164", false, 1, "invisible character U+3164"},
		{"a\U000e0041", false, 1, "invisible character U+E0041"},
		{"e\u0301.👩", false, -1, ""},
		{"$sys.x", false, 0, "reserved"},
		{"a.*", false, 2, "wildcard"},
		{"a.*", true, -1, ""},
		{"*.b", true, -1, ""},
		{">", true, -1, ""},
		{"a.>", true, -1, ""},
		{"a.>.b", true, 2, "before the last"},
		{"a.b*", true, 3, "inside a token"},
		{"a.b>", false, 3, "inside a token"},
		{strings.Repeat("a", MaxLen), false, -1, ""},
		{strings.Repeat("a", MaxLen+1), false, MaxLen, "longer"},
	}
	for _, tt := range tests {
		err := Check(tt.name)
		if tt.pattern {
			err = CheckPattern(tt.name)
		}
		var fault *Error
		switch {
		case tt.offset < 0:
			if err != nil {
				t.Errorf("check %q: got %v, want none", tt.name, err)
			}
		case !errors.As(err, &fault):
			t.Errorf("check %q: got %v, want a fault at %d", tt.name, err, tt.offset)
		case fault.Offset != tt.offset || !strings.Contains(fault.Reason, tt.reason):
			t.Errorf("check %q: got %d %q, want %d %q", tt.name, fault.Offset, fault.Reason, tt.offset, tt.reason)
		}
	}
}

func TestMatch(t *testing.T) {
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"a.b", "a.b", true},
		{"a.b", "a", false},
		{"a", "a.b", false},
		{"a.*", "a.b", true},
		{"a.*", "a", false},
		{"a.*", "a.b.c", false},
		{"*.b", "a.b", true},
		{"*", "a", true},
		{"*", "a.b", false},
		{">", "a", true},
		{">", "a.b.c", true},
		{"a.>", "a", false},
		{"a.>", "a.b", true},
		{"a.>", "a.b.c", true},
		{"a.*.c", "a.b.c", true},
		{"a.*.c", "a.b.d", false},
		{"*.*.>", "a.b.c", true},
		{"*.*.>", "a.b", false},
	}
	for _, tt := range tests {
		if got := Match(tt.pattern, tt.name); got != tt.want {
			t.Errorf("Match(%q, %q): got %v, want %v", tt.pattern, tt.name, got, tt.want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { Match("a.*.c.>", "a.b.c.d.e") }); n != 0 {
		t.Errorf("Match allocates %v times", n)
	}
}

func TestCovers(t *testing.T) {
	for _, tt := range []struct {
		wide, narrow string
		want         bool
	}{
		{"a.b", "a.b", true},
		{"a.b", "a.c", false},
		{"a", "a.b", false},
		{"a.b", "a", false},
		{"a.*", "a.b", true},
		{"a.*", "a.*", true},
		{"a.*", "a.>", false},
		{"a.b", "a.*", false},
		{"a.*", "a.b.c", false},
		{">", "a.*", true},
		{">", ">", true},
		{"a.>", "a.*.c", true},
		{"a.>", "a", false},
		{"a.>", ">", false},
		{"*.b", "a.>", false},
	} {
		if got := Covers(tt.wide, tt.narrow); got != tt.want {
			t.Errorf("Covers(%q, %q): got %v, want %v", tt.wide, tt.narrow, got, tt.want)
		}
	}
}

// FuzzCheck compares Match with a slow and obvious definition, for every name
// and pattern that the checks accept.
func FuzzCheck(f *testing.F) {
	f.Add("a.*.>", "a.b.c")
	f.Add("a..b", "\xff")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if CheckPattern(pattern) != nil || Check(name) != nil {
			return
		}
		if got, want := Match(pattern, name), matchTokens(strings.Split(pattern, "."), strings.Split(name, ".")); got != want {
			t.Errorf("Match(%q, %q): got %v, want %v", pattern, name, got, want)
		}
		if IsPattern(name) {
			t.Errorf("the name %q is taken for a pattern", name)
		}
	})
}

func matchTokens(pattern, name []string) bool {
	if len(pattern) == 0 {
		return len(name) == 0
	}
	if pattern[0] == ">" {
		return len(name) > 0
	}
	return len(name) > 0 && (pattern[0] == "*" || pattern[0] == name[0]) && matchTokens(pattern[1:], name[1:])
}
