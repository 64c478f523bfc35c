package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

var completionCommand = command{
	name: "completion", args: "SHELL", about: "print the completion script for a shell",
	long: `SHELL is bash, zsh, fish or powershell. For this session, or in the file that the
shell reads at its start:

  source <(hark completion bash)       # ~/.bashrc
  source <(hark completion zsh)        # ~/.zshrc, after compinit
  hark completion fish | source        # ~/.config/fish/config.fish
  hark completion powershell | Out-String | Invoke-Expression   # $PROFILE

It completes commands, flags, the values of flags and contexts, and elsewhere file
names.`,
	words: func() []string { return slices.Sorted(maps.Keys(completions)) },
	setup: func(*flag.FlagSet) action {
		return func(_ context.Context, words []string, s Streams) error {
			if len(words) != 1 || completions[words[0]] == "" {
				return usageError{errors.New("want one of " + strings.Join(slices.Sorted(maps.Keys(completions)), ", ") + "; there are no scripts for other shells")}
			}
			_, err := io.WriteString(s.Out, completions[words[0]])
			return err
		}
	},
}

// completeWord is the command that shells call, with the words up to the cursor. It
// prints each candidate for the last one, followed by a tab and a description.
const completeWord = "__complete"

// completeVariable has the words, on a line each, for PowerShell, whose versions differ
// in how they pass empty words and quotes to a program.
const completeVariable = "HARK_COMPLETE"

// completions are the scripts for the shells.
var completions = map[string]string{
	"bash": `_hark() {
	local IFS=$'\n'
	COMPREPLY=($(hark ` + completeWord + ` "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f 1))
}
complete -o default -F _hark hark
`,
	"zsh": `#compdef hark
_hark() {
	local -a found
	local line
	for line in "${(@f)$(hark ` + completeWord + ` "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
		[[ -n $line ]] && found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
	done
	if (( $#found )); then _describe hark found; else _files; fi
}
compdef _hark hark
`,
	"fish": `function __hark_complete
	set -l words (commandline -opc) (commandline -ct)
	set -l found (hark ` + completeWord + ` $words[2..-1] 2>/dev/null)
	if set -q found[1]
		string join -- \n $found
	else
		__fish_complete_path (commandline -ct)
	end
end
complete -c hark -f -a '(__hark_complete)'
`,
	"powershell": `Register-ArgumentCompleter -Native -CommandName hark -ScriptBlock {
	param($word, $line, $cursor)
	$before = @($line.CommandElements | Select-Object -Skip 1 | Where-Object { $_.Extent.EndOffset -lt $cursor } | ForEach-Object { "$_" })
	$env:` + completeVariable + ` = ($before + "$word") -join [char]10
	try {
		hark ` + completeWord + ` | ForEach-Object {
			$found, $about = $_ -split [char]9, 2
			if (-not $about) { $about = $found }
			[System.Management.Automation.CompletionResult]::new($found, $found, 'ParameterValue', $about)
		}
	} finally {
		Remove-Item Env:` + completeVariable + ` -ErrorAction Ignore
	}
}
`,
}

// printCompletions prints the candidates for the last of words, or of those in
// completeVariable if there are none.
func printCompletions(words []string, s Streams) error {
	if len(words) == 0 {
		words = strings.Split(os.Getenv(completeVariable), "\n")
	}
	for _, c := range root.complete(words) {
		if _, err := fmt.Fprintf(s.Out, "%s\t%s\n", c.word, c.about); err != nil {
			return err
		}
	}
	return nil
}

// candidate is a possible completion.
type candidate struct{ word, about string }

// complete returns the candidates for the last of words, or nothing where only the
// user or the file system knows them.
func (c command) complete(words []string) []candidate {
	if len(words) == 0 {
		words = []string{""}
	}
	before, last := words[:len(words)-1], words[len(words)-1]
	fs := c.flags()
	given := 0 // arguments other than flags and commands
	for i := 0; i < len(before); i++ {
		word := before[i]
		if word == "--" {
			return nil
		}
		if name := strings.TrimLeft(word, "-"); strings.HasPrefix(word, "-") && name != "" {
			f := fs.Lookup(name)
			if f == nil || isBool(f) {
				continue
			}
			switch rest := before[i+1:]; { // bash makes a word of an equals sign
			case len(rest) == 0 && last == "=":
				return c.values(f, "")
			case len(rest) > 0 && rest[0] == "=":
				i++
			}
			if i++; i == len(before) {
				return c.values(f, last)
			}
			continue
		}
		if sub := c.sub(word); sub != nil && given == 0 {
			c, fs = *sub, sub.flags()
			continue
		}
		given++
	}
	if name, value, ok := strings.Cut(last, "="); ok && strings.HasPrefix(name, "--") {
		if f := fs.Lookup(name[2:]); f != nil {
			found := c.values(f, value)
			for i := range found {
				found[i].word = name + "=" + found[i].word
			}
			return found
		}
	}
	var all []candidate
	if strings.HasPrefix(last, "-") {
		fs.VisitAll(func(f *flag.Flag) {
			_, about := flag.UnquoteUsage(f)
			about, _, _ = strings.Cut(about, "\n")
			all = append(all, candidate{"--" + f.Name, about})
		})
		all = append(all, candidate{"--help", "what the command does, and how"})
		return beginning(all, last)
	}
	if given == 0 {
		for _, sub := range c.subs {
			all = append(all, candidate{sub.name, sub.about})
		}
	}
	if c.words != nil && given == 0 {
		for _, w := range c.words() {
			all = append(all, candidate{w, ""})
		}
	}
	return beginning(all, last)
}

// values returns the possible values of a flag, as far as they are known.
func (c command) values(f *flag.Flag, last string) []candidate {
	var all []candidate
	switch v := f.Value.(type) {
	case *choiceFlag:
		for _, form := range v.forms {
			all = append(all, candidate{form, ""})
		}
	default:
		if f.Name == "context" {
			for _, name := range contextNames() {
				all = append(all, candidate{name, ""})
			}
			break
		}
		// Where the values are listed in place of a name, those in lower case are words
		// to type.
		kind, _ := flag.UnquoteUsage(f)
		if words := strings.Split(kind, "|"); len(words) > 1 {
			for _, word := range words {
				if !strings.ContainsFunc(word, func(r rune) bool { return r < 'a' || r > 'z' }) {
					all = append(all, candidate{word, ""})
				}
			}
		}
	}
	return beginning(all, last)
}

// contextNames returns the names of the contexts, if they can be read.
func contextNames() []string {
	all, err := loadContexts()
	if err != nil {
		return nil
	}
	return all.names()
}

func beginning(all []candidate, with string) []candidate {
	return slices.DeleteFunc(all, func(c candidate) bool { return !strings.HasPrefix(c.word, with) })
}

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}
