package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// countPublished counts how many of the next n messages published to a topic are
// sent in bursts.
func countPublished(t *testing.T, c *Conn, topic string, n int) (inBursts func() int) {
	t.Helper()
	msgs := make(chan *nats.Msg, n)
	if _, err := c.Client().ChanSubscribe(topic, msgs); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return func() (inBursts int) {
		ctx := testContext(t)
		for i := range n {
			select {
			case m := <-msgs: // it may come after the publisher has got its answer
				if strings.HasSuffix(m.Reply, burstSuffix) {
					inBursts++
				}
			case <-ctx.Done():
				t.Fatalf("%d of %d messages were sent", i, n)
			}
		}
		return inBursts
	}
}

// TestBursts publishes from many goroutines, single messages and several at a time.
func TestBursts(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	topic := openTopic(t, c, "t", relaxed())
	const callers, each, batch = 32, 20, 10
	const want = callers * each * (1 + batch) / 2
	inBursts := countPublished(t, s.open(t), "t", want)
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for i := range each {
				ms := []*driver.Message{{Data: fmt.Append(nil, caller, " ", i*batch), Bare: true}}
				if i%2 == 1 {
					for n := 1; n < batch; n++ {
						ms = append(ms, &driver.Message{Data: fmt.Append(nil, caller, " ", i*batch+n)})
					}
				}
				if err := topic.Publish(testContext(t), ms); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := inBursts(); n < want/4 {
		t.Errorf("%d of %d messages were sent in bursts, want most", n, want)
	}
	sub := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart})
	last := map[int]int{}
	for _, text := range texts(receive(t, sub, want)) {
		var caller, i int
		if _, err := fmt.Sscan(text, &caller, &i); err != nil {
			t.Fatal(err)
		}
		if before, ok := last[caller]; ok && i <= before {
			t.Errorf("message %d of caller %d came after %d", i, caller, before)
		}
		last[caller] = i
	}
	if stats, err := topic.Stats(testContext(t)); err != nil || stats.Stored != want {
		t.Errorf("got %+v, %v, want %d stored", stats, err, want)
	}
}

// TestBurstIsRefusedInPart publishes bursts in which the server refuses some
// messages, among them the first and the last, and goes on after them.
func TestBurstIsRefusedInPart(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	cfg := jetstream.StreamConfig{
		Name: topicStream("t"), Subjects: []string{"t", keyedSubjects("t")}, Storage: jetstream.MemoryStorage, MaxMsgSize: 100, AllowBatchPublish: true,
	}
	if _, err := c.js.CreateStream(testContext(t), cfg); err != nil {
		t.Fatal(err)
	}
	topic := openTopic(t, c, "t", &driver.StoredConfig{Durability: driver.DurableMemory, Existing: true})
	ephemeral, err := s.open(t).SubscribePattern(testContext(t), "t", driver.SubscribeConfig{Window: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	sent := 0
	for _, large := range [][]int{{3}, {0}, {9}, {8, 9}, {0, 1, 2}, {0, 9}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}} {
		ms := make([]*driver.Message, 10)
		for i := range ms {
			ms[i] = &driver.Message{Bare: true, Data: fmt.Append(nil, len(want))}
			if slices.Contains(large, i) {
				ms[i].Data = make([]byte, 101)
			} else {
				want = append(want, string(ms[i].Data))
			}
		}
		sent += len(ms)
		err := topic.Publish(testContext(t), ms)
		var some driver.PartialError
		if !errors.As(err, &some) {
			t.Fatalf("%v: got %v, want a PartialError", large, err)
		}
		for i, err := range some {
			if refused := apiCode(err) == 10054; refused != slices.Contains(large, i) {
				t.Errorf("%v: message %d: %v", large, i, err)
			}
		}
	}
	// Other subscribers see the messages, but not the markers that end bursts.
	if seen := texts(receive(t, ephemeral, sent)); slices.Contains(seen, "") {
		t.Errorf("others see %q", seen)
	}
	sub := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart})
	if got := texts(receive(t, sub, len(want))); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if stats, err := topic.Stats(testContext(t)); err != nil || stats.Stored != uint64(len(want)) {
		t.Errorf("got %+v, %v, want %d stored", stats, err, len(want))
	}
}

// TestBurstsAreNotAllowed publishes to a stream that stopped allowing bursts after
// it was opened.
func TestBurstsAreNotAllowed(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	topic := openTopic(t, c, "t", relaxed())
	stream, err := c.js.Stream(testContext(t), topicStream("t"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	if !cfg.AllowBatchPublish {
		t.Fatal("the stream allows no bursts")
	}
	cfg.AllowBatchPublish = false
	if _, err := c.js.UpdateStream(testContext(t), cfg); err != nil {
		t.Fatal(err)
	}
	for from := 0; from < 30; from += 10 {
		publish(t, topic, numbered(from, 10)...)
	}
	sub := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart})
	if got, want := texts(receive(t, sub, 30)), numbered(0, 30); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if topic.(*stored).bursts() {
		t.Error("bursts are still sent")
	}
}

// TestBurstWhoseAnswersAreLost feeds in the server's answers by hand.
func TestBurstWhoseAnswersAreLost(t *testing.T) {
	lost, refused := errNoAnswer, errors.New("refused")
	tests := []struct {
		name string
		tell func(w burstWaiter) (over bool)
		ack  ack
		err  error
		want []error
	}{
		{"all stored", func(burstWaiter) bool { return true }, ack{Count: 4}, nil, []error{nil, nil, nil, nil}},
		{"the connection is lost", func(burstWaiter) bool { return true }, ack{}, lost, []error{lost, lost, lost, lost}},
		{"one is refused, the rest unknown", func(w burstWaiter) bool {
			w.note(2, refused)
			return true
		}, ack{}, lost, []error{lost, refused, lost, lost}},
		{"some did not come", func(w burstWaiter) bool {
			return !w.told(4, &burstAnswer{Type: "gap", After: 2, Seq: 4}, nil)
		}, ack{Count: 4}, nil, []error{nil, lost, lost, nil}},
		{"the last did not come", func(burstWaiter) bool { return true }, ack{Count: 3}, nil, []error{nil, nil, nil, lost}},
		{"nobody is there", func(w burstWaiter) bool {
			for n := range uint64(3) {
				if w.told(n+1, &burstAnswer{}, nats.ErrNoResponders) {
					return false
				}
			}
			return w.told(4, &burstAnswer{}, nats.ErrNoResponders)
		}, ack{}, nil, []error{nats.ErrNoResponders, nats.ErrNoResponders, nats.ErrNoResponders, nats.ErrNoResponders}},
		{"nonsense", func(w burstWaiter) bool {
			return !w.told(0, &burstAnswer{Type: "err", Seq: 9, Error: &jetstream.APIError{}}, nil) &&
				!w.told(7, &burstAnswer{Type: "gap", After: 0, Seq: 1 << 60}, nil)
		}, ack{Count: 9}, nil, []error{lost, lost, lost, lost}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFlight(4, true)
			w := burstWaiter{f}
			if !tt.tell(w) {
				t.Error("an answer was taken for another")
			}
			w.acked(1, tt.ack, tt.err)
			if err := f.wait(context.Background(), &acks{}, patience); err != nil {
				t.Fatal(err)
			}
			for i, want := range tt.want {
				if got := f.errs[i]; !errors.Is(got, want) || (got == nil) != (want == nil) {
					t.Errorf("message %d: got %v, want %v", i+1, got, want)
				}
			}
			f.free()
		})
	}
}

func TestReadBurstSubject(t *testing.T) {
	tests := []struct {
		subject  string
		token, n uint64
		ok       bool
	}{
		{"_INBOX.abc.UNIQUE-1a.500.ok.7.1.$FI", 46, 7, true},
		{"my-box.a.b.U-z.500.ok.1000.2.$FI", 35, 1000, true},
		{"_INBOX.abc.UNIQUE-1a.10.ok.7.1.$FI", 0, 0, false},
		{"_INBOX.abc.UNIQUE-1a.500.ok.x.1.$FI", 0, 0, false},
		{"_INBOX.abc.hark-1a", 0, 0, false},
		{".$FI", 0, 0, false},
		{"", 0, 0, false},
	}
	for _, tt := range tests {
		token, n, ok := readBurstSubject(tt.subject)
		if ok != tt.ok || ok && (token != tt.token || n != tt.n) {
			t.Errorf("%q: got %d, %d, %v", tt.subject, token, n, ok)
		}
	}
}

// TestRepeatOfWhatIsBeingStored publishes a message again that a cluster is still storing:
// it refuses the repeat until it has decided on the first.
func TestRepeatOfWhatIsBeingStored(t *testing.T) {
	again, err := landed(&jetstream.APIError{Code: 409, ErrorCode: 10158, Description: "duplicate message id is in process"})
	if !again || !errors.Is(err, driver.ErrAgain) {
		t.Errorf("got %v, %v, want to send it again", again, err)
	}
}
