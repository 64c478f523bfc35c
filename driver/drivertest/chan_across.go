package drivertest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/harkbus/hark"
)

var chanAcrossClauses = []AcrossClause{
	{"CHN-19", "a channel is one for all processes", testCHN19},
	{"CHN-20", "a rendezvous of two processes", testCHN20},
	{"CHN-21", "a close is seen by all processes", testCHN21},
	{"CHN-22", "what a process had in flight goes to others", testCHN22},
}

func testCHN19(ctx context.Context, t *testing.T, connect Connector) {
	a, b := openChan[int](t, connect(), "jobs", 3), openChan[int](t, connect(), "jobs", 3)
	busC := connect()
	if _, err := hark.NewChan[int](busC, "jobs", 4); !errors.Is(err, hark.ErrInvalidOption) {
		t.Errorf("another capacity: %v, want ErrInvalidOption", err)
	}
	c := openChan[int](t, busC, "jobs", 3)
	send(ctx, t, a, 0)
	send(ctx, t, b, 1)
	send(ctx, t, a, 2)
	for i, each := range []*hark.Chan[int]{a, b, c} {
		if ok, err := each.TrySend(ctx, 99); ok || err != nil {
			t.Errorf("process %d: a fourth value: %v, %v; want it refused", i, ok, err)
		}
		if n := each.Len(); n != 3 {
			t.Errorf("process %d: Len() = %d, want 3", i, n)
		}
	}
	sent := make(chan error, 1)
	go func() { sent <- b.Send(ctx, 3) }()
	wantWaiting(ctx, t, b, 1, 0)
	wantReceive(ctx, t, c, 0)
	if err := <-sent; err != nil {
		t.Errorf("send when another process has made room: %v", err)
	}
	wantReceive(ctx, t, a, 1)
	wantReceive(ctx, t, c, 2, 3)

	// A waiting receiver is served whichever process sends.
	got := make(chan int, 1)
	go func() {
		v, err := a.Receive(ctx)
		if err != nil {
			t.Error(err)
		}
		got <- v
	}()
	wantWaiting(ctx, t, a, 0, 1)
	send(ctx, t, c, 4)
	if v := <-got; v != 4 {
		t.Errorf("received %d, want 4", v)
	}
	testCHN19Many(ctx, t, []*hark.Chan[int]{a, b, c})
}

// testCHN19Many sends and receives in all processes at the same time.
func testCHN19Many(ctx context.Context, t *testing.T, all []*hark.Chan[int]) {
	const each = 100
	var sending, receiving sync.WaitGroup
	got := make([][]int, len(all))
	for i, c := range all {
		receiving.Go(func() { got[i] = slices.Collect(c.All(ctx)) })
		sending.Go(func() {
			for n := range each {
				if err := c.Send(ctx, i*each+n); err != nil {
					t.Errorf("send: %v", err)
				}
			}
		})
	}
	sending.Wait()
	if err := all[0].Close(); err != nil {
		t.Error(err)
	}
	receiving.Wait()
	for i, values := range got {
		last := make([]int, len(all))
		for _, v := range values {
			if v < last[v/each] {
				t.Errorf("process %d received %d after %d", i, v, last[v/each])
			}
			last[v/each] = v
		}
	}
	received := slices.Concat(got...)
	slices.Sort(received)
	wantEqual(t, "received", received, count(0, each*len(all)))
}

func testCHN20(ctx context.Context, t *testing.T, connect Connector) {
	a, b := openChan[int](t, connect(), "meet", 0), openChan[int](t, connect(), "meet", 0)
	sent := make(chan error, 1)
	go func() { sent <- a.Send(ctx, 1) }()
	wantWaiting(ctx, t, a, 1, 0)
	taken, err := b.Take(ctx)
	if err != nil || taken.Value != 1 {
		t.Fatalf("take = %v, %v", taken, err)
	}
	select {
	case err := <-sent:
		t.Fatalf("Send returned %v before the other process was done with the value", err)
	default:
	}
	if err := taken.Done(ctx); err != nil {
		t.Error(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}

	// A sender that gives up has sent nothing, even if another process has the
	// value in flight.
	reason := errors.New("reason")
	brief, cancel := context.WithCancelCause(ctx)
	go func() { sent <- a.Send(brief, 2) }()
	if taken, err = b.Take(ctx); err != nil || taken.Value != 2 {
		t.Fatalf("take = %v, %v", taken, err)
	}
	cancel(reason)
	if err := <-sent; !errors.Is(err, reason) {
		t.Errorf("send = %v, want the cause", err)
	}
	if err := taken.Done(ctx); !errors.Is(err, hark.ErrNotHeld) {
		t.Errorf("done with a value whose sender gave up = %v, want ErrNotHeld", err)
	}
	go func() { sent <- b.Send(ctx, 3) }()
	wantReceive(ctx, t, a, 3)
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func testCHN21(ctx context.Context, t *testing.T, connect Connector) {
	for _, capacity := range []int{0, 2, hark.Unbounded} {
		busA, busB := connect(), connect()
		name := capacityName(capacity)
		emptyA, emptyB := openChan[int](t, busA, "empty."+name, capacity), openChan[int](t, busB, "empty."+name, capacity)
		fullA, fullB := openChan[int](t, busA, "full."+name, capacity), openChan[int](t, busB, "full."+name, capacity)
		left := count(0, max(capacity, 0))
		send(ctx, t, fullA, left...)
		received, sent := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := emptyA.Receive(ctx)
			received <- err
		}()
		wantWaiting(ctx, t, emptyA, 0, 1)
		waits := capacity != hark.Unbounded
		if waits {
			go func() { sent <- fullA.Send(ctx, 99) }()
			wantWaiting(ctx, t, fullA, 1, 0)
		}
		for _, c := range []*hark.Chan[int]{emptyB, fullB} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := <-received; !errors.Is(err, hark.ErrClosed) {
			t.Errorf("capacity %s: receive = %v, want ErrClosed", name, err)
		}
		if waits {
			if err := <-sent; !errors.Is(err, hark.ErrClosed) {
				t.Errorf("capacity %s: send = %v, want ErrClosed", name, err)
			}
		}
		later := openChan[int](t, connect(), "full."+name, capacity)
		for i, c := range []*hark.Chan[int]{fullA, fullB, later} {
			if err := c.Send(ctx, 99); !errors.Is(err, hark.ErrClosed) {
				t.Errorf("capacity %s, process %d: send = %v, want ErrClosed", name, i, err)
			}
		}
		wantReceive(ctx, t, later, left...)
		if _, err := fullA.Receive(ctx); !errors.Is(err, hark.ErrClosed) {
			t.Errorf("capacity %s: receive from what is closed and empty = %v, want ErrClosed", name, err)
		}
	}
}

// capacityName returns a token for use in a name.
func capacityName(capacity int) string {
	switch capacity {
	case 0:
		return "none"
	case hark.Unbounded:
		return "unbounded"
	}
	return "some"
}

func testCHN22(ctx context.Context, t *testing.T, connect Connector) {
	for _, capacity := range []int{1, 2, hark.Unbounded} {
		busA := connect()
		name := "jobs." + capacityName(capacity)
		if capacity == 1 {
			name = "jobs.one"
		}
		a, b := openChan[int](t, busA, name, capacity), openChan[int](t, connect(), name, capacity)
		send(ctx, t, b, 1)
		if taken, err := a.Take(ctx); err != nil || taken.Value != 1 {
			t.Fatalf("take = %v, %v", taken, err)
		}
		if n := b.Len(); n != 1 {
			t.Errorf("Len() = %d, want 1: what is in flight counts", n)
		}
		if _, ok, err := b.TryReceive(ctx); ok || err != nil {
			t.Errorf("TryReceive of what another process has in flight = %v, %v", ok, err)
		}
		if err := busA.Close(ctx); err != nil {
			t.Fatal(err)
		}
		wantReceive(ctx, t, b, 1)
		until(ctx, t, "the channel is empty", func() bool { return b.Len() == 0 })
	}
}
