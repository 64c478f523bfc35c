package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/harkbus/hark/internal/spell"
)

// command is a word on the command line: an action, a group of further commands, or
// both.
type command struct {
	name  string
	args  string // the arguments as shown in the help; if empty, none are allowed
	about string // one line, for lists
	long  string // for its own help
	// setup declares the flags and returns the action to run once they are parsed.
	// It must do nothing else, because the help calls it too. It is nil for a mere
	// group.
	setup func(fs *flag.FlagSet) action
	words func() []string // possible first arguments, for completion; nil if not known
	subs  []command
	path  string // the words that lead to the command; set on the way to it
}

// action runs a command. words are its arguments other than flags.
type action func(ctx context.Context, words []string, s Streams) error

// dispatch runs the command selected by args.
func (c command) dispatch(ctx context.Context, args []string, s Streams) error {
	c.path = strings.TrimSpace(c.path + " " + c.name)
	if len(args) > 0 {
		if sub := c.sub(args[0]); sub != nil {
			sub.path = c.path
			return sub.dispatch(ctx, args[1:], s)
		}
	}
	fs := flag.NewFlagSet(c.path, flag.ContinueOnError)
	var act action
	if c.setup != nil {
		act = c.setup(fs)
	}
	words, err := parseFlags(fs, args)
	switch {
	case errors.Is(err, flag.ErrHelp) && (act != nil || len(words) == 0):
		c.help(s.Out, fs)
		return err
	case err != nil && !errors.Is(err, flag.ErrHelp):
		return c.misused(err)
	case act == nil && len(words) == 0:
		c.help(s.Err, fs)
		return c.misused(errors.New("a command is missing"))
	case act == nil:
		return c.misused(fmt.Errorf("unknown command %q%s", words[0], suggestion(words[0], c.subNames())))
	case len(words) > 0 && c.args == "":
		return c.misused(fmt.Errorf("unexpected argument %q%s", words[0], suggestion(words[0], c.subNames())))
	}
	err = act(ctx, words, s)
	var usage usageError
	var refused *refusal
	switch {
	case errors.As(err, &usage):
		return c.misused(usage.error)
	case errors.As(err, &refused) && refused.Status == http.StatusBadRequest:
		return c.misused(refused.about(fs))
	}
	if words := c.call(); err != nil && words != "" && !errors.Is(err, errInterrupted) {
		return &callError{words, err}
	}
	return err
}

// callError is an error of the command that words select, or of the part of its
// input that they name.
type callError struct {
	words string
	err   error
}

// Error says which command it was, unless the error does. It drops the prefix of the
// library's errors, because that is also the program's name, which is printed first anyway.
func (e *callError) Error() string {
	text := strings.TrimPrefix(e.err.Error(), "hark: ")
	if strings.HasPrefix(text, e.words+" ") {
		return text
	}
	return e.words + ": " + text
}

func (e *callError) Unwrap() error { return e.err }

// sub returns a copy of the subcommand with a name, or nil if there is none.
func (c command) sub(name string) *command {
	for _, sub := range c.subs {
		if sub.name == name {
			return &sub
		}
	}
	return nil
}

// flags returns the flags of the command.
func (c command) flags() *flag.FlagSet {
	fs := flag.NewFlagSet(c.path, flag.ContinueOnError)
	if c.setup != nil {
		c.setup(fs)
	}
	return fs
}

// call returns the path without the name of the program.
func (c command) call() string {
	_, words, _ := strings.Cut(c.path, " ")
	return words
}

// misused returns err as a usage error, with a pointer to the help.
func (c command) misused(err error) error {
	words := c.call()
	if words != "" {
		words += ": "
	}
	sep := "; "
	if strings.Contains(err.Error(), "\n") {
		sep = "\n" // the last line points to a place in the line above it
	}
	return usageError{fmt.Errorf("%s%w%ssee %s --help", words, err, sep, c.path)}
}

func (c command) subNames() []string {
	names := make([]string, len(c.subs))
	for i, sub := range c.subs {
		names[i] = sub.name
	}
	return names
}

// help prints what the command does, its subcommands and its flags.
func (c command) help(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprintf(w, "%s: %s\n", c.path, c.about)
	if c.long != "" {
		fmt.Fprintf(w, "\n%s\n", c.long)
	}
	fmt.Fprint(w, "\nUsage:\n")
	if c.setup != nil {
		call := c.path
		fs.VisitAll(func(*flag.Flag) { call = c.path + " [flags]" })
		fmt.Fprintf(w, "  %s\n", strings.TrimSpace(call+" "+c.args))
	}
	list := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, sub := range c.subs {
		fmt.Fprintf(list, "  %s\t%s\n", strings.TrimSpace(c.path+" "+sub.name+" "+sub.args), sub.about)
	}
	list.Flush()
	header := "\nFlags:\n"
	fs.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		usage = strings.TrimPrefix(usage, value+": ") // where the text begins with the value as a label
		if f.DefValue != "" && f.DefValue != "false" {
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(w, "%s  %s\n%s", header, strings.TrimSpace("--"+f.Name+" "+value), indented(usage))
		header = ""
	})
	if len(c.subs) > 0 {
		fmt.Fprintf(w, "\nRun %s COMMAND --help for more.", c.path)
	}
	fmt.Fprintf(w, "\n%s\n", exitCodes)
}

// indented wraps a text at 90 columns, indented by 8.
func indented(text string) string {
	var b strings.Builder
	column := 90
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column+1+n <= 90:
			b.WriteString(" " + word)
			column += 1 + n
			continue
		case b.Len() > 0:
			b.WriteByte('\n')
		}
		b.WriteString("        " + word)
		column = 8 + n
	}
	return b.String() + "\n"
}

// parseFlags parses the flags in args, which may stand before, between and after
// other words, and returns those words. Nothing after "--" is a flag.
func parseFlags(fs *flag.FlagSet, args []string) (words []string, err error) {
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	for len(args) > 0 {
		if err := fs.Parse(args); err != nil {
			return words, flagError(fs, err)
		}
		rest := fs.Args()
		if passed := len(args) - len(rest); passed > 0 && args[passed-1] == "--" {
			return append(words, rest...), nil
		}
		if len(rest) == 0 {
			break
		}
		words, args = append(words, rest[0]), rest[1:]
	}
	return words, nil
}

// flagError rephrases an error of package flag in terms of this command line.
func flagError(fs *flag.FlagSet, err error) error {
	name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: ")
	if !unknown {
		text := strings.NewReplacer(" flag -", " flag --", "argument: -", "argument: --").Replace(err.Error())
		if text == err.Error() {
			return err
		}
		if said, bare := strings.CutSuffix(text, ": parse error"); bare {
			_, name, _ := strings.Cut(said, " flag --")
			text = said + ": " + wanted(fs.Lookup(name))
		}
		return errors.New(text)
	}
	var known []string
	fs.VisitAll(func(f *flag.Flag) { known = append(known, "--"+f.Name) })
	asked := "--" + strings.TrimLeft(name, "-")
	return fmt.Errorf("unknown flag %s%s", asked, suggestion(asked, known))
}

// wanted says which values a flag takes of which package flag says only that it could
// not parse one.
func wanted(f *flag.Flag) string {
	if f != nil {
		if value, ok := f.Value.(flag.Getter); ok {
			switch value.Get().(type) {
			case float64:
				return "want a number"
			case int, int64:
				return "want a whole number"
			case uint, uint64:
				return "want a whole number that is not negative"
			}
		}
	}
	return "parse error"
}

// suggestion returns ", did you mean …?" if one of the known words is similar, or
// is the only one that begins with word.
func suggestion(word string, known []string) string {
	best := spell.Nearest(word, known)
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %s?", best)
}
