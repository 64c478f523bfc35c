package cli

import (
	"os"
	"testing"
)

// TestDocs compares docs/cli.md with the help of the commands, or writes it if
// HARK_UPDATE is set.
func TestDocs(t *testing.T) {
	const file = "../../docs/cli.md"
	want := markdown()
	if os.Getenv("HARK_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != want {
		t.Errorf("docs/cli.md is not what the commands say: make cli writes it (%v)", err)
	}
}
