package natsdriver

import (
	"context"
	"fmt"
	"testing"

	"github.com/harkbus/hark"
)

// TestLeasesOfWaitingMessages has a handler that takes longer than the lease, with more
// messages in its process behind it: none is given out again, neither the one it handles
// nor those that wait, while another member of the group has nothing to do.
func TestLeasesOfWaitingMessages(t *testing.T) {
	for _, keyed := range []bool{false, true} {
		t.Run(fmt.Sprintf("keyed %v", keyed), func(t *testing.T) {
			t.Parallel()
			s := startServer(t, withJetStream)
			const n = 20
			handled := make(chan int, 2*n)
			subscribe := func(hold bool) (*hark.Topic[int], *hark.Subscription) {
				c, err := Open(testContext(t), s.url(), Lease(testLease))
				if err != nil {
					t.Fatal(err)
				}
				bus := hark.Over(c)
				t.Cleanup(func() { closeBus(t, bus) })
				opts := []hark.TopicOption{hark.Stored(hark.Retention{Durability: hark.Memory})}
				if keyed {
					opts = append(opts, hark.KeyBy(func(int) string { return "one" }))
				}
				topic, err := hark.NewTopic[int](bus, "numbers", opts...)
				if err != nil {
					t.Fatal(err)
				}
				sub, err := topic.Subscribe(func(ctx context.Context, m *hark.Message[int]) error {
					if hold {
						hold = false
						held, cancel := context.WithTimeout(ctx, 5*testLease/2)
						defer cancel()
						<-held.Done()
					}
					if m.Attempt() != 1 {
						t.Errorf("%d was given out %d times", m.Value, m.Attempt())
					}
					handled <- m.Value
					return nil
				}, hark.Group("g"))
				if err != nil {
					t.Fatal(err)
				}
				return topic, sub
			}
			topic, slow := subscribe(true)
			for i := range n {
				if err := topic.Publish(testContext(t), i); err != nil {
					t.Fatal(err)
				}
			}
			_, idle := subscribe(false)
			times := map[int]int{}
			for ctx := testContext(t); len(times) < n; {
				select {
				case i := <-handled:
					times[i]++
				case <-ctx.Done():
					t.Fatalf("got %d messages, want %d", len(times), n)
				}
			}
			for i, k := range times {
				if k != 1 {
					t.Errorf("%d was handled %d times", i, k)
				}
			}
			for _, sub := range []*hark.Subscription{slow, idle} {
				if s := sub.Stats(); s.Redelivered != 0 {
					t.Errorf("%d messages were given out again", s.Redelivered)
				}
			}
		})
	}
}
