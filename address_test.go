package hark

import (
	"errors"
	"hash/maphash"
	"strings"
	"testing"
)

func BenchmarkHashName(b *testing.B) {
	name := "counter.incremented"
	b.Run("hashName", func(b *testing.B) {
		for b.Loop() {
			hashName(name)
		}
	})
	b.Run("maphash", func(b *testing.B) {
		seed := maphash.MakeSeed()
		for b.Loop() {
			maphash.String(seed, name)
		}
	})
}

func TestParseAddress(t *testing.T) {
	tests := []struct {
		text   string
		name   string // the fault that parseName finds; empty if none
		target string // the fault that parseTarget finds
		want   address
	}{
		{"a", "", "", address{owner: "a"}},
		{"a.b-c.d", "", "", address{owner: "a.b-c.d"}},
		{"counter.Counter#On", "", "", address{owner: "counter.Counter", member: "On"}},
		{"a#On:func1", "", "", address{owner: "a", member: "On:func1"}},
		{"a#On-1a2b3c4d", "ID of a listener", "", address{owner: "a", member: "On", id: 0x1a2b3c4d, single: true}},
		{"a#1a2b3c4d", "ID of a listener", "", address{owner: "a", id: 0x1a2b3c4d, single: true}},
		{"a.*", "wildcard", "", address{owner: "a.*", wild: true}},
		{"*.Counter#On", "wildcard", "", address{owner: "*.Counter", member: "On", wild: true}},
		{">#On", "wildcard", "", address{owner: ">", member: "On", wild: true}},
		{"", "empty at byte 0", "empty at byte 0", address{}},
		{"a..b", "empty token at byte 2", "empty token at byte 2", address{}},
		{"#On", "empty at byte 0", "empty at byte 0", address{}},
		{"a#", "no method after # at byte 2", "no method after # at byte 2", address{}},
		{"a#-1a2b3c4d", "no method", "no method", address{}},
		{"a#On-", "no ID of a listener", "no ID of a listener", address{}},
		{"a#On-1a2b3c4", "no ID", "no ID", address{}},
		{"a#On-1A2B3C4D", "no ID", "no ID", address{}},
		{"a#On-aaaaaaaa", "no ID", "no ID", address{}},
		{"a#On-+1a2b3c4", "no ID", "no ID", address{}},
		{"a#1x", "no ID", "no ID", address{}},
		{"a#On.Off", `'.' in the name of a method at byte 4`, `'.' in the name of a method`, address{}},
		{"a#b#c", `'#' in the name of a method at byte 3`, `'#' in`, address{}},
		{"a#*", `'*' in the name of a method`, `'*' in the name of a method`, address{}},
		{"a#O n", "white space at byte 3", "white space at byte 3", address{}},
		{"a#1n-1a2b3c4d", "begins with a digit", "begins with a digit", address{}},
		{"*#1a2b3c4d", "wildcard", "listener in a pattern", address{}},
		{strings.Repeat("a", 255), "", "", address{owner: strings.Repeat("a", 255)}},
		{strings.Repeat("a", 255) + "#b", "longer than 255", "longer than 255", address{}},
		{strings.Repeat("a", 250) + "#b-1a2b3c4d", "ID of a listener", "", address{owner: strings.Repeat("a", 250), member: "b", id: 0x1a2b3c4d, single: true}},
	}
	for _, tt := range tests {
		for what, parse := range map[string]func(string) (address, error){"parseName": parseName, "parseTarget": parseTarget} {
			fault := tt.name
			if what == "parseTarget" {
				fault = tt.target
			}
			got, err := parse(tt.text)
			if fault != "" {
				if !errors.Is(err, ErrInvalidName) || !strings.Contains(err.Error(), fault) {
					t.Errorf("%s(%q): got %v, want ErrInvalidName with %q", what, tt.text, err, fault)
				}
				continue
			}
			if err != nil || got.owner != tt.want.owner || got.member != tt.want.member ||
				got.id != tt.want.id || got.single != tt.want.single || got.wild != tt.want.wild {
				t.Errorf("%s(%q): got %+v, %v, want %+v", what, tt.text, got, err, tt.want)
			}
			if got.single && formatID(got.owner, got.member, got.id) != tt.text {
				t.Errorf("formatID: got %s, want %s", formatID(got.owner, got.member, got.id), tt.text)
			}
		}
	}
}
