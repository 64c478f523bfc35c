package natsdriver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// TrySend sees a receiver of its own process before the server knows of it.
func TestChanSeesReceiverHere(t *testing.T) {
	s := startServer(t, withJetStream)
	ctx, cancel := context.WithCancel(testContext(t))
	ch := openChan(t, s.open(t), 0).(*channel)
	ch.mu.Lock()
	ch.askAfter = time.Now().Add(time.Hour) // the server does not learn of the receiver
	ch.mu.Unlock()
	received := make(chan error, 1)
	go func() {
		_, err := ch.Receive(ctx, false)
		received <- err
	}()
	eventually(t, "the receiver waits", func() bool {
		_, receivers := ch.Waiting()
		return receivers > 0
	})
	if room, err := ch.hasRoom(ctx); err != nil || !room {
		t.Errorf("hasRoom = %v, %v, want true: a receiver waits", room, err)
	}
	cancel()
	if err := <-received; err == nil {
		t.Error("something was received")
	}
	if room, err := ch.hasRoom(testContext(t)); err != nil || room {
		t.Errorf("hasRoom = %v, %v, want false: nobody waits", room, err)
	}
}

// When a connection is lost while a receiver takes a value that is sent with
// TrySend, both sides agree on whether it was sent.
func TestChanIsCutWhileTrying(t *testing.T) {
	type side struct {
		p  *proxy
		ch *channel
	}
	cut := func(p *proxy) {
		p.cut()
		p.mend()
	}
	for _, tt := range []struct {
		name string
		// fail begins before the receiver asks for the value; what it returns runs
		// while it asks.
		fail func(t *testing.T, sender, receiver side) (finish func())
	}{
		{"the receiver does not ask", func(t *testing.T, _, receiver side) func() {
			receiver.p.loseAfter(0)
			return func() {
				receiver.p.awaitLoss(t)
				cut(receiver.p)
			}
		}},
		{"the receiver does not hear the answer", func(t *testing.T, sender, receiver side) func() {
			release := receiver.p.hold()
			return func() {
				defer release()
				eventually(t, "the sender decides, or has given up", func() bool {
					sender.ch.mu.Lock()
					defer sender.ch.mu.Unlock()
					return len(sender.ch.decided) > 0 || len(sender.ch.offers) == 0
				})
				receiver.p.cut()
				release()
				receiver.p.mend()
			}
		}},
		{"the sender is not asked", func(_ *testing.T, sender, _ side) func() {
			release := sender.p.hold()
			return func() {
				sender.p.cut()
				release()
				sender.p.mend()
			}
		}},
		{"the sender does not answer", func(t *testing.T, sender, _ side) func() {
			sender.p.loseAfter(0)
			return func() {
				sender.p.awaitLoss(t)
				cut(sender.p)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, withJetStream)
			ctx := testContext(t)
			open := func() side {
				p := s.startProxy(t)
				return side{p, openChan(t, s.openThrough(t, p, Lease(patience)), 0).(*channel)}
			}
			sender, receiver := open(), open()
			sent, done := make(chan error, 1), make(chan error, 1)
			received := make(chan *driver.ChanValue, 1)
			go func() {
				v, err := receiver.ch.Receive(ctx, false)
				if err != nil {
					t.Error(err)
				}
				received <- v
			}()
			eventually(t, "the server has the request", func() bool { return consumerOf(t, sender.ch).NumWaiting == 1 })
			go func() { sent <- sender.ch.Send(ctx, []byte("a"), true) }()
			v := <-received
			if v == nil {
				return
			}
			finish := tt.fail(t, sender, receiver)
			go func() { done <- v.Done(ctx) }()
			finish()
			sendErr, doneErr := <-sent, <-done
			if (sendErr == nil) != (doneErr == nil) || sendErr != nil && !errors.Is(sendErr, driver.ErrAgain) || doneErr != nil && !errors.Is(doneErr, driver.ErrEnded) {
				t.Errorf("send = %v and done = %v, want nil and nil, or ErrAgain and ErrEnded", sendErr, doneErr)
			}
			t.Logf("sent: %v", sendErr == nil)
			go func() { sent <- sender.ch.Send(ctx, []byte("b"), false) }()
			for doneErr = driver.ErrEnded; errors.Is(doneErr, driver.ErrEnded); doneErr = v.Done(ctx) { // what is left of the offer
				if v, doneErr = receiver.ch.Receive(ctx, false); doneErr != nil {
					t.Fatal(doneErr)
				}
			}
			if doneErr != nil || string(v.Data) != "b" {
				t.Errorf("received %s, %v, want b", v.Data, doneErr)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
		})
	}
}
