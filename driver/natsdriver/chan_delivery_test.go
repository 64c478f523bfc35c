package natsdriver

import (
	"errors"
	"strconv"
	"testing"

	"github.com/harkbus/hark/driver"
)

// The server's answer to the last of several values that are reported as done
// together means that it has recorded all of them.
func TestChanDoneTogether(t *testing.T) {
	const values = 50
	s := startServer(t, withJetStream)
	ctx := testContext(t)
	c := openChan(t, s.open(t), driver.Unbounded)
	ch := c.(*channel)
	for round := range 20 {
		for i := range values {
			if err := c.Send(ctx, []byte(strconv.Itoa(i)), false); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Receive(ctx, false); err != nil {
				t.Fatal(err)
			}
		}
		ch.mu.Lock()
		var replies []string
		for d := range ch.deliveries {
			replies = append(replies, d.reply)
		}
		clear(ch.deliveries)
		ch.mu.Unlock()
		if len(replies) != values {
			t.Fatalf("round %d: %d values are in flight, want %d", round, len(replies), values)
		}
		if err, _ := ch.reportAll(ctx, replies); err != nil {
			t.Fatal(err)
		}
		consumer, err := ch.values.Consumer(ctx, chanConsumer)
		if err != nil {
			t.Fatal(err)
		}
		if n := consumer.CachedInfo().NumAckPending; n > 0 {
			t.Fatalf("round %d: the server still waits for %d values to be done", round, n)
		}
	}
}

// Receivers that share a confirmation get their own outcomes when the connection is
// lost in the middle of it: each value has been received, by the one that got it.
func TestChanIsCutWhileDoneTogether(t *testing.T) {
	const values = 10
	for _, tt := range []struct {
		name   string
		arrive int // reports that arrive at the server before the cut
	}{
		{"none arrives", 0},
		{"some arrive", 4},
		{"all but the last arrive", values - 1},
		{"only the answer is lost", values},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, withJetStream)
			p := s.startProxy(t)
			ctx := testContext(t)
			away, here := openChan(t, s.openThrough(t, p, Lease(patience)), driver.Unbounded), openChan(t, s.open(t), driver.Unbounded)
			ch := away.(*channel)
			var taken []*driver.ChanValue
			for i := range values {
				if err := here.Send(ctx, []byte(strconv.Itoa(i)), false); err != nil {
					t.Fatal(err)
				}
				v, err := away.Receive(ctx, false)
				if err != nil {
					t.Fatal(err)
				}
				taken = append(taken, v)
			}
			g := &doneGroup{over: make(chan struct{})} // the test is its first member
			ch.mu.Lock()
			ch.dones = g
			ch.mu.Unlock()
			done := make(chan error, values)
			for _, v := range taken {
				go func() { done <- v.Done(ctx) }()
			}
			eventually(t, "all have joined", func() bool {
				ch.mu.Lock()
				defer ch.mu.Unlock()
				return len(g.replies) == values
			})
			ch.mu.Lock()
			ch.dones = nil
			ch.mu.Unlock()
			release := p.hold()
			size := 0
			for i, reply := range g.replies[:tt.arrive] {
				size += len("PUB " + reply + " 4\r\n+ACK\r\n")
				if i == values-1 {
					size += 100 // and where to answer
				}
			}
			p.loseAfter(size)
			reported := make(chan struct{})
			go func() {
				defer close(reported)
				defer close(g.over)
				g.err, g.sent = ch.reportAll(ctx, g.replies)
			}()
			eventually(t, "the reports have arrived or are lost", func() bool {
				p.mu.Lock()
				lost := p.lost > 0
				p.mu.Unlock()
				return consumerOf(t, here).NumAckPending == values-tt.arrive && lost == (tt.arrive < values)
			})
			p.cut()
			release()
			<-reported
			if g.err == nil {
				t.Error("no answer came, and reportAll does not say so")
			}
			p.mend()
			for range values {
				if err := <-done; err != nil {
					t.Errorf("done: %v", err)
				}
			}
			if v, err := here.Receive(ctx, true); !errors.Is(err, driver.ErrAgain) {
				t.Errorf("receive once more: %v, %v, want ErrAgain", v, err)
			}
			if info := consumerOf(t, here); info.NumRedelivered > 0 || info.NumAckPending > 0 {
				t.Errorf("the server sent %d values again, and waits for %d", info.NumRedelivered, info.NumAckPending)
			}
		})
	}
}

// A value whose lease has ended belongs to the next receiver. Whoever had it before
// does not make the server give it to a third one.
func TestChanIsTakenOver(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(t *testing.T, c *Conn, v *driver.ChanValue)
	}{
		{"done with", func(t *testing.T, _ *Conn, v *driver.ChanValue) {
			if err := v.Done(testContext(t)); !errors.Is(err, driver.ErrEnded) {
				t.Errorf("done = %v, want ErrEnded", err)
			}
		}},
		{"returned", func(t *testing.T, _ *Conn, v *driver.ChanValue) {
			if err := v.Return(testContext(t)); !errors.Is(err, driver.ErrEnded) {
				t.Errorf("return = %v, want ErrEnded", err)
			}
		}},
		{"closed", func(t *testing.T, c *Conn, _ *driver.ChanValue) { closeConn(t, c) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, withJetStream)
			p := s.startProxy(t)
			ctx := testContext(t)
			c := s.openThrough(t, p)
			first, second, third := openChan(t, c, 1), openChan(t, s.open(t), 1), openChan(t, s.open(t), 1)
			if err := first.Send(ctx, []byte("a"), false); err != nil {
				t.Fatal(err)
			}
			before, err := first.Receive(ctx, false)
			if err != nil {
				t.Fatal(err)
			}
			p.cut()
			v, err := second.Receive(ctx, false)
			if err != nil {
				t.Fatal(err)
			}
			p.mend()
			if err := c.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			tt.end(t, c, before)
			if tt.name != "closed" { // what it said has arrived
				if err := c.Flush(ctx); err != nil {
					t.Fatal(err)
				}
			}
			other := third.(*channel)
			ack := "$JS.ACK." + other.stream + "." + chanConsumer + ".1.100.100.0.0"         // of no value
			if _, err := other.conn.nc.RequestWithContext(ctx, ack, sayAtWork); err != nil { // and is handled
				t.Fatal(err)
			}
			if got, err := third.Receive(ctx, true); !errors.Is(err, driver.ErrAgain) {
				t.Errorf("a third receiver got %v, %v, want ErrAgain", got, err)
			}
			if err := v.Done(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// A lease is extended when the server says so, not when it was asked for that.
func TestChanIsNotExtendedUnheard(t *testing.T) {
	s := startServer(t, withJetStream)
	p := s.startProxy(t)
	ctx := testContext(t)
	away, here := openChan(t, s.openThrough(t, p), 1), openChan(t, s.open(t), 1)
	if err := away.Send(ctx, []byte("a"), false); err != nil {
		t.Fatal(err)
	}
	before, err := away.Receive(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	release := p.holdRequests()
	defer release()
	v, err := here.Receive(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	release()
	if err := before.Done(ctx); !errors.Is(err, driver.ErrEnded) {
		t.Errorf("done with what somebody else has = %v, want ErrEnded", err)
	}
	if err := v.Done(ctx); err != nil {
		t.Error(err)
	}
}

// A value that arrives after its lease has ended, because a connection stood still,
// goes to one of those that have it by then.
func TestChanArrivesLate(t *testing.T) {
	for _, name := range []string{"the first is done first", "the second is done first"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, withJetStream)
			p := s.startProxy(t)
			ctx := testContext(t)
			away, here := openChan(t, s.openThrough(t, p), 1), openChan(t, s.open(t), 1)
			first := make(chan *driver.ChanValue, 1)
			go func() {
				v, err := away.Receive(ctx, false)
				if err != nil {
					t.Error(err)
				}
				first <- v
			}()
			eventually(t, "the server has the request", func() bool { return consumerOf(t, here).NumWaiting == 1 })
			release := p.hold()
			defer release()
			if err := here.Send(ctx, []byte("a"), false); err != nil {
				t.Fatal(err)
			}
			second, err := here.Receive(ctx, false)
			if err != nil {
				t.Fatal(err)
			}
			release()
			order := []*driver.ChanValue{<-first, second}
			if name == "the second is done first" {
				order[0], order[1] = order[1], order[0]
			}
			if order[0] == nil || order[1] == nil {
				return
			}
			if err := order[0].Done(ctx); err != nil {
				t.Error(err)
			}
			if err := order[1].Done(ctx); !errors.Is(err, driver.ErrEnded) {
				t.Errorf("done with what somebody else is done with = %v, want ErrEnded", err)
			}
		})
	}
}

// After a restart that lost the values, another value may have the number of one in
// flight. It is not removed by whoever is done with that one, also if somebody else may
// have had it before.
func TestChanDoneAfterRestart(t *testing.T) {
	s := startServer(t, withJetStream)
	ctx := testContext(t)
	c := s.open(t)
	ch, err := c.OpenChan(ctx, driver.ChanConfig{Name: "jobs", Capacity: 1, Durability: driver.DurableMemory})
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Send(ctx, []byte("before"), false); err != nil {
		t.Fatal(err)
	}
	v, err := ch.Receive(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Return(ctx); err != nil {
		t.Fatal(err)
	}
	if v, err = ch.Receive(ctx, false); err != nil {
		t.Fatal(err)
	}
	s.stop()
	s.start()
	if err := c.Flush(ctx); err != nil { // the connection is back
		t.Fatal(err)
	}
	if err := ch.Send(ctx, []byte("after"), false); err != nil {
		t.Fatal(err)
	}
	if err := v.Done(ctx); !errors.Is(err, driver.ErrEnded) {
		t.Errorf("done with what the server has forgotten = %v, want ErrEnded", err)
	}
	if v, err = ch.Receive(ctx, true); err != nil || string(v.Data) != "after" {
		t.Errorf("got %v, %v, want what was sent after the restart", v, err)
	}
}
