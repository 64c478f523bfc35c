package cli

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestComplete(t *testing.T) {
	noContexts(t)
	if code, _, errs := call(t, "", "context", "add", "prod", "hark://prod"); code != exitOK {
		t.Fatal(errs)
	}
	tests := []struct {
		words string // the last one is to be completed
		want  string // the first candidates
	}{
		{"ch", "chan"},
		{"chan ", "send receive close info remove"},
		{"chan re", "receive remove"},
		{"chan receive --cou", "--count"},
		{"chan receive --output ", "raw json"},
		{"chan receive --output j", "json"},
		{"chan receive --try jo", ""}, // a flag without a value, then a name
		{"chan receive --count 3 --", "--capacity --context --count --exec"},
		{"chan receive --count ", ""},
		{"chan receive -- --c", ""},
		{"pub --context ", "prod"},
		{"context use ", "prod"},
		{"context use prod ", ""},
		{"completion ", "bash fish powershell zsh"},
		{"value get --output=r", "--output=raw"},
		{"value get --output = r", "raw"}, // as bash passes it
		{"value get --output =", "raw json"},
		{"value get --output = raw --o", "--output"},
		{"topic create --durability ", "strict relaxed memory"},
		{"sub --from ", "start now"},
		{"serve --log-level w", "warn"},
		{"serve --http ", "off"},
		{"nonsense ", ""},
	}
	for _, tt := range tests {
		var got []string
		for _, c := range root.complete(strings.Split(tt.words, " ")) {
			got = append(got, c.word)
		}
		want := strings.Fields(tt.want)
		if len(got) < len(want) || !slices.Equal(got[:len(want)], want) || len(want) == 0 && len(got) > 0 {
			t.Errorf("%q: got %q, want %q", tt.words, got, want)
		}
	}
}

// TestCompletesFromVariable passes the words as the script for PowerShell does.
func TestCompletesFromVariable(t *testing.T) {
	for words, want := range map[string]string{
		"":                          "serve\trun a broker\n",
		"chan\nrec":                 "receive\tprint values, or run a command for each\n",
		"chan\nreceive\n--output\n": "raw\t\njson\t\n",
	} {
		t.Setenv(completeVariable, words)
		if code, out, errs := call(t, "", completeWord); code != exitOK || !strings.HasPrefix(out, want) {
			t.Errorf("%q: got %d %q %s, want %q first", words, code, out, errs, want)
		}
	}
}

// TestFishCompletes has fish complete flags, which must not become those of what the
// script calls.
func TestFishCompletes(t *testing.T) {
	fish, err := exec.LookPath("fish")
	if err != nil {
		t.Skip("fish is not installed: its script is not run")
	}
	script := `function hark; printf '%s\t%s\n' --all everything --to elsewhere; end
` + completions["fish"] + `complete -C 'hark dlq replay x --'`
	out, err := exec.CommandContext(t.Context(), fish, "--no-config", "-c", script).CombinedOutput()
	if want := "--all\teverything\n--to\telsewhere\n"; err != nil || string(out) != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}
