package broker

import (
	"hash/maphash"
	"os"
	"strconv"
	"testing"

	"github.com/harkbus/hark/driver"
)

// TestRouted records messages and finds each of them again, as often as it was recorded.
func TestRouted(t *testing.T) {
	message := func(topic, id, data string, seq uint64) *driver.Received {
		m := &driver.Received{Topic: topic, Seq: seq}
		m.ID, m.Data = id, []byte(data)
		return m
	}
	var none *routedMarks
	none.add(message("a", "1", "", 0))
	seed := maphash.MakeSeed()
	one := &routedMarks{seed, func(topic string) bool { return topic == "a" }, map[uint64]int{}}
	other := &routedMarks{seed, one.changes, map[uint64]int{}}
	for _, n := range []*routedMarks{one, other} { // two routes have taken the same messages
		for _, m := range []*driver.Received{message("a", "1", "x", 0), message("a", "", "x", 0), message("a", "", "x", 0), message("b", "1", "x", 0)} {
			n.add(m)
		}
	}
	d := &skipSet{seed: seed, marks: map[uint64]int{}}
	d.add(one)
	d.add(other)
	d.add(nil)
	stored, live := d.until(3, 0), d.until(0, 3)
	for _, tt := range []struct {
		m    *driver.Received
		want bool
	}{
		{message("a", "", "x", 1), true},
		{message("a", "", "y", 2), false},
		{message("a", "", "x", 3), true},
		{message("a", "", "x", 4), false}, // published later
		{message("b", "1", "x", 5), false},
		{message("a", "1", "z", 6), true}, // stored late
		{message("a", "1", "z", 7), false},
	} {
		if got := stored.has(tt.m); got != tt.want {
			t.Errorf("%d: got %v", tt.m.Seq, got)
		}
		tt.m.Seq = 0
		if got := live.has(tt.m); got != tt.want {
			t.Errorf("%+v: got %v, want %v", tt.m, got, tt.want)
		}
	}
}

// TestReloadUnderRoute declares a topic, and a store, under routes that take
// messages from there as they are published, while some are; each message must be
// routed once and in order. With HARK_LONG=1 it also takes the declaration out
// again: that the server delivers a message at the moment it stores it is likely,
// but not promised.
func TestReloadUnderRoute(t *testing.T) {
	if os.Getenv("HARK_LONG") == "" {
		t.Skip("HARK_LONG=1 reloads under load")
	}
	for _, tt := range []struct{ name, from, declare string }{
		{"a topic", "orders.a", "{name: orders.a, durability: memory}"},
		{"a topic of a pattern", "orders.*", "{name: orders.a, durability: memory}"},
		{"a store", "orders.*", "{name: 'orders.>', durability: memory}"},
		{"a store of a topic", "orders.a", "{name: 'orders.*', durability: memory}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			routes := "\nroutes: [{from: '" + tt.from + "', to: [copy, kept]}]"
			before := configIn(t, dir, "topics: [{name: kept, durability: memory}]"+routes)
			after := configIn(t, dir, "topics: [{name: kept, durability: memory}, "+tt.declare+"]"+routes)
			b := start(t, before)
			c := dial(t, b, "")
			copies, kept := listen(t, c, "copy"), replay(t, c, "kept")
			ns := newCounting(t, c, "orders.a")
			ns.flows(t, copies, kept)
			for range 2 {
				for _, to := range []*Config{after, before} {
					reloaded := make(chan error, 1)
					go func() { reloaded <- b.Reload(testContext(t), to) }()
					for under := true; under; {
						ns.flows(t, copies, kept)
						select {
						case err := <-reloaded:
							if err != nil {
								t.Fatal(err)
							}
							under = false
						default:
						}
					}
					ns.flows(t, copies, kept)
				}
			}
			ns.end(t)
			n := ns.published
			ns.count(t, n, copies, kept)
			publish(t, c, "orders.a", &driver.Message{Data: []byte("end")})
			for _, sub := range []driver.Subscription{copies, kept} {
				if m := receive(t, sub, 1)[0]; string(m.Data) != "end" {
					t.Errorf("got %s behind the last of %d", m.Data, n)
				}
			}
		})
	}
}

// counting publishes numbers, never many more than have been counted.
type counting struct {
	topic     driver.Topic
	conn      driver.Conn
	room      chan struct{}
	over      chan struct{}
	done      chan struct{}
	published int // by publishers that have ended
	counted   map[driver.Subscription]int
}

func newCounting(t *testing.T, c driver.Conn, topic string) *counting {
	t.Helper()
	to, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: topic})
	if err != nil {
		t.Fatal(err)
	}
	s := &counting{topic: to, conn: c, room: make(chan struct{}, 200), over: make(chan struct{}), done: make(chan struct{}), counted: map[driver.Subscription]int{}}
	ctx := testContext(t)
	go func() {
		defer close(s.done)
		for {
			select {
			case <-s.over:
				return
			case s.room <- struct{}{}:
			}
			m := &driver.Message{Data: []byte(strconv.Itoa(s.published))}
			if err := s.topic.Publish(ctx, []*driver.Message{m}); err != nil {
				t.Errorf("publish: %v", err)
				return
			}
			if s.published++; s.published%20 == 0 {
				if err := s.conn.Flush(ctx); err != nil {
					t.Errorf("flush: %v", err)
					return
				}
			}
		}
	}()
	return s
}

// flows counts some of the numbers.
func (s *counting) flows(t *testing.T, subs ...driver.Subscription) {
	t.Helper()
	s.count(t, s.counted[subs[0]]+100, subs...)
}

// count receives n numbers, each in its turn.
func (s *counting) count(t *testing.T, n int, subs ...driver.Subscription) {
	t.Helper()
	for i, sub := range subs {
		for s.counted[sub] < n {
			ms, err := sub.Receive(testContext(t), n-s.counted[sub])
			if err != nil {
				t.Fatalf("%v behind %d", err, s.counted[sub]-1)
			}
			for _, m := range ms {
				if want := strconv.Itoa(s.counted[sub]); string(m.Data) != want {
					t.Fatalf("got %s on %s, want %s", m.Data, m.Topic, want)
				}
				s.counted[sub]++
				if i == 0 {
					<-s.room
				}
			}
		}
	}
}

// end stops publishing.
func (s *counting) end(t *testing.T) {
	t.Helper()
	close(s.over)
	<-s.done
	if err := s.conn.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
}
