package cli

import (
	"context"
	"errors"
	"flag"

	"github.com/harkbus/hark/examples/counter"
)

// demoNotifyCommand is hark demo notify.
var demoNotifyCommand = command{
	name:  "notify",
	about: "let goroutines change one number in turn, and tell each other",
	long: `One goroutine increments a number, another decrements it. Each tells the other
after every step and waits to be told before its next one; both print what the
other made of the number. With --goroutines there are several such pairs, and half
of them begin before the number exists. At the end the number is what it was.`,
	setup: func(fs *flag.FlagSet) action {
		var o counter.Options
		fs.IntVar(&o.Rounds, "rounds", 10, "`steps` of each goroutine")
		fs.IntVar(&o.Goroutines, "goroutines", 2, "an even `number`: half of them increment, half decrement")
		fs.IntVar(&o.Start, "start", 0, "the `number` to begin with")
		return func(ctx context.Context, _ []string, s Streams) error { return runDemoNotify(ctx, o, s) }
	},
}

func runDemoNotify(ctx context.Context, o counter.Options, s Streams) error {
	switch {
	case o.Rounds < 0:
		return usageError{errors.New("--rounds must not be negative")}
	case o.Goroutines < 2 || o.Goroutines%2 != 0:
		return usageError{errors.New("--goroutines must be an even number, at least 2")}
	}
	return interruptible(ctx, func(ctx context.Context) error { return counter.Run(ctx, s.Out, o) })
}
