// Command counter lets goroutines count up and down and tell each other.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/harkbus/hark/examples/counter"
)

func main() {
	var o counter.Options
	flag.IntVar(&o.Rounds, "rounds", 10, "steps of each goroutine")
	flag.IntVar(&o.Goroutines, "goroutines", 2, "an even number; half of them count up, half down")
	flag.IntVar(&o.Start, "start", 0, "the number to begin with")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := counter.Run(ctx, os.Stdout, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
