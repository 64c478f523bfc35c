package natsdriver

import (
	"context"
	"testing"
	"time"
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
