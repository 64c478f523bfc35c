package natsdriver

import (
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// A value that the server is about to send to a request when the request is
// withdrawn comes before later ones to whoever receives next here.
func TestChanKeepsOrderAfterIntake(t *testing.T) {
	const (
		rounds = 3
		values = 25 // per round; while the server stores them, it sends nothing
	)
	for _, asked := range []int{1, 2} {
		t.Run(strconv.Itoa(asked)+" values", func(t *testing.T) {
			s := startServer(t, withSync)
			ctx := testContext(t)
			sender, here := openChan(t, s.open(t), driver.Unbounded), openChan(t, s.open(t), driver.Unbounded)
			ch := here.(*channel)
			consumer := func() *jetstream.ConsumerInfo {
				consumer, err := ch.values.Consumer(ctx, chanConsumer)
				if err != nil {
					t.Fatal(err)
				}
				return consumer.CachedInfo()
			}
			withdrawn := 0 // rounds in which no value had arrived before
			for round := range rounds {
				ch.mu.Lock()
				in, err := ch.intakeLocked()
				if err == nil { // as if the last receivers had left, but not long ago
					in.at, ch.left = time.Now(), time.Now().Add(time.Hour)
					err = ch.pull(in, "n", asked, false)
				}
				ch.mu.Unlock()
				if err != nil {
					t.Fatal(err)
				}
				eventually(t, "the server has the request", func() bool { return consumer().NumWaiting == 1 })
				for i := range values {
					m := sender.(*channel).message(chanPrefix, []byte(strconv.Itoa(values*round+i)))
					if err := sender.(*channel).conn.nc.PublishMsg(m); err != nil {
						t.Fatal(err)
					}
				}
				eventually(t, "the server answers the request", func() bool { return consumer().NumAckPending >= asked })
				ch.mu.Lock()
				if len(ch.spare) == 0 {
					withdrawn++
				}
				ch.left = time.Time{}
				ch.restLocked()
				ch.mu.Unlock()
				for i := range values {
					v, err := here.Receive(ctx, i%2 == 1)
					if err != nil {
						t.Fatal(err)
					}
					if got, want := string(v.Data), strconv.Itoa(values*round+i); got != want {
						t.Fatalf("got %s, want %s", got, want)
					}
					if err := v.Done(ctx); err != nil {
						t.Fatal(err)
					}
				}
			}
			t.Logf("in %d of %d rounds the request was withdrawn before the value came", withdrawn, rounds)
		})
	}
}
