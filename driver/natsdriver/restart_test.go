package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// While publishers publish and subscriptions receive, the server is stopped and
// restarted. No acknowledged message is missing, and subscriptions go on where they
// were.
func TestServerRestarts(t *testing.T) {
	for _, d := range []driver.Durability{driver.DurableStrict, driver.DurableRelaxed} {
		t.Run(durabilities[d].name, func(t *testing.T) {
			s := startServer(t, withSync)
			pub, sub := s.open(t, SyncAlways()), s.open(t, SyncAlways(), Lease(2*time.Second))
			cfg := &driver.StoredConfig{Durability: d}
			out, in := openTopic(t, pub, "t", cfg), openTopic(t, sub, "t", cfg)
			follower := subscribe(t, in, driver.SubscribeConfig{From: driver.FromStart})
			group := subscribe(t, in, driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 64})

			var stop atomic.Bool
			var wg sync.WaitGroup
			const publishers = 4
			var published [publishers]atomic.Int64
			for i := range publishers {
				wg.Go(func() {
					for n := 0; !stop.Load(); n++ {
						if err := out.Publish(testContext(t), bare(fmt.Sprintf("%d %d", i, n))); err != nil {
							t.Errorf("publish: %v", err)
							return
						}
						published[i].Add(1)
					}
				})
			}
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			var followed, shared collector
			wg.Go(func() { followed.collect(ctx, t, follower, false) })
			wg.Go(func() { shared.collect(ctx, t, group, true) })

			for round := range 3 {
				at := published[0].Load()
				eventually(t, "publishing", func() bool { return published[0].Load() > at+20 })
				s.stop()
				s.start()
				t.Logf("round %d: %d messages", round, published[0].Load())
			}
			at := published[0].Load()
			eventually(t, "publishing after the last restart", func() bool { return published[0].Load() > at+20 })
			stop.Store(true)
			for i := range publishers {
				want := published[i].Load()
				for name, c := range map[string]*collector{"follower": &followed, "group": &shared} {
					eventually(t, name+" has it all", func() bool { return c.has(i, int(want)) })
				}
			}
			cancel()
			wg.Wait()
			if followed.disorder != "" {
				t.Error(followed.disorder)
			}
		})
	}
}

// collector records what a subscription receives: texts made of a publisher and a
// number.
type collector struct {
	mu       sync.Mutex
	seen     map[string]bool
	seq      uint64
	disorder string
}

func (c *collector) has(publisher, n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range n {
		if !c.seen[strconv.Itoa(publisher)+" "+strconv.Itoa(i)] {
			return false
		}
	}
	return true
}

func (c *collector) collect(ctx context.Context, t *testing.T, s driver.Subscription, ack bool) {
	for {
		rs, err := s.Receive(ctx, 32)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, driver.ErrEnded) {
				t.Errorf("receive: %v", err)
			}
			return
		}
		if ack {
			if err := s.Ack(ctx, rs); err != nil && ctx.Err() == nil {
				t.Errorf("ack: %v", err)
			}
		}
		c.mu.Lock()
		if c.seen == nil {
			c.seen = map[string]bool{}
		}
		for _, r := range rs {
			if r.Seq <= c.seq {
				c.disorder = fmt.Sprintf("message %d came after %d", r.Seq, c.seq)
			}
			c.seq = r.Seq
			c.seen[string(r.Data)] = true
		}
		c.mu.Unlock()
	}
}

// Messages kept in memory are gone after a restart, but the topic goes on.
func TestMemoryTopicAfterRestart(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	topic := openTopic(t, c, "t", &driver.StoredConfig{Durability: driver.DurableMemory})
	all := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart})
	group := subscribe(t, topic, driver.SubscribeConfig{Group: "g"})
	publish(t, topic, "a", "b")
	receive(t, all, 2)
	receive(t, group, 2)
	s.stop()
	s.start()
	publish(t, topic, "c")
	for _, sub := range []driver.Subscription{all, group} {
		if rs := receive(t, sub, 1); string(rs[0].Data) != "c" || rs[0].Seq != 1 {
			t.Errorf("got %q with sequence %d", rs[0].Data, rs[0].Seq)
		}
	}
	if done, err := all.CaughtUp(testContext(t), 1); !done || err != nil {
		t.Errorf("caught up with what it has received: %v, %v", done, err)
	}
	if err := c.nc.ForceReconnect(); err != nil { // and nothing comes twice afterwards
		t.Fatal(err)
	}
	publish(t, topic, "d")
	if rs := receive(t, all, 1); string(rs[0].Data) != "d" {
		t.Errorf("got %q after the connection was lost, want d", rs[0].Data)
	}
}

// A call of Receive that ends while the connection is down does not keep later ones from
// receiving.
func TestReceiveAgainAfterRestart(t *testing.T) {
	s := startServer(t, withJetStream)
	topic := openTopic(t, s.open(t), "t", &driver.StoredConfig{Durability: driver.DurableRelaxed})
	c := s.open(t)
	sub := subscribe(t, openTopic(t, c, "t", &driver.StoredConfig{Existing: true}), driver.SubscribeConfig{From: driver.FromStart})
	publish(t, topic, "a")
	receive(t, sub, 1)
	s.stop()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	eventually(t, "a lost connection", func() bool { return !c.state.connected() })
	if _, err := sub.Receive(over, 1); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want the end of the context", err)
	}
	s.start()
	publish(t, topic, "b")
	if rs := receive(t, sub, 1); string(rs[0].Data) != "b" {
		t.Errorf("got %q, want b", rs[0].Data)
	}
}

// A topic in memory that was taken as it is gets its limits again.
func TestExistingAfterRestart(t *testing.T) {
	s := startServer(t, withJetStream)
	owner := s.open(t)
	limits := &driver.StoredConfig{Durability: driver.DurableMemory, MaxMessages: 9, MaxAge: 3 * time.Hour, Dedup: time.Hour}
	openTopic(t, owner, "t", limits)
	topic := openTopic(t, s.open(t), "t", &driver.StoredConfig{Existing: true, AnyClass: true, Dedup: 2 * time.Minute})
	s.stop()
	s.start()
	publish(t, topic, "x") // creates it again
	openTopic(t, owner, "t", limits)
}

// When a server that kept a topic in memory restarts, the sequences of the topic
// start anew. What a member then says about a message from before must not apply to
// a new message with that sequence, which another member has in flight.
func TestWordsAboutFormerMessages(t *testing.T) {
	s := startServer(t, withJetStream)
	cfg := &driver.StoredConfig{Durability: driver.DurableMemory}
	config := driver.SubscribeConfig{Group: "g", From: driver.FromStart}
	out := openTopic(t, s.open(t), "t", cfg)
	busy := subscribe(t, openTopic(t, s.open(t), "t", cfg), config)
	publish(t, out, "a", "b")
	former := receive(t, busy, 2)
	s.stop()
	s.start()
	in := openTopic(t, s.open(t), "t", cfg)
	other := subscribe(t, in, config)
	publish(t, out, "c", "d")
	if got := texts(receive(t, other, 2)); got[0] != "c" || got[1] != "d" {
		t.Fatalf("the other member got %v", got)
	}
	if err := busy.Ack(testContext(t), former[:1]); err != nil {
		t.Fatal(err)
	}
	if err := busy.Return(testContext(t), former[1:]); err != nil {
		t.Fatal(err)
	}
	if err := busy.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := other.Close(testContext(t)); err != nil { // none of it has been acknowledged
		t.Fatal(err)
	}
	rs := receive(t, subscribe(t, in, config), 2)
	for i, want := range []string{"c", "d"} {
		if r := rs[i]; string(r.Data) != want || r.Deliveries != 2 {
			t.Errorf("got %q, delivered %d times, want %q and 2", r.Data, r.Deliveries, want)
		}
	}
}
