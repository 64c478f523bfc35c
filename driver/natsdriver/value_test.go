package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

// openBus returns a bus over the server, closed when the test ends.
func (s *testServer) openBus(t *testing.T) *hark.Bus {
	t.Helper()
	c, err := Open(testContext(t), s.url())
	if err != nil {
		t.Fatal(err)
	}
	bus := hark.Over(c)
	t.Cleanup(func() { closeBus(t, bus) })
	return bus
}

func closeBus(t *testing.T, bus *hark.Bus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := bus.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func (s *testServer) openValue(t *testing.T, initial int) *hark.Value[int] {
	t.Helper()
	v, err := hark.NewValue(s.openBus(t), "counter", initial)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Eight processes add to a number while the server is stopped and restarted. No
// update is lost and none is made twice; all of them see the last state, and
// observers see numbers that only grow.
func TestValueIsUpdatedByMany(t *testing.T) {
	const processes, goroutines, each = 8, 3, 20
	s := startServer(t, withJetStream)
	watching := s.openValue(t, 0)
	var last atomic.Int64
	if _, err := watching.Observe(func(old, now int) {
		if before := last.Swap(int64(now)); before != int64(old) || now <= old {
			t.Errorf("told of %d to %d after %d", old, now, before)
		}
	}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var done atomic.Int64
	for range processes {
		v := s.openValue(t, 100)
		for range goroutines {
			wg.Go(func() {
				for range each {
					if _, err := v.Update(testContext(t), func(n int) int { return n + 1 }); err != nil {
						t.Errorf("update: %v", err)
					}
					done.Add(1)
				}
			})
		}
	}
	for _, at := range []int64{100, 250} {
		eventually(t, "updates", func() bool { return done.Load() > at })
		s.stop()
		s.start()
	}
	wg.Wait()
	const want = processes * goroutines * each
	if got, err := watching.WaitUntil(testContext(t), func(n int) bool { return n >= want }); err != nil || got != want {
		t.Errorf("got %d, %v, want %d", got, err, want)
	}
	if got := s.openValue(t, 0).Get(); got != want {
		t.Errorf("who comes later gets %d, want %d", got, want)
	}
	eventually(t, "the observer is told of the last state", func() bool { return last.Load() == want })
}

// After a lost connection a watch goes on with the state at that time.
func TestValueWatchAfterRestart(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	v, err := c.OpenValue(testContext(t), "v", []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := v.Watch(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	next := func() driver.State {
		t.Helper()
		state, err := w.Next(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	first := next()
	if string(first.Data) != "a" {
		t.Fatalf("got %q, want a", first.Data)
	}
	s.stop()
	s.start()
	other, err := s.open(t).OpenValue(testContext(t), "v", []byte("ignored"))
	if err != nil {
		t.Fatal(err)
	}
	state, done, err := other.CompareAndSet(testContext(t), first.Version, []byte("b"))
	if err != nil || !done || state.Version <= first.Version {
		t.Fatalf("got %+v, %v, %v", state, done, err)
	}
	if got := next(); string(got.Data) != "b" || got.Version != state.Version {
		t.Errorf("got %+v, want %+v", got, state)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Next(testContext(t)); !errors.Is(err, driver.ErrEnded) {
		t.Errorf("after Close: got %v, want ErrEnded", err)
	}
}

func TestValueWhileDisconnected(t *testing.T) {
	s := startServer(t, withJetStream)
	v := s.openValue(t, 1)
	s.stop()
	ctx, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	if err := v.Set(ctx, 2); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of the context", err)
	}
	if got := v.Get(); got != 1 {
		t.Errorf("got %d, want what was known", got)
	}
	s.start()
	if err := v.Set(testContext(t), 3); err != nil || v.Get() != 3 {
		t.Errorf("after it is back: got %d, %v", v.Get(), err)
	}
}

// lossy loses the answer to the first change, after calling meanwhile.
type lossy struct {
	jetstream.JetStream
	meanwhile func()
}

func (l *lossy) PublishMsg(ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	ack, err := l.JetStream.PublishMsg(ctx, m, opts...)
	if l.meanwhile != nil {
		l.meanwhile()
		l.meanwhile = nil
		return nil, fmt.Errorf("%w: the answer was lost (%v, %v)", driver.ErrAgain, ack, err)
	}
	return ack, err
}

// A change whose answer was lost was made, and others have changed the value since.
// It must not be given the version of somebody else's state: the next change from
// there would undo theirs.
func TestValueChangeWhoseAnswerIsLost(t *testing.T) {
	for _, sees := range []string{"nothing", "the change", "more changes"} {
		t.Run("sees "+sees, func(t *testing.T) {
			s := startServer(t, withJetStream)
			opened, err := s.open(t).OpenValue(testContext(t), "v", []byte("0"))
			if err != nil {
				t.Fatal(err)
			}
			v := opened.(*value)
			base, err := v.Load(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			other, err := s.open(t).OpenValue(testContext(t), "v", nil)
			if err != nil {
				t.Fatal(err)
			}
			var mine, others driver.State // in the order in which they were stored
			change := func() {
				t.Helper()
				var done bool
				before := loadValue(t, other)
				if others, done, err = other.CompareAndSet(testContext(t), before.Version, append(before.Data, '+')); err != nil || !done {
					t.Fatal(done, err)
				}
			}
			js := v.conn.js
			v.conn.js = &lossy{js, func() {
				mine = loadValue(t, other)
				if sees == "the change" {
					loadValue(t, v)
				}
				for range 3 {
					change()
				}
				if sees == "more changes" {
					loadValue(t, v)
				}
				change()
			}}
			got, done, err := v.CompareAndSet(testContext(t), base.Version, []byte("1"))
			v.conn.js = js
			if err != nil || !done || string(got.Data) != "1" || got.Version <= base.Version || got.Version > mine.Version {
				t.Fatalf("got %+v, %v, %v, want it made from %d, with a version up to %d", got, done, err, base.Version, mine.Version)
			}
			if sees == "the change" && got.Version != mine.Version {
				t.Errorf("got version %d, want %d, which was seen", got.Version, mine.Version)
			}
			now, done, err := v.CompareAndSet(testContext(t), got.Version, []byte("2"))
			if err != nil || done || now.Version != others.Version || string(now.Data) != "1++++" {
				t.Errorf("a change of an old state: got %+v, %v, %v, want %+v", now, done, err, others)
			}
		})
	}
}

func loadValue(t *testing.T, v driver.Value) driver.State {
	t.Helper()
	state, err := v.Load(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// A change whose answer was lost was made, and somebody else has changed the value since
// over the same connection, as requests to a broker do. It must not be made again.
func TestValueChangeBeforeOneOfTheSameConnection(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	v, err := c.OpenValue(testContext(t), "v", []byte("0"))
	if err != nil {
		t.Fatal(err)
	}
	base := loadValue(t, v)
	js := c.js
	c.js = &lossy{js, func() {
		c.js = js
		other, err := c.OpenValue(testContext(t), "v", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, done, err := other.CompareAndSet(testContext(t), loadValue(t, other).Version, []byte("2")); err != nil || !done {
			t.Fatal(done, err)
		}
	}}
	if got, done, err := v.CompareAndSet(testContext(t), base.Version, []byte("1")); err != nil || !done {
		t.Errorf("got %+v, %v, %v, want it made", got, done, err)
	}
}

// A change whose answer was lost was made, and since then more others have changed the
// value than it remembers. It must not be made again.
func TestValueChangeThatIsForgotten(t *testing.T) {
	s := startServer(t, withJetStream)
	opened, err := s.open(t).OpenValue(testContext(t), "v", []byte("0"))
	if err != nil {
		t.Fatal(err)
	}
	v := opened.(*value)
	base := loadValue(t, v)
	c := s.open(t)
	other, err := c.OpenValue(testContext(t), "v", nil)
	if err != nil {
		t.Fatal(err)
	}
	v.conn.js = &lossy{v.conn.js, func() {
		for i := range maxWriters {
			other.(*value).ids.prefix = fmt.Sprintf("other%d-", i)
			if _, done, err := other.CompareAndSet(testContext(t), loadValue(t, other).Version, []byte("2")); err != nil || !done {
				t.Fatal(done, err)
			}
		}
	}}
	if got, done, err := v.CompareAndSet(testContext(t), base.Version, []byte("1")); !errors.Is(err, driver.ErrUnsure) {
		t.Errorf("got %+v, %v, %v, want ErrUnsure", got, done, err)
	}
}

// Answers were lost, and since then a client other than hark has changed the value, or it
// has before. What is not known is not made again.
func TestValueChangeBesideAnotherClient(t *testing.T) {
	for _, tt := range []struct {
		name string
		// By whom the value is changed before the change, and between it and its repeat,
		// with others of hark as o and another client as x.
		before, since string
		refused       bool // others are faster, so the change is not made
		want          error
	}{
		{name: "nobody"},
		{name: "others", since: "oo"},
		{name: "another client before", before: "x", since: "oo"},
		{name: "another client", since: "x", want: driver.ErrUnsure},
		{name: "another client and others", since: "xo", want: driver.ErrUnsure},
		{name: "another client among others", since: "oxoo", want: driver.ErrUnsure},
		{name: "refused", refused: true, since: "oo"},
		{name: "refused, another client before", refused: true, before: "xo", since: "oo"},
		{name: "refused, another client", refused: true, since: "xo", want: driver.ErrUnsure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startServer(t, withJetStream)
			c := s.open(t)
			other, err := c.OpenValue(testContext(t), "v", []byte("0"))
			if err != nil {
				t.Fatal(err)
			}
			changes := func(by string) {
				t.Helper()
				for i, who := range by {
					if who == 'x' {
						if _, err := c.js.Publish(testContext(t), valuePrefix+"v", []byte("x")); err != nil {
							t.Fatal(err)
						}
						continue
					}
					other.(*value).ids.prefix = fmt.Sprintf("%s%d-", by, i)
					if _, done, err := other.CompareAndSet(testContext(t), loadValue(t, other).Version, []byte("o")); err != nil || !done {
						t.Fatal(done, err)
					}
				}
			}
			changes(tt.before)
			v, err := s.open(t).OpenValue(testContext(t), "v", nil)
			if err != nil {
				t.Fatal(err)
			}
			base := loadValue(t, v)
			after := tt.since
			if tt.refused { // the first attempt fails because of one of them, and its answer is lost
				changes(after[:1])
				after = after[1:]
			}
			conn := v.(*value).conn
			conn.js = &lossy{conn.js, func() { changes(after) }}
			got, done, err := v.CompareAndSet(testContext(t), base.Version, []byte("1"))
			if !errors.Is(err, tt.want) || tt.want == nil && (err != nil || done == tt.refused) {
				t.Errorf("got %+v, %v, %v, want made: %v, or %v", got, done, err, !tt.refused, tt.want)
			}
		})
	}
}

// A watch keeps a newer state when an older one arrives after it, and ignores the
// answer of a server that is behind.
func TestValueDoesNotGoBack(t *testing.T) {
	s := startServer(t, withJetStream)
	opened, err := s.open(t).OpenValue(testContext(t), "v", []byte("stored"))
	if err != nil {
		t.Fatal(err)
	}
	v := opened.(*value)
	watch, err := v.Watch(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	w := watch.(*valueWatch)
	stored, err := w.Next(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	comes := func(version uint64, text string) {
		m := &nats.Msg{Data: []byte(text), Header: nats.Header{}}
		setNATSHeader(m, natsSequence, strconv.FormatUint(version, 10))
		w.receive(m)
	}
	comes(stored.Version+5, "newer")
	comes(stored.Version+2, "older")
	if got, err := w.Next(testContext(t)); err != nil || got.Version != stored.Version+5 || string(got.Data) != "newer" {
		t.Errorf("got %+v, %v, want the newer one", got, err)
	}
	comes(stored.Version+4, "older")
	w.stale = true // as after a lost connection, and every ten seconds
	ctx, cancel := context.WithTimeout(testContext(t), 200*time.Millisecond)
	defer cancel()
	if got, err := w.Next(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, driver.ErrAgain) {
		t.Errorf("got %+v, %v, want that the server is behind", got, err)
	}
	if got, err := v.Load(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("load: got %+v, %v, want nothing older than what is known", got, err)
	}
	if v.known() != stored.Version+5 {
		t.Errorf("version %d is known, want %d", v.known(), stored.Version+5)
	}
}

// valueInput and valueOutput are the input and output of an operation on a
// register.
type (
	valueInput struct {
		cas     bool
		version uint64
		data    string
	}
	valueOutput struct {
		state  driver.State
		done   bool
		unsure bool
	}
	register struct {
		version uint64
		data    string
	}
)

// valueModel is a register with versions, about which only their growth is known.
// An operation with an unknown outcome may have happened, or not.
var valueModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{register{}} },
	Step: func(state, input, output any) []any {
		s, in, out := state.(register), input.(valueInput), output.(valueOutput)
		seen := register{out.state.Version, string(out.state.Data)}
		switch {
		case !in.cas && (s == register{} || s == seen || s.version == 0 && s.data == seen.data): // {} before the first look
			return []any{seen}
		case !in.cas:
			return nil
		case out.unsure:
			next := []any{s}
			if s.version == in.version {
				next = append(next, register{0, in.data}) // with a version not known yet
			}
			return next
		case out.done:
			if s.version == in.version && seen.version > s.version && seen.data == in.data {
				return []any{seen, register{0, in.data}} // the version may stand for another one
			}
			return nil
		case s == seen && s.version != in.version:
			return []any{s}
		case s.version == 0 && s.data == seen.data && seen.version != in.version:
			return []any{seen}
		}
		return nil
	},
}).ToModel()

// valueHistory records what clients did to a value.
type valueHistory struct {
	start time.Time

	mu    sync.Mutex // guards the fields below
	ops   []porcupine.Operation
	known map[int]driver.State // by client
}

// step performs the nth operation of a client, with ctx as its limit. It returns
// the ID under which the client goes on: a new one if the outcome is unknown, since
// the operation may still take effect.
func (h *valueHistory) step(ctx context.Context, t *testing.T, v driver.Value, client, n int) int {
	h.mu.Lock()
	known := h.known[client]
	h.mu.Unlock()
	call := time.Since(h.start)
	var in valueInput
	var out valueOutput
	var err error
	if n%3 == 0 {
		if out.state, err = v.Load(ctx); err != nil {
			t.Errorf("load: %v", err)
			return client
		}
	} else {
		in = valueInput{cas: true, version: known.Version, data: strconv.Itoa(client) + "." + strconv.Itoa(n)}
		out.state, out.done, err = v.CompareAndSet(ctx, known.Version, []byte(in.data))
		out.unsure = err != nil
	}
	end := int64(time.Since(h.start))
	if out.unsure {
		end = int64(time.Hour)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Call: int64(call), Output: out, Return: end})
	if out.unsure {
		client += 100
	} else {
		known = out.state
	}
	if h.known == nil {
		h.known = map[int]driver.State{}
	}
	h.known[client] = known
	return client
}

// check checks that all operations fit into one order.
func (h *valueHistory) check(t *testing.T) {
	t.Helper()
	if got := porcupine.CheckOperationsTimeout(valueModel, h.ops, 30*time.Second); got != porcupine.Ok {
		t.Errorf("the history of %d operations: %v", len(h.ops), got)
	}
}

// A value whose stream was removed and recreated is not mistaken for a value whose
// newest state a server does not know yet: the wait for that state would never end.
func TestValueOfFormerStream(t *testing.T) {
	s := startServer(t, withJetStream)
	former, err := s.open(t).OpenValue(testContext(t), "v", []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, done, err := former.CompareAndSet(testContext(t), 1, []byte("2")); !done || err != nil {
		t.Fatalf("set: %v, %v", done, err)
	}
	c := s.open(t)
	if err := c.js.DeleteStream(testContext(t), valueStream); err != nil {
		t.Fatal(err)
	}
	if _, err := c.OpenValue(testContext(t), "v", []byte("3")); err != nil {
		t.Fatal(err)
	}
	if state, err := former.Load(testContext(t)); err == nil || errors.Is(err, driver.ErrAgain) || !strings.Contains(err.Error(), "open the value again") {
		t.Errorf("got version %d and %v, want an error that says what to do", state.Version, err)
	}
	if _, done, err := former.CompareAndSet(testContext(t), 1, []byte("4")); done || err == nil {
		t.Errorf("set at a version of before: %v, %v", done, err)
	}
}

// The operations of several connections on a value are linearizable while the
// server is stopped and restarted.
func TestValueIsLinearizable(t *testing.T) {
	const clients, each = 4, 60
	s := startServer(t, withJetStream)
	h := valueHistory{start: time.Now()}
	var wg sync.WaitGroup
	var done atomic.Int64
	opened := make(chan struct{})
	for client := range clients {
		c := s.open(t)
		v, err := c.OpenValue(testContext(t), "v", []byte("initial"))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			<-opened
			for n := range each {
				limit := patience
				if n%3 != 0 {
					limit = time.Duration(1+rand.N(200)) * time.Millisecond
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				client = h.step(ctx, t, v, client, n)
				cancel()
				done.Add(1)
			}
		})
	}
	close(opened)
	for _, at := range []int64{40, 120} {
		eventually(t, "operations", func() bool { return done.Load() > at })
		s.stop()
		s.start()
	}
	wg.Wait()
	h.check(t)
}

// TestCreateValue has several processes create a value with the same state: one does.
func TestCreateValue(t *testing.T) {
	s := startServer(t, withJetStream)
	var made atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		c := s.open(t)
		all.Go(func() {
			state, did, err := c.CreateValue(testContext(t), "lock", []byte("held"))
			if err != nil || state.Version != 1 || string(state.Data) != "held" {
				t.Errorf("got %+v, %v, want version 1", state, err)
			}
			if did {
				made.Add(1)
			}
		})
	}
	all.Wait()
	if n := made.Load(); n != 1 {
		t.Errorf("%d have created the value, want 1", n)
	}
}
