package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/examples/producer"
)

// demoChannelCommand is hark demo channel.
var demoChannelCommand = command{
	name:  "channel",
	about: "send numbers into a channel, and print them",
	long: `Producers send numbers into one channel, and consumers print them. The last line,
after --count numbers or Ctrl-C, says how many were sent; by then each has been
printed once.`,
	setup: func(fs *flag.FlagSet) action {
		var o producer.Options
		o.Interval = time.Second
		timeVar(fs, &o.Interval, "interval", "`time` between two numbers of a producer")
		fs.IntVar(&o.Count, "count", 0, "`numbers` to send in total; 0 to send until Ctrl-C")
		fs.IntVar(&o.Producers, "producers", 1, "`goroutines` that send: the first of three sends 1, 4, 7 and so on")
		fs.IntVar(&o.Consumers, "consumers", 1, "`goroutines` that print")
		fs.IntVar(&o.Capacity, "capacity", 0, "`numbers` that may wait in the channel; with 0 a producer waits until a consumer\n        has its number, with -1 it never waits")
		return func(ctx context.Context, _ []string, s Streams) error { return runDemoChannel(ctx, o, s) }
	},
}

func runDemoChannel(ctx context.Context, o producer.Options, s Streams) error {
	switch {
	case o.Interval <= 0:
		return usageError{errors.New("--interval must be above 0")}
	case o.Count < 0:
		return usageError{errors.New("--count must not be negative")}
	case o.Producers < 1 || o.Consumers < 1:
		return usageError{errors.New("--producers and --consumers must be at least 1")}
	case o.Capacity < 0 && o.Capacity != hark.Unbounded:
		return usageError{errors.New("--capacity must be at least 0, or -1 for no limit")}
	}
	if o.Count == 0 && terminalWidth(s.Err) > 0 {
		fmt.Fprintln(s.Err, "Ctrl-C ends it")
	}
	return interruptible(ctx, func(ctx context.Context) error { return producer.Run(ctx, s.Out, o) })
}
