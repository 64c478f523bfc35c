// Package cli is the hark command: one file for each noun.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
)

// Streams are where a command reads and writes. In may be nil for a command
// that does not read.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// command is one word after hark.
type command struct {
	name, args, about string
	run               func(ctx context.Context, args []string, s Streams) error
}

var commands = []command{
	{"demo", "", "run a small application on real webhook deliveries", runDemo},
	{"filter", "check|test EXPR", "check an expression, or filter JSON lines with it", runFilter},
	{"version", "", "print the version", runVersion},
}

// usageError is a call that was not understood.
type usageError struct{ error }

// errInterrupted says that the user ended the command.
var errInterrupted = errors.New("interrupted")

// Run runs the command that args, without the program's name, stand for and
// returns the exit code: 0 done, 1 failed, 2 not understood, 130 interrupted.
func Run(ctx context.Context, args []string, s Streams) int {
	err := dispatch(ctx, args, s)
	var usage usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.As(err, &usage):
		fmt.Fprintln(s.Err, "hark:", err)
		return exitUsage
	}
	fmt.Fprintln(s.Err, "hark:", err)
	return exitFailed
}

func dispatch(ctx context.Context, args []string, s Streams) error {
	if len(args) == 0 {
		printHelp(s.Err)
		return usageError{errors.New("a command is missing")}
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		printHelp(s.Out)
		return nil
	}
	var names []string
	for _, c := range commands {
		if c.name == args[0] {
			return c.run(ctx, args[1:], s)
		}
		names = append(names, c.name)
	}
	return usageError{fmt.Errorf("unknown command %q%s; hark help lists them", args[0], suggestion(args[0], names))}
}

func printHelp(w io.Writer) {
	fmt.Fprint(w, "hark is typed messaging for Go, from one goroutine to a cluster.\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  hark %-24s %s\n", strings.TrimSpace(c.name+" "+c.args), c.about)
	}
	fmt.Fprint(w, "\nhark COMMAND --help says more. Exit codes: 0 done, 1 failed, 2 not understood, 130 interrupted.\n")
}

// parseFlags parses the flags of a command and returns the other arguments.
func parseFlags(fs *flag.FlagSet, args []string, usage string, s Streams) ([]string, error) {
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(s.Out, "%s\n\n", usage)
		fs.SetOutput(s.Out)
		fs.PrintDefaults()
		return nil, err
	}
	if err != nil {
		hint := ""
		if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: "); ok {
			var known []string
			fs.VisitAll(func(f *flag.Flag) { known = append(known, "--"+f.Name) })
			err = fmt.Errorf("unknown flag %s", name)
			hint = suggestion("--"+strings.TrimLeft(name, "-"), known)
		}
		return nil, usageError{fmt.Errorf("%s: %w%s; see hark %s --help", fs.Name(), err, hint, fs.Name())}
	}
	return fs.Args(), nil
}

// suggestion returns ", did you mean …?" if one of the known words is near.
func suggestion(word string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if d := distance(word, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %s?", best)
}

// distance is the number of single-byte edits between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			edit := diagonal
			if a[i] != b[j] {
				edit++
			}
			diagonal = row[j+1]
			row[j+1] = min(edit, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func runVersion(_ context.Context, args []string, s Streams) error {
	if _, err := parseFlags(flag.NewFlagSet("version", flag.ContinueOnError), args, "hark version prints the version of this program.", s); err != nil {
		return err
	}
	version := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	fmt.Fprintln(s.Out, "hark", version)
	return nil
}
