package natsdriver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

// A cluster refuses a value while it stores another one. The sender tries again
// less and less often, until its context ends.
func TestChanTriesLessOften(t *testing.T) {
	s := startServer(t, withJetStream)
	ctx := testContext(t)
	c := s.open(t)
	ch := openChan(t, c, driver.Unbounded)
	if err := c.js.DeleteStream(ctx, ch.(*channel).stream); err != nil { // the test answers in its place
		t.Fatal(err)
	}
	const refused = 8
	attempts := make(chan int, 100)
	n := 0
	other := s.open(t)
	_, err := other.Client().Subscribe(chanPrefix+"jobs", func(m *nats.Msg) {
		answer := `{"stream":"jobs","seq":1}`
		if n++; n != refused+1 {
			answer = `{"error":{"code":400,"err_code":10164,"description":"wrong last sequence"},"stream":"jobs","seq":0}`
		}
		if err := m.Respond([]byte(answer)); err != nil {
			t.Error(err)
		}
		attempts <- n
	})
	if err == nil {
		err = other.Flush(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := ch.Send(ctx, []byte("refused"), false); err != nil {
		t.Fatal(err)
	}
	if took, least := time.Since(begin), 2*chanPoll; took < least || len(attempts) != refused+1 {
		t.Errorf("%d attempts took %v, want %d in at least %v", len(attempts), took, refused+1, least)
	}
	for len(attempts) > 0 {
		<-attempts
	}
	waits, stop := context.WithCancelCause(ctx)
	enough := errors.New("enough")
	sent := make(chan error, 1)
	go func() { sent <- ch.Send(waits, []byte("refused for ever"), false) }()
	<-attempts
	stop(enough)
	if err := <-sent; !errors.Is(err, enough) {
		t.Errorf("send: got %v, want the cause", err)
	}
}

// A sender that waits for room hears at once that a value is done which somebody else
// may have too, though the server does not report it.
func TestChanTellsOfRemoved(t *testing.T) {
	const rounds = 5
	s := startServer(t, withJetStream)
	ctx := testContext(t)
	here, away := openChan(t, s.open(t), 1), openChan(t, s.open(t), 1)
	receive := func() *driver.ChanValue {
		v, err := here.Receive(ctx, false)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if err := here.Send(ctx, []byte("0"), false); err != nil {
		t.Fatal(err)
	}
	for range rounds {
		if err := receive().Return(ctx); err != nil {
			t.Fatal(err)
		}
		v := receive()
		sent := make(chan error, 1)
		go func() { sent <- away.Send(ctx, []byte("next"), false) }()
		eventually(t, "a sender waits", func() bool {
			senders, _ := away.Waiting()
			return senders == 1
		})
		before := away.(*channel).freesSoFar()
		if err := v.Done(ctx); err != nil {
			t.Fatal(err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		eventually(t, "the sender is told", func() bool { return away.(*channel).freesSoFar() > before })
	}
}
