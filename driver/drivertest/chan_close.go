package drivertest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/harkbus/hark"
)

var chanCloseClauses = []Clause{
	{"CHN-8", "closing", testChanClose},
	{"CHN-9", "All", testChanAll},
	{"CHN-14", "closing the bus", testChanBusClose},
}

func testChanClose(t *testing.T, open Opener) {
	for _, capacity := range []int{0, 2, hark.Unbounded} {
		ctx, bus := start(t, open)
		empty := openChan[int](t, bus, "empty", capacity)
		full := openChan[int](t, bus, "full", capacity)
		left := count(0, max(capacity, 0))
		send(ctx, t, full, left...)
		failed := make(chan error, 10)
		for range 3 {
			go func() {
				_, err := empty.Receive(ctx)
				failed <- err
			}()
			if capacity != hark.Unbounded {
				go func() { failed <- full.Send(ctx, 99) }()
			}
		}
		wantWaiting(ctx, t, empty, 0, 3)
		waiting := 6
		if capacity == hark.Unbounded {
			waiting = 3
		} else {
			wantWaiting(ctx, t, full, 3, 0)
		}
		var wg sync.WaitGroup
		for range 3 { // concurrently, and more than once
			for _, c := range []*hark.Chan[int]{empty, full} {
				wg.Go(func() {
					if err := c.Close(); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		for range waiting {
			if err := <-failed; !errors.Is(err, hark.ErrClosed) {
				t.Errorf("capacity %d: one who waited got %v, want ErrClosed", capacity, err)
			}
		}
		if err := full.Send(ctx, 99); !errors.Is(err, hark.ErrClosed) {
			t.Errorf("capacity %d: send to a closed channel: %v", capacity, err)
		}
		wantReceive(ctx, t, full, left...)
		if _, err := full.Receive(ctx); !errors.Is(err, hark.ErrClosed) {
			t.Errorf("capacity %d: receive from a closed and empty channel: %v", capacity, err)
		}
		select {
		case <-full.Done():
		default:
			t.Errorf("capacity %d: Done is not closed", capacity)
		}
	}
}

func testChanAll(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	c := openChan[int](t, bus, "jobs", 10)
	send(ctx, t, c, count(0, 6)...)
	var got []int
	for v := range c.All(ctx) {
		if got = append(got, v); v == 1 {
			break
		}
	}
	wantEqual(t, "until the break", got, count(0, 2))
	brief, cancel := context.WithCancel(ctx)
	defer cancel()
	for v := range c.All(brief) {
		if got = append(got, v); v == 3 {
			cancel()
		}
	}
	wantEqual(t, "until the context ended", got, count(0, 4))
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	got = slices.AppendSeq(got, c.All(ctx))
	wantEqual(t, "after the close", got, count(0, 6))
	if ctx.Err() != nil {
		t.Error("All ended with its context and not with the close")
	}
}

func testChanBusClose(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	c := openChan[int](t, bus, "jobs", 2)
	in := newTopic[int](t, bus, "in")
	g := newGate(t)
	subscribe(t, in, func(ctx context.Context, m *hark.Message[int]) error {
		if err := g.pass(ctx); err != nil {
			return err
		}
		return c.Send(ctx, m.Value) // while the bus drains
	})
	publish(ctx, t, in, 7)
	g.reached(ctx, t, 1)
	closed := make(chan error, 1)
	go func() { closed <- bus.Close(ctx) }()
	until(ctx, t, "the bus closes", func() bool {
		_, err := hark.NewChan[int](bus, "another", 0)
		return errors.Is(err, hark.ErrClosed)
	})
	send(ctx, t, c, 6)
	g.release()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := c.Send(ctx, 8); !errors.Is(err, hark.ErrClosed) {
		t.Errorf("send after the close: %v, want ErrClosed", err)
	}
	if inProcess(bus) {
		wantReceive(ctx, t, c, 6, 7)
	}
	if _, err := c.Receive(ctx); !errors.Is(err, hark.ErrClosed) {
		t.Errorf("receive from what is closed and empty: %v, want ErrClosed", err)
	}
	select {
	case <-c.Done():
	case <-ctx.Done():
		t.Error("Done is not closed")
	}
}
