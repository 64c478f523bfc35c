package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/harkbus/hark"
)

var notifyCommand = command{
	name: "notify", args: "TARGET", about: "signal those that wait for a name",
	long: `TARGET is a name, a type and its methods, one method (counter.Counter#OnIncrement)
or a pattern such as build.*. It prints how many listeners and waiting commands it
has reached, in all processes. Those that come later do not see it; use hark latch
for that.`,
	setup: func(fs *flag.FlagSet) action {
		f := urlFlags(fs)
		least := fs.Uint("at-least", 0, "exit with 3 if it reaches fewer than this `number`")
		output := outputFlag(fs, "text", "json")
		return func(ctx context.Context, words []string, s Streams) error {
			if len(words) != 1 {
				return usageError{fmt.Errorf("want one name or pattern, in quotes, got %s", plural(len(words), "word", "words"))}
			}
			return withNotifier(ctx, f, s.Err, func(n *hark.Notifier) error {
				reached, err := n.Notify(ctx, words[0])
				switch {
				case err != nil:
					return err
				case *output == "json":
					err = printJSON(s.Out, map[string]any{"target": words[0], "reached": reached})
				default:
					_, err = fmt.Fprintf(s.Out, "reached %d\n", reached)
				}
				if err == nil && uint(reached) < *least {
					return nothing("%s reached %d, want at least %d", words[0], reached, *least)
				}
				return err
			})
		}
	},
}

// withNotifier connects, as connect does, and runs work with the broker's notifier.
func withNotifier(ctx context.Context, f *brokerFlags, notes io.Writer, work func(*hark.Notifier) error) (err error) {
	conn, err := f.connect(ctx, notes)
	if err != nil {
		return err
	}
	bus := hark.Over(conn)
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
		defer cancel()
		err = errors.Join(err, bus.Close(ctx))
	}()
	n, err := hark.NewNotifier(bus)
	if err != nil {
		return err
	}
	return work(n)
}

var waitCommand = command{
	name: "wait", args: "NAME...", about: "wait until a name is notified, or latched",
	long: `It waits for the first of the names and prints it, or with --all for each of them.
A name that is latched counts at once.`,
	setup: func(fs *flag.FlagSet) action {
		f := urlFlags(fs)
		all := fs.Bool("all", false, "wait for all of the names")
		timeout := timeoutFlag(fs, 0, "in all")
		output := outputFlag(fs, "text", "json")
		return func(ctx context.Context, words []string, s Streams) error {
			if len(words) == 0 {
				return errNoName
			}
			ctx, cancel := bounded(ctx, *timeout)
			defer cancel()
			return withNotifier(ctx, f, s.Err, func(n *hark.Notifier) error {
				announce(s, "waiting for "+strings.Join(words, ", "))
				came := words
				if *all {
					if err := n.Wait(ctx, words...); err != nil {
						return err
					}
				} else {
					name, err := n.WaitAny(ctx, words...)
					if err != nil {
						return err
					}
					came = []string{name}
				}
				for _, name := range came {
					var err error
					if *output == "json" {
						err = printJSON(s.Out, map[string]string{"name": name})
					} else {
						_, err = fmt.Fprintln(s.Out, name)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		}
	},
}

var errNoName = usageError{errors.New("want at least one name")}

var latchCommand = command{
	name: "latch", args: "NAME...", about: "notify names, and signal latecomers too",
	long: "A latch holds until hark unlatch clears it, even if the broker restarts.",
	setup: func(fs *flag.FlagSet) action {
		return latching(fs, func(ctx context.Context, n *hark.Notifier, name string) error { return n.Latch(ctx, name) })
	},
}

var unlatchCommand = command{
	name: "unlatch", args: "NAME...", about: "clear latches",
	long: "Clearing a name that is not latched does nothing.",
	setup: func(fs *flag.FlagSet) action {
		return latching(fs, func(ctx context.Context, n *hark.Notifier, name string) error { return n.Unlatch(ctx, name) })
	},
}

// latching is the common part of latch and unlatch.
func latching(fs *flag.FlagSet, do func(context.Context, *hark.Notifier, string) error) action {
	f := urlFlags(fs)
	return func(ctx context.Context, words []string, s Streams) error {
		if len(words) == 0 {
			return errNoName
		}
		return withNotifier(ctx, f, s.Err, func(n *hark.Notifier) error {
			for _, name := range words {
				if err := do(ctx, n, name); err != nil {
					return err
				}
			}
			return nil
		})
	}
}
