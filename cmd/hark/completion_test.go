package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCompletionInShells completes words in each installed shell, with the
// program itself.
func TestCompletionInShells(t *testing.T) {
	dir, home := filepath.Dir(build(t)), t.TempDir()
	for shell, script := range map[string]string{
		"bash": `source <(hark completion bash)
COMP_WORDS=(hark chan rec); COMP_CWORD=2; _hark; echo "${COMPREPLY[@]}"
COMP_WORDS=(hark chan info --output ""); COMP_CWORD=4; _hark; echo "${COMPREPLY[@]}"`,
		"fish": `hark completion fish | source
complete -C "hark chan rec" | cut -f 1
complete -C "hark chan info --output " | cut -f 1 | tr '\n' ' '`,
		"zsh": `function compdef() { }
source <(hark completion zsh)
function _describe() { print -r -- ${${(P)2}%%:*} }
words=(hark chan rec); CURRENT=3; _hark
words=(hark chan info --output ""); CURRENT=5; _hark`,
	} {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				missing(t, shell)
			}
			args := map[string][]string{"bash": {"--norc", "-c"}, "zsh": {"-f", "-c"}, "fish": {"--no-config", "-c"}}[shell]
			cmd := exec.Command(path, append(args, script)...)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			cmd.Env = append(os.Environ(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"), "HOME="+home)
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s", err, errs.String())
			}
			got := strings.Fields(out.String())
			slices.Sort(got)
			if want := []string{"json", "receive", "text"}; !slices.Equal(got, want) || errs.Len() > 0 {
				t.Errorf("got %q, want %q\n%s", got, want, errs.String())
			}
		})
	}
}
