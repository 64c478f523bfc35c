package drivertest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/harkbus/hark"
)

var chanClauses = slices.Concat([]Clause{
	{"CHN-1", "one channel per name", testChanNames},
	{"CHN-2", "every value to one receiver, in order", testChanOrder},
	{"CHN-3", "a bounded channel holds what it says", testChanBounded},
	{"CHN-4", "a rendezvous", testChanRendezvous},
	{"CHN-5", "an unbounded channel never makes a sender wait", testChanUnbounded},
	{"CHN-6", "contexts", testChanContext},
	{"CHN-7", "TrySend and TryReceive", testChanTry},
	{"CHN-15", "numbers", testChanStats},
}, chanCloseClauses, chanSelectClauses)

func openChan[T any](t *testing.T, bus *hark.Bus, name string, capacity int) *hark.Chan[T] {
	t.Helper()
	return must(hark.NewChan[T](bus, name, capacity))(t)
}

func send[T any](ctx context.Context, t *testing.T, c *hark.Chan[T], vs ...T) {
	t.Helper()
	for _, v := range vs {
		if err := c.Send(ctx, v); err != nil {
			t.Fatalf("send %v: %v", v, err)
		}
	}
}

func wantReceive[T comparable](ctx context.Context, t *testing.T, c *hark.Chan[T], want ...T) {
	t.Helper()
	for _, w := range want {
		if got, err := c.Receive(ctx); got != w || err != nil {
			t.Fatalf("receive = %v, %v; want %v", got, err, w)
		}
	}
}

// wantWaiting waits until the given numbers of goroutines wait in Send and
// Receive.
func wantWaiting[T any](ctx context.Context, t *testing.T, c *hark.Chan[T], senders, receivers int) {
	t.Helper()
	until(ctx, t, "goroutines wait in Send and Receive", func() bool {
		s := c.Stats()
		return s.Senders == senders && s.Receivers == receivers
	})
}

func testChanNames(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	c := openChan[int](t, bus, "jobs", 4)
	if c.Name() != "jobs" || c.Cap() != 4 {
		t.Errorf("name %q, capacity %d", c.Name(), c.Cap())
	}
	send(ctx, t, c, 7)
	wantReceive(ctx, t, openChan[int](t, bus, "jobs", 4), 7)
	if _, err := hark.NewChan[string](bus, "jobs", 4); !errors.Is(err, hark.ErrTypeMismatch) {
		t.Errorf("another type: %v, want ErrTypeMismatch", err)
	}
	for _, capacity := range []int{0, 5, hark.Unbounded} {
		if _, err := hark.NewChan[int](bus, "jobs", capacity); !errors.Is(err, hark.ErrInvalidOption) {
			t.Errorf("capacity %d where there is 4: %v, want ErrInvalidOption", capacity, err)
		}
	}
	if _, err := hark.NewChan[int](bus, "more", -2); !errors.Is(err, hark.ErrInvalidOption) {
		t.Errorf("capacity -2: %v, want ErrInvalidOption", err)
	}
	for _, name := range []string{"", "a..b", "a.*", "a.>"} {
		if _, err := hark.NewChan[int](bus, name, 0); !errors.Is(err, hark.ErrInvalidName) {
			t.Errorf("name %q: %v, want ErrInvalidName", name, err)
		}
	}
}

func testChanOrder(t *testing.T, open Opener) {
	for _, capacity := range []int{0, 1, 16, hark.Unbounded} {
		ctx, bus := start(t, open)
		c := openChan[[2]int](t, bus, "jobs", capacity)
		const senders, receivers, each = 4, 4, 100
		var sending, receiving sync.WaitGroup
		got := make([][][2]int, receivers)
		for r := range receivers {
			receiving.Go(func() {
				for v := range c.All(ctx) {
					got[r] = append(got[r], v)
				}
			})
		}
		for s := range senders {
			sending.Go(func() {
				for i := range each {
					if err := c.Send(ctx, [2]int{s, i}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		sending.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		receiving.Wait()
		seen := map[[2]int]bool{}
		for _, vs := range got {
			last := [senders]int{}
			for _, v := range vs {
				if seen[v] {
					t.Errorf("capacity %d: %v was received twice", capacity, v)
				}
				seen[v] = true
				if v[1]+1 <= last[v[0]] {
					t.Errorf("capacity %d: a receiver got value %d of sender %d after %d", capacity, v[1], v[0], last[v[0]]-1)
				}
				last[v[0]] = v[1] + 1
			}
		}
		if len(seen) != senders*each {
			t.Errorf("capacity %d: received %d values, want %d", capacity, len(seen), senders*each)
		}
	}
}

func testChanBounded(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	c := openChan[int](t, bus, "jobs", 3)
	send(ctx, t, c, 0, 1, 2)
	if ok, err := c.TrySend(ctx, 99); ok || err != nil {
		t.Errorf("a fourth value: %v, %v; want it refused", ok, err)
	}
	sent := make(chan error, 1)
	go func() { sent <- c.Send(ctx, 3) }()
	wantWaiting(ctx, t, c, 1, 0)
	if n := c.Len(); n != 3 {
		t.Errorf("Len() = %d with a sender waiting, want 3", n)
	}
	wantReceive(ctx, t, c, 0)
	if err := <-sent; err != nil {
		t.Errorf("send after a receive: %v", err)
	}
	if ok, err := c.TrySend(ctx, 99); ok || err != nil {
		t.Errorf("the slot is taken: %v, %v; want the value refused", ok, err)
	}
	wantReceive(ctx, t, c, 1, 2, 3)
	if n := c.Len(); n != 0 {
		t.Errorf("Len() = %d, want 0", n)
	}
}

func testChanRendezvous(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	c := openChan[int](t, bus, "jobs", 0)
	if ok, err := c.TrySend(ctx, 1); ok || err != nil {
		t.Errorf("TrySend with nobody there = %v, %v", ok, err)
	}
	sent := make(chan error, 1)
	go func() { sent <- c.Send(ctx, 2) }()
	wantWaiting(ctx, t, c, 1, 0)
	select {
	case err := <-sent:
		t.Fatalf("Send returned %v before a receiver came", err)
	default:
	}
	if n := c.Len(); n != 0 {
		t.Errorf("Len() = %d, want 0: the value is still the sender's", n)
	}
	wantReceive(ctx, t, c, 2)
	if err := <-sent; err != nil {
		t.Error(err)
	}
	received := make(chan int, 1)
	go func() {
		v, err := c.Receive(ctx)
		if err != nil {
			t.Error(err)
		}
		received <- v
	}()
	wantWaiting(ctx, t, c, 0, 1)
	if ok, err := c.TrySend(ctx, 3); !ok || err != nil {
		t.Errorf("TrySend to one who waits = %v, %v", ok, err)
	}
	if v := <-received; v != 3 {
		t.Errorf("received %d, want 3", v)
	}
}

func testChanUnbounded(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	c := openChan[int](t, bus, "jobs", hark.Unbounded)
	const n = 2000
	for i := range n {
		if ok, err := c.TrySend(ctx, i); !ok || err != nil {
			t.Fatalf("value %d: %v, %v", i, ok, err)
		}
	}
	if got := c.Len(); got != n || c.Cap() != hark.Unbounded {
		t.Errorf("Len() = %d, Cap() = %d", got, c.Cap())
	}
	for i := range n {
		wantReceive(ctx, t, c, i)
	}
}

func testChanContext(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	reason := errors.New("reason")
	over, cancel := context.WithCancelCause(ctx)
	cancel(reason)
	c := openChan[int](t, bus, "jobs", 1)
	_, tried := c.TrySend(over, 1)
	if err := c.Send(over, 1); !errors.Is(err, reason) || !errors.Is(tried, reason) || c.Len() != 0 {
		t.Errorf("sending in a context that has ended = %v and %v, Len() = %d; want the cause and nothing sent", err, tried, c.Len())
	}
	send(ctx, t, c, 2)
	_, err := c.Receive(over)
	_, _, tried = c.TryReceive(over)
	if !errors.Is(err, reason) || !errors.Is(tried, reason) || c.Len() != 1 {
		t.Errorf("receiving in a context that has ended = %v and %v, Len() = %d; want the cause and nothing received", err, tried, c.Len())
	}
	for _, capacity := range []int{0, 1, 4} {
		testChanCancelled(ctx, t, openChan[int](t, bus, "senders", capacity), reason, true)
		testChanCancelled(ctx, t, openChan[int](t, bus, "receivers", capacity), reason, false)
		_, bus = start(t, open)
	}
}

// testChanCancelled cancels senders or receivers that may be waiting or being
// served. What they return must be true: what was sent is what was received.
func testChanCancelled(ctx context.Context, t *testing.T, c *hark.Chan[int], reason error, senders bool) {
	t.Helper()
	var mu sync.Mutex
	var sent, received []int
	note := func(list *[]int, v int) {
		mu.Lock()
		defer mu.Unlock()
		*list = append(*list, v)
	}
	try := func(ctx context.Context, send bool, v int) (err error) {
		if send {
			if err = c.Send(ctx, v); err == nil {
				note(&sent, v)
			}
		} else if v, err = c.Receive(ctx); err == nil {
			note(&received, v)
		}
		return err
	}
	var wg, others sync.WaitGroup
	for i := range 60 {
		brief, cancel := context.WithCancelCause(ctx)
		wg.Go(func() {
			if err := try(brief, senders, i); err != nil && !errors.Is(err, reason) {
				t.Errorf("cancelled while it waited: %v, want the cause", err)
			}
		})
		wg.Go(func() { cancel(reason) })
	}
	enough, stop := context.WithCancel(ctx)
	others.Go(func() {
		for i := 1000; try(enough, !senders, i) == nil; i++ {
		}
	})
	wg.Wait()
	stop()
	others.Wait()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	received = slices.AppendSeq(received, c.All(ctx))
	slices.Sort(sent)
	slices.Sort(received)
	wantEqual(t, "received", received, sent)
}

func testChanTry(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	c := openChan[int](t, bus, "jobs", 1)
	if v, ok, err := c.TryReceive(ctx); ok || err != nil {
		t.Errorf("TryReceive from an empty channel = %d, %v, %v", v, ok, err)
	}
	if ok, err := c.TrySend(ctx, 1); !ok || err != nil {
		t.Errorf("TrySend with room = %v, %v", ok, err)
	}
	if ok, err := c.TrySend(ctx, 2); ok || err != nil {
		t.Errorf("TrySend without room = %v, %v", ok, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if ok, err := c.TrySend(ctx, 3); ok || !errors.Is(err, hark.ErrClosed) {
		t.Errorf("TrySend to a closed channel = %v, %v", ok, err)
	}
	if v, ok, err := c.TryReceive(ctx); v != 1 || !ok || err != nil {
		t.Errorf("TryReceive of what is left = %d, %v, %v", v, ok, err)
	}
	if _, ok, err := c.TryReceive(ctx); ok || !errors.Is(err, hark.ErrClosed) {
		t.Errorf("TryReceive from a closed and empty channel = %v, %v", ok, err)
	}
}

func testChanStats(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	c := openChan[string](t, bus, "jobs", 3)
	send(ctx, t, c, "a", "b", "c")
	wantReceive(ctx, t, c, "a")
	idle := openChan[int](t, bus, "idle", hark.Unbounded)
	var receiving sync.WaitGroup
	receiving.Go(func() {
		if _, err := idle.Receive(ctx); !errors.Is(err, hark.ErrClosed) {
			t.Error(err)
		}
	})
	wantWaiting(ctx, t, idle, 0, 1)
	want := []hark.ChanStats{
		{Name: "idle", Cap: hark.Unbounded, Receivers: 1},
		{Name: "jobs", Len: 2, Cap: 3, Sent: 3, Received: 1},
	}
	wantEqual(t, "Stats", bus.Stats().Chans, want)
	if err := idle.Close(); err != nil {
		t.Error(err)
	}
	receiving.Wait()
	wantWaiting(ctx, t, idle, 0, 0)
	if s := idle.Stats(); !s.Closed {
		t.Errorf("after the close: %+v", s)
	}
	var nodes []hark.Node
	for _, n := range bus.Topology().Nodes {
		if n.Kind == hark.KindChan {
			nodes = append(nodes, n)
		}
	}
	if len(nodes) != 2 || nodes[1].Name != "jobs" || nodes[1].Type != "string" || len(nodes[1].Ends) != 1 || nodes[1].Ends[0].Role != "declare" {
		t.Errorf("topology: %+v", nodes)
	}
}
