package broker

import (
	"strconv"
	"testing"

	"github.com/harkbus/hark/driver"
)

// TestReloadUnderRoute declares a topic, and a store, under routes that take messages
// from there as they are published, while some are: each is routed once and in order.
// Then it takes the declaration out again.
func TestReloadUnderRoute(t *testing.T) {
	for _, tt := range []struct{ name, from, declare string }{
		{"a topic", "orders.a", "{name: orders.a, durability: memory}"},
		{"a topic of a pattern", "orders.*", "{name: orders.a, durability: memory}"},
		{"a store", "orders.*", "{name: 'orders.>', durability: memory}"},
		{"a store of a topic", "orders.a", "{name: 'orders.*', durability: memory}"},
	} {
		for _, bare := range []bool{false, true} {
			t.Run(tt.name+map[bool]string{true: ", without IDs"}[bare], func(t *testing.T) {
				dir := t.TempDir()
				routes := "\nroutes: [{from: '" + tt.from + "', to: [copy, kept]}]"
				before := configIn(t, dir, "topics: [{name: kept, durability: memory}]"+routes)
				after := configIn(t, dir, "topics: [{name: kept, durability: memory}, "+tt.declare+"]"+routes)
				b := start(t, before)
				c := dial(t, b, "")
				copies, kept := listen(t, c, "copy"), replay(t, c, "kept")
				ns := newCounting(t, c, "orders.a", bare)
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
}

// counting publishes numbers, never many more than have been counted.
type counting struct {
	topic     driver.Topic
	bare      bool
	conn      driver.Conn
	room      chan struct{}
	over      chan struct{}
	done      chan struct{}
	published int // by those who have ended it
	counted   map[driver.Subscription]int
}

func newCounting(t *testing.T, c driver.Conn, topic string, bare bool) *counting {
	t.Helper()
	to, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: topic})
	if err != nil {
		t.Fatal(err)
	}
	s := &counting{topic: to, bare: bare, conn: c, room: make(chan struct{}, 200), over: make(chan struct{}), done: make(chan struct{}), counted: map[driver.Subscription]int{}}
	ctx := testContext(t)
	go func() {
		defer close(s.done)
		for {
			select {
			case <-s.over:
				return
			case s.room <- struct{}{}:
			}
			m := &driver.Message{Data: []byte(strconv.Itoa(s.published)), Bare: s.bare}
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

// count receives numbers until there were n, each in its turn.
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

// end ends it.
func (s *counting) end(t *testing.T) {
	t.Helper()
	close(s.over)
	<-s.done
	if err := s.conn.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
}
