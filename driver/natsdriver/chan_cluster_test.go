package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// On several servers the values of a channel and its consumer have separate
// leaders, which tell each other what happens.
func TestChanOnCluster(t *testing.T) {
	c := startCluster(t, "")
	a, b := c.open(t), c.open(t)
	openOn := func(t *testing.T, conn *Conn, name string) *channel {
		t.Helper()
		ch, err := conn.OpenChan(longContext(t), driver.ChanConfig{Name: name, Capacity: 2, Durability: driver.DurableRelaxed})
		if err != nil {
			t.Fatal(err)
		}
		return ch.(*channel)
	}
	send := func(t *testing.T, ch driver.Chan, text string) {
		t.Helper()
		if err := ch.Send(longContext(t), []byte(text), false); err != nil {
			t.Fatal(err)
		}
	}
	take := func(t *testing.T, ch driver.Chan, want string) *driver.ChanValue {
		t.Helper()
		v, err := ch.Receive(longContext(t), false)
		if err != nil || string(v.Data) != want {
			t.Fatalf("receive: %v, %v, want %s", v, err, want)
		}
		return v
	}

	t.Run("who is told that a value is done with has it alone", func(t *testing.T) {
		here, there := openOn(t, a, "once"), openOn(t, b, "once")
		send(t, there, "1")
		v := take(t, here, "1")
		// Another receiver that also got the value, because a lease ended, is done
		// with it.
		if err := (&chanDelivery{ch: there, seq: 1, at: time.Now(), reply: "nobody"}).remove(longContext(t)); err != nil {
			t.Fatal(err)
		}
		if err := v.Done(longContext(t)); !errors.Is(err, driver.ErrEnded) {
			t.Errorf("done with what somebody else is done with: %v, want ErrEnded", err)
		}
	})

	t.Run("what is done with is gone", func(t *testing.T) {
		here, there := openOn(t, a, "gone"), openOn(t, b, "gone")
		for i := range 50 {
			send(t, there, fmt.Sprint(i))
			if err := take(t, here, fmt.Sprint(i)).Done(longContext(t)); err != nil {
				t.Fatal(err)
			}
			for _, ch := range []*channel{here, there} {
				if n, err := ch.Len(longContext(t)); n != 0 || err != nil {
					t.Fatalf("value %d is done with, and Len is %d, %v", i, n, err)
				}
				if _, err := ch.Receive(longContext(t), true); !errors.Is(err, driver.ErrAgain) {
					t.Fatalf("value %d is done with, and receiving what there is: %v, want ErrAgain", i, err)
				}
			}
		}
	})

	t.Run("a receiver waits while leaders change", func(t *testing.T) {
		here, there := openOn(t, a, "led"), openOn(t, b, "led")
		for i, leader := range []string{"CONSUMER.LEADER.STEPDOWN." + here.stream + "." + chanConsumer, "STREAM.LEADER.STEPDOWN." + here.stream} {
			got := make(chan error, 1)
			go func() {
				v, err := here.Receive(longContext(t), false)
				if err == nil {
					err = v.Done(longContext(t))
				}
				got <- err
			}()
			eventually(t, "it has asked", func() bool { return asked(here) == 1 })
			var answer struct{ Success bool }
			if err := a.state.do(longContext(t), func(ctx context.Context) error { return passing(a.askAPI(ctx, leader, nil, &answer)) }); err != nil {
				t.Fatal(err)
			}
			send(t, there, fmt.Sprint(i))
			if err := <-got; err != nil {
				t.Error(err)
			}
		}
	})

	// A server that dies loses the requests that it has not passed to the others.
	t.Run("what was asked for in vain is asked for again", func(t *testing.T) {
		here, there := openOn(t, a, "asked"), openOn(t, b, "asked")
		here.mu.Lock()
		in, err := here.intakeLocked()
		if err != nil {
			t.Fatal(err)
		}
		in.asked, in.at = 1, time.Now() // as if just now; the time is not all that counts
		in.requests["n0"] = chanRequest{1, time.Now().Add(-2 * chanSilence)}
		here.mu.Unlock()
		send(t, there, "1")
		take(t, here, "1")
	})
}

// asked returns how many values have been requested from the server.
func asked(ch *channel) int {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.intake == nil {
		return 0
	}
	return ch.intake.asked
}

// A server that could not remove a value has not thereby said that the value is
// gone.
func TestIsRemoved(t *testing.T) {
	for _, tt := range []struct {
		code jetstream.ErrorCode
		text string
		want bool
	}{
		{10037, "no message found", true},
		{10043, "sequence 1 not found", true},
		{10057, "no message found", true},
		{10057, "stream store EOF", true},
		{10057, "store is closed", false},
		{10057, "write msgs/1.blk: no space left on device", false},
		{10057, "message delete not permitted", false},
		{10008, "JetStream system temporarily unavailable", false},
	} {
		if got := isRemoved(&jetstream.APIError{ErrorCode: tt.code, Description: tt.text}); got != tt.want {
			t.Errorf("%d %s: got %v, want %v", tt.code, tt.text, got, tt.want)
		}
	}
}
