package timespan

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "90s": 90 * time.Second, "1h30m": 90 * time.Minute, "7d": 7 * 24 * time.Hour, "1.5d": 36 * time.Hour, "2w": 14 * 24 * time.Hour,
		"1d12h": 36 * time.Hour, "1w1.5d1m30s": 8*24*time.Hour + 12*time.Hour + 90*time.Second, "106751d23h": (106751*24 + 23) * time.Hour,
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "5", "-1s", "-1d", "d", "NaNd", "Infw", "1e300w", "soon", "1d1w", "1d2d", "1h1d", "1d-1h", "-1d12h", "1d12", "106751d24h", "106752d"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%s: got %v, want an error", text, got)
		}
	}
}
