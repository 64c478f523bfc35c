package drivertest

import (
	"slices"
	"testing"

	"github.com/harkbus/hark"
)

var chanSelectClauses = []Clause{
	{"CHN-11", "Out", testChanOut},
	{"CHN-12", "In", testChanIn},
	{"CHN-13", "In and Out of a rendezvous", testChanInOutRendezvous},
}

func testChanOut(t *testing.T, open Opener) {
	for _, capacity := range []int{0, 1, 8, hark.Unbounded} {
		ctx, bus := start(t, open)
		c := openChan[int](t, bus, "jobs", capacity)
		out := c.Out()
		if c.Out() != out {
			t.Errorf("capacity %d: Out returned another Go channel", capacity)
		}
		const n = 200
		go func() {
			for i := range n {
				if err := c.Send(ctx, i); err != nil {
					t.Error(err)
				}
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}()
		// A select that picks another case takes nothing from the channel, nor
		// does it take values from receivers beside it.
		var got []int
		other := make(chan struct{}, 1)
		for open := true; open; {
			select {
			case other <- struct{}{}:
			default:
			}
			select {
			case v, ok := <-out:
				if open = ok; ok {
					got = append(got, v)
				}
			case <-other:
				if v, ok, err := c.TryReceive(ctx); ok && err == nil {
					got = append(got, v)
				}
			case <-ctx.Done():
				t.Fatalf("capacity %d: got %d values", capacity, len(got))
			}
		}
		wantEqual(t, "values", got, count(0, n))
		if capacity < 8 && capacity != hark.Unbounded {
			continue
		}
		c = openChan[int](t, bus, "others", capacity)
		send(ctx, t, c, 0, 1, 2)
		out = c.Out()
		if n := c.Len(); n != 3 {
			t.Errorf("capacity %d: Len() = %d, want 3: what is offered counts", capacity, n)
		}
		wantReceive(ctx, t, c, 0) // the value may have been offered
		if v := <-out; v != 1 || c.Len() != 1 {
			t.Errorf("capacity %d: got %d with Len() = %d, want 1 and 1", capacity, v, c.Len())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if v, ok := <-out; v != 2 || !ok {
			t.Errorf("capacity %d: after the close got %d, %v; want what is left", capacity, v, ok)
		}
		if _, ok := <-out; ok {
			t.Errorf("capacity %d: Out is open although the channel is closed and empty", capacity)
		}
	}
}

func testChanIn(t *testing.T, open Opener) {
	for _, capacity := range []int{0, 1, 8, hark.Unbounded} {
		ctx, bus := start(t, open)
		c := openChan[int](t, bus, "jobs", capacity)
		in := c.In()
		if c.In() != in {
			t.Errorf("capacity %d: In returned another Go channel", capacity)
		}
		const n = 200
		go func() {
			other := make(chan struct{}, 1)
			for i := 0; i < n; {
				select {
				case other <- struct{}{}:
				default:
				}
				select {
				case in <- i:
					i++
				case <-other:
				case <-ctx.Done():
					return
				}
			}
			close(in) // the same as c.Close
		}()
		wantEqual(t, "values", slices.Collect(c.All(ctx)), count(0, n))
		select {
		case <-c.Done():
		case <-ctx.Done():
			t.Errorf("capacity %d: closing In did not close the channel", capacity)
		}
	}
	ctx, bus := start(t, open)
	c := openChan[int](t, bus, "others", 2)
	in := c.In()
	for i := range 2 {
		select {
		case in <- i:
		case <-ctx.Done():
			t.Fatal("nothing is taken from In although there is room")
		}
	}
	send1 := make(chan error, 1)
	go func() { send1 <- c.Send(ctx, 2) }()
	wantWaiting(ctx, t, c, 1, 0)
	select {
	case in <- 99:
		t.Error("a full channel took a value from In")
	default:
	}
	wantReceive(ctx, t, c, 0, 1, 2)
	if err := <-send1; err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	select {
	case in <- 99:
		t.Error("a closed channel took a value from In")
	case <-c.Done():
	}
}

func testChanInOutRendezvous(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	c := openChan[int](t, bus, "jobs", 0)
	in, out := c.In(), c.Out()
	for i := range 2 { // at most one value is taken ahead, so this does not hang
		go func() {
			select {
			case in <- i:
			case <-ctx.Done():
			}
		}()
	}
	got := []int{<-out, <-out}
	slices.Sort(got)
	wantEqual(t, "values", got, count(0, 2))
	in <- 2
	if n := c.Len(); n != 1 {
		t.Errorf("Len() = %d, want 1: the value taken ahead", n)
	}
	select {
	case in <- 99:
		t.Error("two values were taken ahead")
	default:
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if v, err := c.Receive(ctx); v != 2 || err != nil {
		t.Errorf("after the close: %d, %v; want the value taken ahead", v, err)
	}
	if _, ok := <-out; ok {
		t.Error("Out is open although the channel is closed and empty")
	}
}
