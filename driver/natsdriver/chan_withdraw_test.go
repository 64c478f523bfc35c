package natsdriver

import (
	"strconv"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// Values that arrive when nobody waits any more go back to the server, and come
// again before later ones to whoever receives next here.
func TestChanKeepsOrderAfterWithdrawal(t *testing.T) {
	const (
		rounds = 50
		values = 2 // per round
	)
	s := startServer(t, withJetStream)
	ctx := testContext(t)
	sender, here := openChan(t, s.open(t), driver.Unbounded), openChan(t, s.open(t), driver.Unbounded)
	ch := here.(*channel)
	for round := range rounds {
		ch.mu.Lock()
		in, err := ch.intakeLocked()
		if err == nil { // as if the last receiver had left, but not long ago
			in.at, ch.left = time.Now(), time.Now().Add(time.Hour)
			err = ch.pull(in, "n", 1, false)
		}
		ch.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		for i := range values {
			if err := sender.Send(ctx, []byte(strconv.Itoa(values*round+i)), false); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "the first value has come", func() bool {
			ch.mu.Lock()
			defer ch.mu.Unlock()
			return len(ch.spare) > 0
		})
		ch.mu.Lock()
		ch.left = time.Time{}
		if ch.withdrawLocked(); len(ch.spare) > 0 {
			t.Error("what nobody has wanted for long is kept")
		}
		ch.mu.Unlock()
		receiveNumbers(ctx, t, here, values*round, values)
	}
}

// A value that goes back while another one is on its way comes again before that
// one.
func TestChanKeepsOrderOfReturned(t *testing.T) {
	const rounds = 5
	s := startServer(t, withJetStream)
	p := s.startProxy(t)
	ctx := testContext(t)
	sender, here := openChan(t, s.open(t), driver.Unbounded), openChan(t, s.openThrough(t, p, Lease(patience)), driver.Unbounded)
	ch := here.(*channel)
	send := func(n int) {
		if err := sender.Send(ctx, []byte(strconv.Itoa(n)), false); err != nil {
			t.Fatal(err)
		}
	}
	for round := range rounds {
		requestAhead(t, ch, 3)
		send(2 * round)
		eventually(t, "the first value has come", func() bool {
			ch.mu.Lock()
			defer ch.mu.Unlock()
			return len(ch.spare) > 0
		})
		release := p.hold()
		send(2*round + 1)
		eventually(t, "the server sends the second value", func() bool { return consumerOf(t, sender).NumAckPending == 2 })
		ch.mu.Lock()
		ch.left = time.Time{}
		ch.withdrawLocked()
		ch.mu.Unlock()
		eventually(t, "the request is over", func() bool { return consumerOf(t, sender).NumWaiting == 0 })
		release()
		for i := range 2 {
			v, err := here.Receive(ctx, i == 1)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := string(v.Data), strconv.Itoa(2*round+i); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
			if err := v.Done(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
}
