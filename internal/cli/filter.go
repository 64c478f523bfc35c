package cli

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/harkbus/hark/filter"
)

var filterCommand = command{
	name:  "filter",
	about: "check filter expressions, and filter JSON lines with them",
	subs: []command{
		{
			name: "check", args: "EXPR", about: "say whether an expression is valid, and how it is evaluated",
			setup: func(*flag.FlagSet) action { return checkFilter },
		},
		{
			name: "test", args: "EXPR", about: "print the JSON lines of the input that match",
			long: `The whole line is "data". A line that cannot be evaluated is reported, and makes
the command fail at the end.`,
			setup: func(fs *flag.FlagSet) action {
				count := fs.Bool("count", false, "print only how many lines match")
				invert := fs.Bool("invert", false, "print the lines that do not match")
				explain := fs.Bool("explain", false, "print how the expression is evaluated first")
				return func(ctx context.Context, words []string, s Streams) error {
					f, err := compile(words)
					if err != nil {
						return err
					}
					if *explain {
						fmt.Fprintln(s.Out, f.Explain())
					}
					return testFilter(ctx, f, *count, *invert, s)
				}
			},
		},
	},
}

func checkFilter(_ context.Context, words []string, s Streams) error {
	f, err := compile(words)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.Out, f.Explain())
	return err
}

// compile returns the filter that the only word is.
func compile(words []string) (*filter.Filter, error) {
	if len(words) != 1 {
		return nil, usageError{fmt.Errorf("want one expression, in quotes, and not %d words", len(words))}
	}
	f, err := filter.Compile(words[0])
	if err != nil {
		return nil, usageError{err}
	}
	return f, nil
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
		return fmt.Errorf("%d lines could not be evaluated", failed)
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
