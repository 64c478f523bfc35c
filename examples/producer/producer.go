// Package producer is the program in which producers send a number every
// second into a channel, and consumers print what they receive, until somebody
// presses Ctrl-C or all numbers are sent.
//
// Written with a built-in channel and what comes to hand first it goes wrong
// in four ways, all of them when it stops:
//
//   - A producer that is done closes the channel, and another one that still
//     sends panics. A hark.Chan may be closed by anybody at any moment: senders
//     get ErrClosed, nobody panics (CHN-8).
//   - Consumers select on the channel and on the context. Go picks one of the
//     cases that are ready, so that numbers which were sent before the stop
//     stay behind in the buffer. Here only producers heed the context. What was
//     sent is received by exactly one consumer (CHN-2), and the loop over All
//     ends when the channel is closed and empty, not before (CHN-8, CHN-9).
//   - A producer waits for room in a channel that nobody reads any more, for
//     ever. Send waits no longer than its context; and if that ends at the very
//     moment a consumer comes, the number has either been sent or it has not,
//     and Send says which (CHN-6): none is lost between the two, none is sent
//     again.
//   - The program returns while consumers still print. Run waits for all of
//     them, and then compares what the channel says was sent and received
//     (CHN-15).
package producer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"sync"
	"time"

	"github.com/harkbus/hark"
)

// Options say how much there is to do.
type Options struct {
	Interval  time.Duration // between two numbers of a producer; more than 0
	Count     int           // total of numbers to send; 0 to send until the context ends
	Producers int           // at least 1; the i-th of n sends i, i+n, i+2n and so on
	Consumers int           // at least 1
	Capacity  int           // of the channel: 0, more, or hark.Unbounded
}

func (o Options) check() error {
	if o.Interval <= 0 || o.Count < 0 || o.Producers < 1 || o.Consumers < 1 {
		return fmt.Errorf("producer: a number every %v, %d in all, %d producers, %d consumers: want an interval above 0, a count of at least 0, and at least one producer and consumer",
			o.Interval, o.Count, o.Producers, o.Consumers)
	}
	return nil
}

// Run sends and prints numbers, a line for each, until Count of them are
// printed, and returns nil; or until ctx ends, and returns its cause. In both
// cases every number that was sent has been printed before the last line, which
// says how many there were, and nothing is printed after Run has returned. If w
// fails, Run stops and returns that error.
func Run(ctx context.Context, w io.Writer, o Options) error {
	if err := o.check(); err != nil {
		return err
	}
	bus := hark.New()
	err := run(ctx, bus, log.New(w, "", 0), o)
	return errors.Join(err, bus.Close(context.WithoutCancel(ctx)))
}

func run(ctx context.Context, bus *hark.Bus, out *log.Logger, o Options) error {
	numbers, err := hark.NewChan[int](bus, "numbers", o.Capacity)
	if err != nil {
		return err
	}
	producing, stop := context.WithCancel(ctx)
	defer stop()
	var producers, consumers sync.WaitGroup
	sending, printing := make([]error, o.Producers), make([]error, o.Consumers)
	for i := range o.Consumers {
		consumers.Go(func() {
			if printing[i] = consume(ctx, numbers, out, i+1); printing[i] != nil {
				stop()
			}
		})
	}
	for i := range o.Producers {
		producers.Go(func() { sending[i] = produce(producing, numbers, i+1, o) })
	}
	producers.Wait()
	if err := numbers.Close(); err != nil {
		return err
	}
	consumers.Wait()
	if err := errors.Join(printing...); err != nil {
		return err
	}
	s := numbers.Stats()
	if s.Sent != s.Received || s.Len != 0 {
		return fmt.Errorf("producer: %d numbers are sent, %d received and %d left", s.Sent, s.Received, s.Len)
	}
	if err := out.Output(0, fmt.Sprintf("%d sent, %d received", s.Sent, s.Received)); err != nil {
		return err
	}
	for _, err := range sending {
		if err != nil && ctx.Err() == nil {
			return err // it was not asked to stop
		}
		if err != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// produce sends a number every interval. After waiting for room it continues
// with the next tick and does not catch up.
func produce(ctx context.Context, numbers *hark.Chan[int], first int, o Options) error {
	tick := time.NewTicker(o.Interval)
	defer tick.Stop()
	for n := first; o.Count == 0 || n <= o.Count; n += o.Producers {
		if n > first {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if err := numbers.Send(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// consume prints what it receives until the channel is closed and empty,
// whether or not ctx has ended.
func consume(ctx context.Context, numbers *hark.Chan[int], out *log.Logger, id int) error {
	for n := range numbers.All(context.WithoutCancel(ctx)) {
		if err := out.Output(0, fmt.Sprintf("consumer %d: %d", id, n)); err != nil {
			return err
		}
	}
	return nil
}
