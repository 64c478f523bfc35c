package natsdriver

import (
	"context"
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
				ch.withdrawLocked()
				ch.mu.Unlock()
				receiveNumbers(ctx, t, here, values*round, values)
			}
			t.Logf("in %d of %d rounds the request was withdrawn before the value came", withdrawn, rounds)
		})
	}
}

// Of two values on their way to requests that are withdrawn, the server sends one,
// and finds the requests gone when it is about to send the other. Both go back in
// their order.
func TestChanKeepsOrderOfDivided(t *testing.T) {
	const (
		rounds = 5
		values = 25 // per round; while the server stores them, it sends nothing
	)
	s := startServer(t, withSync)
	p := s.startProxy(t)
	ctx := testContext(t)
	sender, here := openChan(t, s.open(t), driver.Unbounded), openChan(t, s.openThrough(t, p, Lease(patience)), driver.Unbounded)
	ch, nc := here.(*channel), sender.(*channel).conn.nc
	passed := func() { // what the server had to send before
		if _, err := nc.RequestWithContext(ctx, ch.nextSubject(), fenceRequest); err != nil {
			t.Fatal(err)
		}
	}
	for round := range rounds {
		requestAhead(t, ch, 2)
		release := p.hold()
		for i := range values {
			m := sender.(*channel).message(chanPrefix, []byte(strconv.Itoa(values*round+i)))
			if err := nc.PublishMsg(m); err != nil {
				t.Fatal(err)
			}
			if i > 0 {
				continue
			}
			eventually(t, "the server has a first value to send", func() bool { return consumerOf(t, sender).NumAckPending == 1 })
			passed()
		}
		eventually(t, "the server is about to send the second", func() bool { return consumerOf(t, sender).NumAckPending >= 2 })
		ch.mu.Lock()
		ch.left = time.Time{}
		ch.withdrawLocked()
		ch.mu.Unlock()
		eventually(t, "the request is withdrawn", func() bool { return consumerOf(t, sender).NumWaiting == 0 })
		passed() // the server has tried to send the second
		release()
		receiveNumbers(ctx, t, here, values*round, values)
	}
}

// requestAhead requests values as if the last receivers of a channel had left, but
// not long ago.
func requestAhead(t *testing.T, ch *channel, values int) {
	t.Helper()
	ch.mu.Lock()
	in, err := ch.intakeLocked()
	if err == nil {
		in.at, ch.left = time.Now(), time.Now().Add(time.Hour)
		err = ch.pull(in, "n", values, false)
	}
	ch.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server has the request", func() bool { return consumerOf(t, ch).NumWaiting == 1 })
}

// consumerOf returns what the server says about the consumer of a channel.
func consumerOf(t *testing.T, ch driver.Chan) *jetstream.ConsumerInfo {
	t.Helper()
	consumer, err := ch.(*channel).values.Consumer(testContext(t), chanConsumer)
	if err != nil {
		t.Fatal(err)
	}
	return consumer.CachedInfo()
}

// receiveNumbers receives n numbers in order, the first of which is from, alternately
// waiting and trying.
func receiveNumbers(ctx context.Context, t *testing.T, ch driver.Chan, from, n int) {
	t.Helper()
	for i := range n {
		v, err := ch.Receive(ctx, i%2 == 1)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(v.Data), strconv.Itoa(from+i); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
		if err := v.Done(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
