package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/harkbus/hark/driver"
)

var valueCommand = command{
	name: "value", about: "read, change and watch shared values",
	long: `A value is a variable that all processes on all machines share. Each change has a
version, which grows. Values are bytes, stored as given; a Go program encodes its
Value[T] as JSON.`,
	subs: []command{valueListCommand, valueGetCommand, valueSetCommand, valueUpdateCommand, valueWatchCommand},
}

// valueState is a state in printable form.
type valueState struct {
	Name    string          `json:"name"`
	Version uint64          `json:"version"`
	Data    json.RawMessage `json:"data"`
}

func printState(s Streams, name, output string, state driver.State) error {
	if output == "json" {
		return printJSON(s.Out, valueState{name, state.Version, jsonData(state.Data)})
	}
	_, err := s.Out.Write(append(bytes.Clone(state.Data), '\n'))
	return err
}

// valueConn is a connection that can find and create values.
type valueConn interface {
	driver.Values
	FindValue(ctx context.Context, name string) (driver.State, bool, error)
	CreateValue(ctx context.Context, name string, initial []byte) (state driver.State, made bool, err error)
}

// onValue connects and runs work with the present state of a value; found says
// whether the value exists.
func onValue(ctx context.Context, f *brokerFlags, s Streams, name string, work func(found bool, state driver.State, values valueConn) error) error {
	return f.with(ctx, s.Err, func(conn driver.Conn) error {
		values, ok := conn.(valueConn)
		if !ok {
			return fmt.Errorf("%w: engine %s: values", driver.ErrUnsupported, conn.Info().Engine)
		}
		var state driver.State
		var found bool
		if err := ask(ctx, "a value "+name, func(ctx context.Context) (err error) {
			state, found, err = values.FindValue(ctx, name)
			return err
		}); err != nil {
			return err
		}
		return work(found, state, values)
	})
}

// onOpenValue is onValue for work that needs an existing value. It creates a
// missing one with the initial state; without an initial state it returns a
// nothingError with the hint.
func onOpenValue(ctx context.Context, f *brokerFlags, s Streams, name string, initial *string, hint string, work func(driver.Value) error) error {
	return onValue(ctx, f, s, name, func(found bool, _ driver.State, values valueConn) error {
		if !found && initial == nil {
			return nothing("there is no value %s: %s", name, hint)
		}
		state := []byte{}
		if initial != nil {
			state = []byte(*initial)
		}
		v, err := values.OpenValue(ctx, name, state)
		if err != nil {
			return err
		}
		return work(v)
	})
}

var valueListCommand = command{
	name: "list", args: "[PATTERN]", about: "list the values of a broker, or those that match a pattern",
	setup: func(fs *flag.FlagSet) action {
		f := newAdminFlags(fs)
		limit := fs.Uint("limit", 0, "list at most this `number`; 0 for all")
		return f.administer(0, 1, "a pattern, in quotes, or nothing", func(ctx context.Context, a *admin, words []string, s Streams) error {
			return list(ctx, f, a, s, adminPath("values"), patternQuery(words), *limit, a.seen("values"), []string{"value", "version", "changed", "data"}, func(v *listedValue) []string {
				return []string{v.Name, numberText(v.Version), age(v.Changed), clipped(v.text(), 60)}
			})
		})
	},
}

// listedValue is a value as the API shows it.
type listedValue struct {
	Name    string
	Version uint64
	Changed *time.Time
	Data    json.RawMessage
	Base64  []byte `json:"data_base64"`
}

// text describes the data for people.
func (v *listedValue) text() string {
	if v.Base64 != nil {
		return bytesText(uint64(len(v.Base64))) + " that are no text"
	}
	return string(v.Data)
}

var valueGetCommand = command{
	name: "get", args: "NAME", about: "print a value",
	long: "It exits with 3 if there is none of that name.",
	setup: func(fs *flag.FlagSet) action {
		f := urlFlags(fs)
		output := outputFlag(fs, "raw", "json")
		return func(ctx context.Context, words []string, s Streams) error {
			name, err := oneName(words, "a value")
			if err != nil {
				return err
			}
			return onValue(ctx, f, s, name, func(found bool, state driver.State, _ valueConn) error {
				if !found {
					return nothing("there is no value %s", name)
				}
				return printState(s, name, *output, state)
			})
		}
	},
}

var valueSetCommand = command{
	name: "set", args: "NAME [DATA]", about: "set a value to DATA, or to the whole input",
	long: `With --if-version it is set only if it still has that version, which hark value get
--output json prints; 0 means that it does not exist yet. Otherwise it exits with 3.`,
	setup: func(fs *flag.FlagSet) action {
		f := urlFlags(fs)
		var want *uint64
		fs.Func("if-version", "set it only if this `number` is its version", func(s string) error {
			n, err := strconv.ParseUint(s, 10, 64)
			if want = &n; err != nil {
				return errors.New("want a whole number that is not negative")
			}
			return nil
		})
		output := outputFlag(fs, "none", "raw", "json")
		return func(ctx context.Context, words []string, s Streams) error {
			name, data, err := nameAndData(words, "NAME")
			if err != nil {
				return err
			}
			text, err := dataOrInput(ctx, data, s)
			if err != nil {
				return err
			}
			changed := func(version uint64) error {
				return nothing("value %s has version %d, not %d", name, version, *want)
			}
			return onValue(ctx, f, s, name, func(found bool, state driver.State, values valueConn) error {
				if want != nil && state.Version != *want {
					return changed(state.Version)
				}
				if made := false; !found {
					if state, made, err = values.CreateValue(ctx, name, text); err != nil {
						return err
					}
					switch {
					case made && *output == "none":
						return nil
					case made:
						return printState(s, name, *output, state)
					case want != nil:
						return changed(state.Version)
					}
				}
				v, err := values.OpenValue(ctx, name, text)
				if err != nil {
					return err
				}
				next, err := change(ctx, v, func(now driver.State) ([]byte, error) {
					if want != nil && now.Version != *want {
						return nil, changed(now.Version)
					}
					return text, nil
				})
				if err != nil || *output == "none" {
					return err
				}
				return printState(s, name, *output, next)
			})
		}
	},
}

// dataOrInput returns the given data, or else the whole input without a final line
// break.
func dataOrInput(ctx context.Context, data []string, s Streams) ([]byte, error) {
	if len(data) > 0 {
		return []byte(data[0]), nil
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	text, err := io.ReadAll(io.LimitReader(newInput(ctx, s), maxLine+1))
	if err == nil && len(text) > maxLine {
		err = fmt.Errorf("the input is longer than %d bytes", maxLine)
	}
	return bytes.TrimSuffix(text, []byte("\n")), err
}

// change replaces the state of a value with the result of next, retrying until
// nobody else has changed it in between.
func change(ctx context.Context, v driver.Value, next func(driver.State) ([]byte, error)) (driver.State, error) {
	now, err := v.Load(ctx)
	for err == nil {
		data, nextErr := next(now)
		if nextErr != nil {
			return now, nextErr
		}
		var done bool
		state, done, casErr := v.CompareAndSet(ctx, now.Version, data)
		switch {
		case casErr == nil && done:
			return state, nil
		case casErr == nil:
			now = state
		case errors.Is(casErr, driver.ErrAgain):
			err = sleep(ctx, 10*time.Millisecond)
		default:
			return now, casErr
		}
	}
	return now, err
}

var valueUpdateCommand = command{
	name: "update", args: "NAME", about: "change a value with a command, or add a number",
	long: `With --exec the value is the standard input of a shell command, and the command's
output is the new value. The command runs again if someone else changes the value
meanwhile, so no update is lost. If it fails, nothing changes. With --add the value
is a number. The new value is printed.

It exits with 3 if there is no such value and no --initial.`,
	setup: func(fs *flag.FlagSet) action {
		f := urlFlags(fs)
		line := fs.String("exec", "", "`command` that turns the old value into the new")
		add := fs.String("add", "", "`number` to add")
		var initial *string
		fs.Func("initial", "initial `data` if the value does not exist", func(s string) error { initial = &s; return nil })
		output := outputFlag(fs, "raw", "json")
		return func(ctx context.Context, words []string, s Streams) error {
			name, err := oneName(words, "a value")
			if err != nil {
				return err
			}
			if (*line == "") == (*add == "") {
				return usageError{errors.New("want one of --exec and --add")}
			}
			step, err := strconv.ParseInt(*add, 10, 64)
			if *add != "" && err != nil {
				return usageError{errors.New("--add: want a whole number")}
			}
			return onOpenValue(ctx, f, s, name, initial, "--initial says what it is then", func(v driver.Value) error {
				next, err := change(ctx, v, func(now driver.State) ([]byte, error) {
					if *add != "" {
						return sum(now.Data, step)
					}
					return piped(ctx, *line, now.Data, s, "HARK_VALUE="+name)
				})
				if err != nil {
					return err
				}
				return printState(s, name, *output, next)
			})
		}
	},
}

// sum adds n to a number.
func sum(data []byte, n int64) ([]byte, error) {
	now, err := strconv.ParseInt(string(bytes.TrimSpace(data)), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("the value is %.40q, which is no whole number", data)
	}
	if now+n < now != (n < 0) {
		return nil, fmt.Errorf("%d and %d are more than fits", now, n)
	}
	return strconv.AppendInt(nil, now+n, 10), nil
}

// piped returns the output of a shell command that gets data as its input, without
// a final line break.
func piped(ctx context.Context, line string, data []byte, s Streams, env ...string) ([]byte, error) {
	var out bytes.Buffer
	err := runWith(ctx, line, data, Streams{Out: &out, Err: s.Err}, env...)
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), err
}

var valueWatchCommand = command{
	name: "watch", args: "NAME", about: "print a value and its changes",
	long: `It begins with the current value. If changes follow each other quickly, some may be
skipped, but never the last. With --where it prints only values that match a filter
(hark filter). To wait until a value is ready:

  hark value watch config --where data.ready --count 1

It exits with 3 if there is no such value and no --initial.`,
	setup: func(fs *flag.FlagSet) action {
		f := urlFlags(fs)
		where := fs.String("where", "", "print only values that match this `filter`, which sees the value as data")
		count := fs.Int("count", 0, "end after this `number` of values; 0 for never")
		timeout := timeoutFlag(fs, 0, "in all")
		var initial *string
		fs.Func("initial", "initial `data` if the value does not exist", func(s string) error { initial = &s; return nil })
		output := outputFlag(fs, "raw", "json")
		return untilUnread(func(ctx context.Context, words []string, s Streams) error {
			name, err := oneName(words, "a value")
			if err != nil {
				return err
			}
			match, err := readWhere(*where)
			if err != nil {
				return err
			}
			if *count < 0 {
				return usageError{errors.New("--count must not be negative")}
			}
			ctx, cancel := bounded(ctx, *timeout)
			defer cancel()
			return onOpenValue(ctx, f, s, name, initial, "--initial makes one", func(v driver.Value) error {
				w, err := v.Watch(ctx)
				if err != nil {
					return err
				}
				defer func() { _ = w.Close() }() // the connection is closed right after
				for n := 0; *count == 0 || n < *count; {
					state, err := w.Next(ctx)
					if err != nil {
						return err
					}
					if match != nil && !match.Match(lineMessage(state.Data)) {
						continue
					}
					if err := printState(s, name, *output, state); err != nil {
						return err
					}
					n++
				}
				return nil
			})
		})
	},
}
