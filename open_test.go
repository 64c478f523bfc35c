package hark_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/harkbus/hark"
)

// TestOpenShowsNoSecrets checks that the errors of Open name the scheme and
// nothing that may be a password.
func TestOpenShowsNoSecrets(t *testing.T) {
	tests := []struct {
		url, want string
		kind      error
	}{
		{"foo://u:secret@h", "hark: open foo: unsupported: there is no engine for foo: URLs; this program has mem:", hark.ErrUnsupported},
		{"mem://u:secret@h", "hark: open mem: invalid option: mem: takes nothing more", hark.ErrInvalidOption},
		{"://u:secret@h", "hark: open: invalid option: want a URL that begins with a scheme: mem:", hark.ErrInvalidOption},
		{"secret@h", "hark: open: invalid option: want a URL that begins with a scheme: mem:", hark.ErrInvalidOption},
	}
	for _, tt := range tests {
		_, err := hark.Open(t.Context(), tt.url)
		if !errors.Is(err, tt.kind) || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want %s", tt.url, err, tt.want)
		}
	}
}
