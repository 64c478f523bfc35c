package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/names"
)

var chanCommand = command{
	name: "chan", about: "send into channels and receive from them",
	long: `A channel is a queue that all processes on all machines share, each value for one
receiver. The first command that names it creates it. With --capacity 0, the
default, a send returns when a receiver has the value; with a number, that many
values may wait; with -1 there is no limit. Later commands may omit the capacity.

Values are bytes, sent as given. A Go program encodes its Chan[T] as JSON, so send
it '"text"' or '{"id": 7}'.`,
	subs: []command{chanSendCommand, chanReceiveCommand, chanCloseCommand, chanInfoCommand, chanRemoveCommand},
}

// chanFlags are the flags of commands for a channel.
type chanFlags struct {
	*brokerFlags
	capacity int
	given    bool // --capacity is set
}

// newChanFlags declares --capacity with the flags of urlFlags, for commands that create
// the channel.
func newChanFlags(fs *flag.FlagSet) *chanFlags {
	f := &chanFlags{brokerFlags: urlFlags(fs)}
	fs.Func("capacity", "how many `values` may wait in the channel, if it does not exist yet; -1 for no limit (default 0)", func(s string) error {
		f.given = true
		_, err := fmt.Sscanf(s, "%d", &f.capacity)
		if err != nil || f.capacity < -1 || fmt.Sprint(f.capacity) != s {
			return errors.New("want a number, or -1 for no limit")
		}
		return nil
	})
	return f
}

// seeker is a connection that can look up channels without creating them.
type seeker interface {
	FindChan(ctx context.Context, name string) (driver.ChanConfig, bool, error)
	DeleteChan(ctx context.Context, name string) error
}

// seek returns the seeker of conn.
func seek(conn driver.Conn) (seeker, error) {
	s, ok := conn.(seeker)
	if !ok {
		return nil, fmt.Errorf("%w: engine %s: looking at what is there", driver.ErrUnsupported, conn.Info().Engine)
	}
	return s, nil
}

// ask calls f, which asks what exists. A broker does not answer a user who may not
// ask, so ask limits the time.
func ask(ctx context.Context, what string, f func(ctx context.Context) error) error {
	wait, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	err := f(wait)
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("the broker does not say whether there is %s within %v: this user may not ask, or it has no JetStream; run hark doctor to find out more", what, asking)
	}
	return err
}

// asking is how long the broker has to answer: somewhat longer than natsdriver
// takes to find out that the user lacks permission.
const asking = 7 * time.Second

// findChan returns the configuration with which a channel was created, and whether
// it exists.
func findChan(ctx context.Context, find seeker, name string) (config driver.ChanConfig, found bool, err error) {
	err = ask(ctx, "a channel "+name, func(ctx context.Context) (err error) {
		config, found, err = find.FindChan(ctx, name)
		return err
	})
	return config, found, err
}

// open opens the channel, and creates it if it does not exist and makes is set.
func (f *chanFlags) open(ctx context.Context, conn driver.Conn, name string, makes bool) (driver.Chan, driver.ChanConfig, error) {
	find, err := seek(conn)
	if err != nil {
		return nil, driver.ChanConfig{}, err
	}
	chans, ok := conn.(driver.Chans)
	if !ok {
		return nil, driver.ChanConfig{}, fmt.Errorf("%w: engine %s: channels", driver.ErrUnsupported, conn.Info().Engine)
	}
	for {
		config, found, err := findChan(ctx, find, name)
		switch {
		case err != nil:
			return nil, config, err
		case !found && !makes:
			return nil, config, nothing("there is no channel %s", name)
		case !found:
			config = driver.ChanConfig{Name: name, Capacity: f.capacity, Durability: driver.DurableRelaxed}
		case f.given && f.capacity != config.Capacity:
			return nil, config, fmt.Errorf("channel %s is there with capacity %d, not %d", name, config.Capacity, f.capacity)
		}
		ch, err := chans.OpenChan(ctx, config)
		if !found && errors.Is(err, driver.ErrConflict) {
			continue // somebody else has just created it
		}
		return ch, config, err
	}
}

// on connects and runs work with the channel named by the first word.
func (f *chanFlags) on(ctx context.Context, s Streams, name string, makes bool, work func(ch driver.Chan, config driver.ChanConfig) error) error {
	return f.with(ctx, s.Err, func(conn driver.Conn) error {
		ch, config, err := f.open(ctx, conn, name, makes)
		if err != nil {
			return err
		}
		err = work(ch, config)
		if errors.Is(err, driver.ErrClosed) {
			return nothing("channel %s is closed", name)
		}
		return err
	})
}

// oneName returns the only word, which must be a valid name.
func oneName(words []string, what string) (string, error) {
	if len(words) != 1 {
		return "", usageError{fmt.Errorf("want the name of %s, got %s", what, plural(len(words), "word", "words"))}
	}
	if err := names.Check(words[0]); err != nil {
		return "", usageError{err}
	}
	return words[0], nil
}

// nameAndData returns the first word, which must be a valid name, and the second.
func nameAndData(words []string, what string) (name string, data []string, err error) {
	if len(words) < 1 || len(words) > 2 {
		return "", nil, usageError{fmt.Errorf("want %s and perhaps DATA, in quotes, got %s", what, plural(len(words), "word", "words"))}
	}
	name, err = oneName(words[:1], what)
	return name, words[1:], err
}

var chanSendCommand = command{
	name: "send", args: "NAME [DATA]", about: "send DATA, or each line of the input",
	long: `Each value is in the channel, or with capacity 0 received, before the next is sent.
Empty lines are skipped. It exits with 3 if the channel is closed.`,
	setup: func(fs *flag.FlagSet) action {
		f := newChanFlags(fs)
		timeout := timeoutFlag(fs, 0, "for room, or with capacity 0 for a receiver, for each value")
		output := outputFlag(fs, "text", "json")
		return func(ctx context.Context, words []string, s Streams) error {
			name, data, err := nameAndData(words, "NAME")
			if err != nil {
				return err
			}
			return f.on(ctx, s, name, true, func(ch driver.Chan, _ driver.ChanConfig) error {
				sent := 0
				send := func(line []byte) error {
					ctx, cancel := bounded(ctx, *timeout)
					defer cancel()
					if err := ch.Send(ctx, line, false); err != nil {
						return err
					}
					sent++
					return nil
				}
				if len(data) > 0 {
					err = send([]byte(data[0]))
				} else {
					err = eachLine(ctx, s, func(_ int, line []byte, _ bool) error { return send(line) })
				}
				switch {
				case *output == "json":
					err = errors.Join(err, printJSON(s.Out, map[string]any{"chan": name, "sent": sent}))
				case len(data) == 0:
					fmt.Fprintf(s.Err, "%s sent\n", plural(sent, "value", "values"))
				}
				return err
			})
		}
	},
}

var chanReceiveCommand = command{
	name: "receive", args: "NAME", about: "print values, or run a command for each",
	long: `It prints each value on its own line, until the channel is closed and empty. A value
is done once it has been written. If the process is killed before that, or before
--exec is done, another receiver gets the value.

With --exec each value is the standard input of a shell command. If that exits with
0 the value is done; otherwise it is returned to the channel, and hark exits.

It exits with 3 if the channel is closed before --count values were received, or if
--try finds nothing.`,
	setup: func(fs *flag.FlagSet) action {
		f := newChanFlags(fs)
		r := receiving{}
		fs.IntVar(&r.count, "count", 0, "end after this `number` of values; 0 to end when the channel is closed")
		fs.BoolVar(&r.try, "try", false, "end when there is nothing to receive, instead of waiting")
		fs.BoolVar(&r.null, "null", false, "end each value with a NUL byte instead of a line break, for xargs -0")
		fs.StringVar(&r.exec, "exec", "", "`command` for each value")
		timeout := timeoutFlag(fs, 0, "for each value")
		output := outputFlag(fs, "raw", "json")
		return untilUnread(func(ctx context.Context, words []string, s Streams) error {
			name, err := oneName(words, "a channel")
			switch {
			case err != nil:
				return err
			case r.count < 0:
				return usageError{errors.New("--count must not be negative")}
			case r.exec != "" && (r.null || *output != "raw"):
				return usageError{errors.New("--exec prints nothing itself: leave --null and --output out")}
			}
			r.name, r.timeout, r.json = name, *timeout, *output == "json"
			return f.on(ctx, s, name, true, func(ch driver.Chan, _ driver.ChanConfig) error { return r.run(ctx, ch, s) })
		})
	},
}

// receiving is one run of hark chan receive.
type receiving struct {
	name            string
	count           int // 0 for all
	try, null, json bool
	exec            string
	timeout         time.Duration
}

func (r *receiving) run(ctx context.Context, ch driver.Chan, s Streams) error {
	if !r.try {
		announce(s, "receiving from "+r.name)
	}
	for n := 0; r.count == 0 || n < r.count; n++ {
		err := r.one(ctx, ch, s)
		switch {
		case errors.Is(err, driver.ErrClosed) && r.count == 0:
			return nil
		case r.try && errors.Is(err, driver.ErrAgain):
			if n == 0 || n < r.count {
				return nothing("nothing is in channel %s", r.name)
			}
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}

// one receives a value and does with it what the flags say.
func (r *receiving) one(ctx context.Context, ch driver.Chan, s Streams) error {
	wait, cancel := bounded(ctx, r.timeout)
	v, err := ch.Receive(wait, r.try)
	cancel()
	if err != nil {
		return err
	}
	if r.exec != "" {
		err = runWith(ctx, r.exec, v.Data, s, "HARK_CHAN="+r.name)
	} else {
		err = r.print(s, v.Data)
	}
	if err != nil {
		return errors.Join(err, v.Return(context.WithoutCancel(ctx)))
	}
	return v.Done(context.WithoutCancel(ctx))
}

func (r *receiving) print(s Streams, data []byte) error {
	if r.json {
		return printJSON(s.Out, map[string]any{"chan": r.name, "data": jsonData(data)})
	}
	end := byte('\n')
	if r.null {
		end = 0
	}
	_, err := s.Out.Write(append(data, end))
	return err
}

// runWith runs a shell command, with data as its input.
func runWith(ctx context.Context, line string, data []byte, s Streams, env ...string) error {
	c := exec.CommandContext(ctx, "sh", "-c", line)
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(string(data)), s.Out, s.Err
	c.Env = append(os.Environ(), env...)
	if err := c.Run(); err != nil {
		return fmt.Errorf("--exec %q: %w", line, err)
	}
	return nil
}

var chanCloseCommand = command{
	name: "close", args: "NAME", about: "close a channel for everyone",
	long: "Values already sent can still be received. It exits with 3 if there is no such\nchannel.",
	setup: func(fs *flag.FlagSet) action {
		f := &chanFlags{brokerFlags: urlFlags(fs)}
		return func(ctx context.Context, words []string, s Streams) error {
			name, err := oneName(words, "a channel")
			if err != nil {
				return err
			}
			return f.on(ctx, s, name, false, func(ch driver.Chan, _ driver.ChanConfig) error { return ch.Close(ctx) })
		}
	},
}

// chanInfo is a channel in printable form.
type chanInfo struct {
	Name       string `json:"name"`
	Capacity   int    `json:"capacity"` // -1 for no limit
	Durability string `json:"durability,omitempty"`
	Len        int    `json:"len"`
	Closed     bool   `json:"closed"`
}

var chanInfoCommand = command{
	name: "info", args: "NAME", about: "show a channel",
	long: "It exits with 3 if there is no such channel.",
	setup: func(fs *flag.FlagSet) action {
		f := &chanFlags{brokerFlags: urlFlags(fs)}
		output := outputFlag(fs, "text", "json")
		return func(ctx context.Context, words []string, s Streams) error {
			name, err := oneName(words, "a channel")
			if err != nil {
				return err
			}
			return f.on(ctx, s, name, false, func(ch driver.Chan, config driver.ChanConfig) error {
				info := chanInfo{Name: name, Capacity: config.Capacity}
				if config.Capacity != 0 {
					info.Durability = durabilityNames[config.Durability]
				}
				if info.Len, err = ch.Len(ctx); err != nil {
					return err
				}
				select {
				case <-ch.Closed():
					info.Closed = true
				default:
				}
				if *output == "json" {
					return printJSON(s.Out, info)
				}
				return info.print(s)
			})
		}
	},
}

var durabilityNames = map[driver.Durability]string{
	driver.DurableStrict: "strict", driver.DurableRelaxed: "relaxed", driver.DurableMemory: "memory",
}

func (c *chanInfo) print(s Streams) error {
	capacity := fmt.Sprint(c.Capacity)
	switch c.Capacity {
	case 0:
		capacity = "0: a send waits for a receiver"
	case driver.Unbounded:
		capacity = "unbounded"
	}
	state := "open"
	if c.Closed {
		state = "closed"
	}
	_, err := fmt.Fprintf(s.Out, "channel   %s\ncapacity  %s\nvalues    %d\nstate     %s\n", c.Name, capacity, c.Len, state)
	if err == nil && c.Durability != "" {
		_, err = fmt.Fprintf(s.Out, "kept      %s\n", c.Durability)
	}
	return err
}

var chanRemoveCommand = command{
	name: "remove", args: "NAME", about: "remove a channel and its contents",
	long: "A closed channel stays closed. Once it is removed, a channel of that name can be\ncreated again. It exits with 3 if there is no such channel.",
	setup: func(fs *flag.FlagSet) action {
		f := urlFlags(fs)
		return func(ctx context.Context, words []string, s Streams) error {
			name, err := oneName(words, "a channel")
			if err != nil {
				return err
			}
			return f.with(ctx, s.Err, func(conn driver.Conn) error {
				find, err := seek(conn)
				if err != nil {
					return err
				}
				_, found, err := findChan(ctx, find, name)
				if err == nil && !found {
					err = nothing("there is no channel %s", name)
				}
				if err != nil {
					return err
				}
				return find.DeleteChan(ctx, name)
			})
		}
	},
}
