package cli

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/harkbus/hark/filter"
)

var filterCommand = command{
	name:  "filter",
	about: "check filter expressions, and filter JSON lines",
	subs: []command{
		{
			name: "check", args: "EXPR", about: "say whether an expression is valid, and how it is evaluated",
			setup: func(fs *flag.FlagSet) action {
				output := outputFlag(fs, "text", "json")
				return func(_ context.Context, words []string, s Streams) error {
					f, err := compile(words)
					if err != nil {
						return err
					}
					if *output == "json" {
						return printJSON(s.Out, map[string]any{"filter": words[0], "explanation": f.Explain()})
					}
					_, err = fmt.Fprintln(s.Out, f.Explain())
					return err
				}
			},
		},
		{
			name: "test", args: "EXPR", about: "print the JSON lines of the input that match",
			long: `The whole line is "data"; empty lines are skipped. A line that cannot be evaluated,
because it is not valid or lacks a field, is reported and not printed, not even with
--invert, and the exit code after the last line is 1. If nothing matches, that is not
a failure. With --output json each printed line is {"line": 7, "data": …}, and
--count prints {"matched": 7}.`,
			setup: func(fs *flag.FlagSet) action {
				var t filterTest
				fs.BoolVar(&t.count, "count", false, "print only how many lines match")
				fs.BoolVar(&t.invert, "invert", false, "print the lines that do not match")
				output := outputFlag(fs, "raw", "json")
				explain := fs.Bool("explain", false, "first say, on standard error, how the expression is evaluated")
				return func(ctx context.Context, words []string, s Streams) error {
					f, err := compile(words)
					if err != nil {
						return err
					}
					if *explain {
						fmt.Fprintln(s.Err, f.Explain())
					}
					t.filter, t.json = f, *output == "json"
					return t.run(ctx, s)
				}
			},
		},
	},
}

// compile compiles the only word as a filter.
func compile(words []string) (*filter.Filter, error) {
	if len(words) != 1 {
		return nil, usageError{fmt.Errorf("want one expression, in quotes, got %d words", len(words))}
	}
	f, err := filter.Compile(words[0])
	if err != nil {
		return nil, usageError{err}
	}
	return f, nil
}

// readWhere compiles the value of a --where flag; it returns nil if that is empty.
// A filter that does not compile is a usage error.
func readWhere(text string) (*filter.Filter, error) {
	if text == "" {
		return nil, nil
	}
	f, err := filter.Compile(text)
	if err != nil {
		return nil, usageError{fmt.Errorf("--where: %w", err)}
	}
	return f, nil
}

// filterTest is one run of hark filter test.
type filterTest struct {
	filter              *filter.Filter
	count, invert, json bool
}

// run prints the input lines that the filter matches.
func (t *filterTest) run(ctx context.Context, s Streams) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	in := bufio.NewReaderSize(newInput(ctx, s), 64<<10)
	out := bufio.NewWriter(s.Out)
	matched, failed, err := 0, 0, error(nil)
	for n := 1; err == nil; n++ {
		var line []byte
		var tooLong bool
		if line, tooLong, err = readLine(in); n == 1 {
			line = bytes.TrimPrefix(line, byteOrderMark)
		}
		if len(bytes.TrimSpace(line)) == 0 && !tooLong {
			continue
		}
		ok, bad := t.filter.Eval(lineMessage(line))
		if tooLong {
			bad = fmt.Errorf("longer than %d bytes", maxLine)
		}
		if bad != nil {
			failed++
			fmt.Fprintf(s.Err, "line %d: %v\n", n, bad)
			continue
		}
		if ok == t.invert {
			continue
		}
		if matched++; !t.count {
			if t.json {
				line = fmt.Appendf(nil, `{"line":%d,"data":%s}`, n, bytes.TrimSpace(line))
			}
			if writeErr := writeLine(out, line, in.Buffered() == 0); writeErr != nil {
				return writeErr
			}
		}
	}
	if t.count && (err == io.EOF || err == errInterrupted) {
		if t.json {
			fmt.Fprintf(out, "{\"matched\":%d}\n", matched)
		} else {
			fmt.Fprintln(out, matched)
		}
	}
	switch flushed := out.Flush(); {
	case err != io.EOF:
		return err
	case flushed != nil:
		return flushed
	case failed > 0:
		return fmt.Errorf("%s could not be evaluated", plural(failed, "line", "lines"))
	}
	return nil
}

// byteOrderMark is what some Windows programs put at the start of a text.
var byteOrderMark = []byte("\xef\xbb\xbf")

// writeLine writes a line, and flushes the buffer if the next line may take long.
func writeLine(out *bufio.Writer, line []byte, flush bool) error {
	if line[len(line)-1] != '\n' {
		line = append(line, '\n')
	}
	if _, err := out.Write(line); err != nil || !flush {
		return err
	}
	return out.Flush()
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
