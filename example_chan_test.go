package hark_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/harkbus/hark"
)

type Job struct{ ID int }

// Workers share the jobs: each job goes to one of them. When the channel is
// closed they finish what is in it, and their loops end.
func ExampleChan() {
	ctx := context.Background()
	bus := hark.New()
	defer bus.Close(ctx)

	jobs, err := hark.NewChan[Job](bus, "jobs", 16)
	if err != nil {
		fmt.Println(err)
		return
	}
	var workers sync.WaitGroup
	for range 3 {
		workers.Go(func() {
			for job := range jobs.All(ctx) {
				fmt.Println("job", job.ID)
			}
		})
	}
	for id := range 4 {
		if err := jobs.Send(ctx, Job{id}); err != nil {
			fmt.Println(err)
		}
	}
	if err := jobs.Close(); err != nil {
		fmt.Println(err)
	}
	workers.Wait()
	// Unordered output:
	// job 0
	// job 1
	// job 2
	// job 3
}

// With capacity 0 the two sides meet: Send returns when a receiver has the
// value.
func ExampleChan_rendezvous() {
	ctx := context.Background()
	handover, err := hark.NewChan[string](nil, "", 0) // private: without a bus
	if err != nil {
		fmt.Println(err)
		return
	}
	sent := make(chan error)
	go func() { sent <- handover.Send(ctx, "the key") }()

	v, err := handover.Receive(ctx)
	fmt.Println(v, err)
	fmt.Println("sent:", <-sent)
	// Output:
	// the key <nil>
	// sent: <nil>
}

// Anybody may close a channel at any moment. Receivers get what is left, and
// nobody panics.
func ExampleChan_Close() {
	ctx := context.Background()
	c, err := hark.NewChan[int](nil, "", hark.Unbounded)
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range 2 {
		if err := c.Send(ctx, i); err != nil {
			fmt.Println(err)
		}
	}
	for range 2 { // once more does nothing
		if err := c.Close(); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println("closed to senders:", errors.Is(c.Send(ctx, 2), hark.ErrClosed))
	for {
		v, err := c.Receive(ctx)
		if err != nil {
			fmt.Println("empty:", errors.Is(err, hark.ErrClosed))
			return
		}
		fmt.Println(v)
	}
	// Output:
	// closed to senders: true
	// 0
	// 1
	// empty: true
}

// A context bounds each wait. When it ends first, nothing has been sent or
// received.
func ExampleChan_Send() {
	c, err := hark.NewChan[int](nil, "", 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	fmt.Println(c.Send(ctx, 1))
	err = c.Send(ctx, 2) // there is no room
	fmt.Println(errors.Is(err, context.DeadlineExceeded), c.Len())
	// Output:
	// <nil>
	// true 1
}

// TrySend does not wait.
func ExampleChan_TrySend() {
	ctx := context.Background()
	c, err := hark.NewChan[string](nil, "", 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, v := range []string{"first", "second"} {
		sent, err := c.TrySend(ctx, v)
		fmt.Println(v, sent, err)
	}
	// Output:
	// first true <nil>
	// second false <nil>
}

// In and Out are Go channels, for select beside others. A value that Out offers
// stays in the channel until somebody takes it, so that nothing is lost when a
// select picks another case.
func ExampleChan_Out() {
	jobs, err := hark.NewChan[string](nil, "", 8)
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() {
		defer jobs.Close()
		for _, job := range []string{"wash", "dry"} {
			select {
			case jobs.In() <- job:
			case <-jobs.Done(): // somebody else has closed it
				return
			}
		}
	}()

	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case job, ok := <-jobs.Out():
			if !ok {
				fmt.Println("closed and empty")
				return
			}
			fmt.Println(job)
		case <-tick.C:
			fmt.Println("nothing to do for an hour")
		}
	}
	// Output:
	// wash
	// dry
	// closed and empty
}
