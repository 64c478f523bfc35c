// Command producer sends numbers into a channel and prints them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/harkbus/hark/examples/producer"
)

func main() {
	var o producer.Options
	flag.DurationVar(&o.Interval, "interval", time.Second, "between two numbers of a producer")
	flag.IntVar(&o.Count, "count", 0, "numbers to send; 0 for as many as there are until Ctrl-C")
	flag.IntVar(&o.Producers, "producers", 1, "goroutines that send")
	flag.IntVar(&o.Consumers, "consumers", 1, "goroutines that print")
	flag.IntVar(&o.Capacity, "capacity", 0, "numbers that may wait in the channel; -1 for any number")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := producer.Run(ctx, os.Stdout, o)
	asked := context.Cause(ctx) // nil unless Ctrl-C was pressed
	stop()
	if err != nil && !errors.Is(err, asked) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
