package cli

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/harkbus/hark/filter"
)

const filterUsage = `hark filter check EXPR says whether a CEL expression is a valid filter, and how
it is evaluated.
hark filter test EXPR reads JSON lines and prints those that match; the whole
line is "data".`

func runFilter(ctx context.Context, args []string, s Streams) error {
	fs := flag.NewFlagSet("filter", flag.ContinueOnError)
	count := fs.Bool("count", false, "test: print only how many lines match")
	invert := fs.Bool("invert", false, "test: print the lines that do not match")
	explain := fs.Bool("explain", false, "print how the expression is evaluated")
	flags, words := splitFlags(args)
	if _, err := parseFlags(fs, flags, filterUsage, s); err != nil {
		return err
	}
	if len(words) != 2 {
		return usageError{errors.New("filter: want check or test, and one expression; see hark filter --help")}
	}
	verb, expr := words[0], words[1]
	if verb != "check" && verb != "test" {
		return usageError{fmt.Errorf("filter: unknown word %q%s", verb, suggestion(verb, []string{"check", "test"}))}
	}
	f, err := filter.Compile(expr)
	if err != nil {
		return usageError{fmt.Errorf("filter: %w", err)}
	}
	if verb == "check" || *explain {
		fmt.Fprintln(s.Out, f.Explain())
	}
	if verb == "check" {
		return nil
	}
	return testFilter(ctx, f, *count, *invert, s)
}

// splitFlags separates flags, which take no values here, from other words.
func splitFlags(args []string) (flags, words []string) {
	for i, a := range args {
		switch {
		case a == "--":
			return flags, append(words, args[i+1:]...)
		case len(a) > 1 && a[0] == '-':
			flags = append(flags, a)
		default:
			words = append(words, a)
		}
	}
	return flags, words
}

// testFilter prints the lines of the input that f matches.
func testFilter(ctx context.Context, f *filter.Filter, count, invert bool, s Streams) error {
	in := bufio.NewReaderSize(s.In, 64<<10)
	out := bufio.NewWriter(s.Out)
	matched, failed := 0, 0
	for n := 1; ctx.Err() == nil; n++ {
		line, tooLong, err := readLine(in)
		if len(line) > 0 || tooLong {
			ok, bad := f.Eval(lineMessage(line))
			if tooLong {
				ok, bad = false, fmt.Errorf("longer than %d bytes", maxLine)
			}
			if bad != nil {
				failed++
				fmt.Fprintf(s.Err, "line %d: %v\n", n, bad)
			}
			if ok != invert && bad == nil {
				matched++
				if !count {
					out.Write(line)
				}
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if count {
		fmt.Fprintln(out, matched)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return errInterrupted
	}
	if failed > 0 {
		return fmt.Errorf("filter: %d lines could not be evaluated", failed)
	}
	return nil
}

// lineMessage is a line of JSON as a message without metadata.
type lineMessage []byte

func (m lineMessage) ID() string                   { return "" }
func (m lineMessage) Source() string               { return "" }
func (m lineMessage) Type() string                 { return "" }
func (m lineMessage) Subject() string              { return "" }
func (m lineMessage) Topic() string                { return "" }
func (m lineMessage) Key() string                  { return "" }
func (m lineMessage) Time() time.Time              { return time.Time{} }
func (m lineMessage) Header(string) (string, bool) { return "", false }
func (m lineMessage) Data() any                    { return []byte(m) }
