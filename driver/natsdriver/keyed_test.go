package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// ledger records what the members of a group do. Each message is a key and a number
// that grows by one per key.
type ledger struct {
	mu       sync.Mutex
	next     map[string]int
	disorder []string
	repeats  int
}

func (l *ledger) done(m *driver.Received) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, _ := strconv.Atoi(string(m.Data))
	switch {
	case n == l.next[m.Key]:
		l.next[m.Key]++
	case n < l.next[m.Key]:
		l.repeats++
	default:
		l.disorder = append(l.disorder, fmt.Sprintf("key %s: %d came when %d was next", m.Key, n, l.next[m.Key]))
	}
}

func (l *ledger) has(keys, each int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range keys {
		if l.next[keyName(k)] < each {
			return false
		}
	}
	return true
}

func (l *ledger) check(t *testing.T, repeats bool) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.disorder) > 0 {
		t.Errorf("out of order %d times, first: %s", len(l.disorder), l.disorder[0])
	}
	if l.repeats > 0 && !repeats {
		t.Errorf("%d messages came twice", l.repeats)
	}
}

func keyName(k int) string { return "key " + strconv.Itoa(k) }

func publishKeys(t *testing.T, topic driver.Topic, keys, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		ms := make([]*driver.Message, keys)
		for k := range ms {
			ms[k] = &driver.Message{Data: []byte(strconv.Itoa(i)), Key: keyName(k), HasKey: true, Bare: true}
		}
		if err := topic.Publish(testContext(t), ms); err != nil {
			t.Errorf("publish: %v", err)
		}
	}
}

// labour works through what a member receives until ctx ends. It leaves the last
// batch undone, and returns when nothing more comes.
func labour(ctx context.Context, t *testing.T, l *ledger, s driver.Subscription) {
	for {
		rs, err := s.Receive(ctx, 16)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, driver.ErrEnded) {
				t.Errorf("receive: %v", err)
			}
			return
		}
		if ctx.Err() != nil {
			return
		}
		for _, r := range rs {
			l.done(r)
		}
		if err := s.Ack(testContext(t), rs); err != nil {
			t.Errorf("ack: %v", err)
		}
	}
}

func joinKeyed(t *testing.T, topic driver.Topic) driver.Subscription {
	t.Helper()
	return subscribe(t, topic, driver.SubscribeConfig{Group: "g", Keyed: true, From: driver.FromStart, Window: 64})
}

// While members join and leave, some with messages in flight, each message comes
// once, and those of a key in order.
func TestKeyedMembersComeAndGo(t *testing.T) {
	const keys, each = 40, 150
	s := startServer(t, withJetStream)
	l := &ledger{next: map[string]int{}}
	out := openTopic(t, s.open(t), "t", relaxed())
	var wg sync.WaitGroup
	wg.Go(func() { publishKeys(t, out, keys, 0, each) })
	for i := range 4 {
		in := openTopic(t, s.open(t), "t", relaxed())
		wg.Go(func() {
			for round := range 4 {
				member := joinKeyed(t, in)
				ctx, cancel := context.WithCancel(testContext(t))
				go func() { // until it has seen some, or all are done
					for target := 300 * (i + round); !l.has(keys, each) && ctx.Err() == nil; {
						l.mu.Lock()
						total := 0
						for _, n := range l.next {
							total += n
						}
						l.mu.Unlock()
						if total > target && round < 3 {
							break
						}
						select {
						case <-ctx.Done():
						case <-time.After(time.Millisecond):
						}
					}
					cancel()
				}()
				labour(ctx, t, l, member)
				cancel()
				if err := member.Close(testContext(t)); err != nil {
					t.Errorf("close: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if !l.has(keys, each) {
		t.Error("messages are missing", l.next)
	}
	l.check(t, false)
}

// A member whose process ends without notice loses its slots when its lease ends.
// Nothing is missing, and keys keep their order.
func TestKeyedMemberDies(t *testing.T) {
	const keys, each = 20, 40
	s := startServer(t, withJetStream)
	l := &ledger{next: map[string]int{}}
	out := openTopic(t, s.open(t), "t", relaxed())
	mortal, err := Open(testContext(t), s.url(), Lease(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	dying := joinKeyed(t, openTopic(t, mortal, "t", relaxed()))
	survivor := joinKeyed(t, openTopic(t, s.open(t, Lease(time.Second)), "t", relaxed()))
	publishKeys(t, out, keys, 0, each/2)
	held := receive(t, dying, 5) // neither acknowledged nor returned
	mortal.nc.Close()
	if len(held) == 0 {
		t.Fatal("the first member has nothing")
	}
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { labour(ctx, t, l, survivor) })
	publishKeys(t, out, keys, each/2, each/2)
	eventually(t, "the other member has it all", func() bool { return l.has(keys, each) })
	cancel()
	wg.Wait()
	l.check(t, true)
	closeConn(t, mortal)
}

// When the server restarts, members continue with their slots, and with the
// messages that were on their way.
func TestKeyedAfterRestart(t *testing.T) {
	for _, d := range []driver.Durability{driver.DurableRelaxed, driver.DurableMemory} {
		t.Run(durabilities[d].name, func(t *testing.T) {
			const keys, each = 20, 60
			s := startServer(t, withJetStream)
			l := &ledger{next: map[string]int{}}
			cfg := &driver.StoredConfig{Durability: d}
			out := openTopic(t, s.open(t), "t", cfg)
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			var wg sync.WaitGroup
			for range 3 {
				member := joinKeyed(t, openTopic(t, s.open(t), "t", cfg))
				wg.Go(func() { labour(ctx, t, l, member) })
			}
			for round := range 3 {
				publishKeys(t, out, keys, round*each/3, each/3)
				if d == driver.DurableMemory { // messages not done by then are lost
					eventually(t, "all is done", func() bool { return l.has(keys, (round+1)*each/3) })
				}
				s.stop()
				s.start()
			}
			publishKeys(t, out, keys, each, 1)
			eventually(t, "the members have it all", func() bool { return l.has(keys, each+1) })
			cancel()
			wg.Wait()
			l.check(t, true)
		})
	}
}

func TestKeyedGroupIsOneKindOnly(t *testing.T) {
	s := startServer(t, withJetStream)
	topic := openTopic(t, s.open(t), "t", relaxed())
	joinKeyed(t, topic)
	_, err := topic.Subscribe(testContext(t), driver.SubscribeConfig{Group: "g", Window: 1})
	if !errors.Is(err, driver.ErrConflict) || !strings.Contains(err.Error(), "KeyBy") {
		t.Errorf("got %v, want ErrConflict that names KeyBy", err)
	}
}

func TestRosterQuota(t *testing.T) {
	r := newRoster()
	for _, members := range []int{1, 2, 3, 5, partitions, partitions + 3} {
		clear(r.Members)
		for i := range members {
			r.Members[fmt.Sprintf("m%02d", i)] = 1
		}
		sum, least, most := 0, partitions, 0
		for m := range r.Members {
			q := r.quota(m)
			sum, least, most = sum+q, min(least, q), max(most, q)
		}
		if sum != partitions || most-least > 1 {
			t.Errorf("%d members: got %d slots, between %d and %d each; want %d and even shares", members, sum, least, most, partitions)
		}
	}
	if got := r.quota("nobody"); got != 0 {
		t.Errorf("who is no member: got %d slots", got)
	}
}

func TestSilentMembers(t *testing.T) {
	r := newRoster()
	r.Members["a"], r.Members["b"] = 1, 1
	p := heartbeats{}
	at := time.Now()
	after := func(d time.Duration, want ...string) {
		t.Helper()
		got := p.silent(r, at.Add(d), time.Second)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("after %v: got %v, want %v", d, got, want)
		}
	}
	after(0)
	r.Members["a"]++
	after(900 * time.Millisecond)
	after(1100*time.Millisecond, "b")
	delete(r.Members, "b")
	after(1200 * time.Millisecond)
	r.Members["b"] = 1 // again
	after(2*time.Second, "a")
	after(2100*time.Millisecond, "a")
}
