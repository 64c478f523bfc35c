package natsdriver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

const testLease = time.Second

func openChan(t *testing.T, c *Conn, capacity int) driver.Chan {
	t.Helper()
	ch, err := c.OpenChan(testContext(t), driver.ChanConfig{Name: "jobs", Capacity: capacity, Durability: driver.DurableRelaxed})
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// openThrough connects through a proxy until the test ends, with testLease unless
// the options say otherwise.
func (s *testServer) openThrough(t *testing.T, p *proxy, opts ...Option) *Conn {
	t.Helper()
	c, err := Open(testContext(t), p.url(), append([]Option{Lease(testLease)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(t, c) })
	return c
}

func TestChanRefusals(t *testing.T) {
	s := startServer(t, withJetStream)
	ctx := testContext(t)
	c := s.open(t)
	openChan(t, c, 3)
	for _, other := range []driver.ChanConfig{
		{Name: "jobs", Capacity: 4, Durability: driver.DurableRelaxed},
		{Name: "jobs", Capacity: 3, Durability: driver.DurableMemory},
	} {
		if _, err := s.open(t).OpenChan(ctx, other); !errors.Is(err, driver.ErrConflict) {
			t.Errorf("%+v: %v, want ErrConflict", other, err)
		}
	}
	if _, err := startServer(t).open(t).OpenChan(ctx, driver.ChanConfig{Name: "jobs"}); !errors.Is(err, driver.ErrUnsupported) {
		t.Errorf("without JetStream: %v, want ErrUnsupported", err)
	}
}

// A receiver that is cut off with values in flight loses them to others when its
// lease ends, and learns that once it is back.
func TestChanReceiverIsCutOff(t *testing.T) {
	s := startServer(t, withJetStream)
	p := s.startProxy(t)
	ctx := testContext(t)
	away, here := openChan(t, s.openThrough(t, p), 3), openChan(t, s.open(t), 3)
	for _, v := range []string{"a", "b", "c"} {
		if err := here.Send(ctx, []byte(v), false); err != nil {
			t.Fatal(err)
		}
	}
	var held []*driver.ChanValue
	for range 2 {
		v, err := away.Receive(ctx, false)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, v)
	}
	p.cut()
	if err := here.Send(ctx, []byte("d"), true); !errors.Is(err, driver.ErrAgain) {
		t.Errorf("send while three are in the channel: %v, want ErrAgain", err)
	}
	var got []string
	for range 3 {
		v, err := here.Receive(ctx, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Done(ctx); err != nil {
			t.Fatal(err)
		}
		got = append(got, string(v.Data))
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("got %q", got)
	}
	p.mend()
	for _, v := range held {
		if err := v.Done(ctx); !errors.Is(err, driver.ErrEnded) && !errors.Is(err, driver.ErrUnsure) {
			t.Errorf("done after the lease = %v, want ErrEnded or ErrUnsure", err)
		}
	}
	if n, err := here.Len(ctx); n != 0 || err != nil {
		t.Errorf("%d are left, %v", n, err)
	}
}

// A value in flight stays so for longer than the lease.
func TestChanValueInFlight(t *testing.T) {
	s := startServer(t, withJetStream)
	ctx := testContext(t)
	c, err := Open(ctx, s.url(), Lease(testLease))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(t, c) })
	ch := openChan(t, c, 1)
	if err := ch.Send(ctx, []byte("a"), false); err != nil {
		t.Fatal(err)
	}
	v, err := ch.Receive(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	brief, cancel := context.WithTimeout(ctx, testLease*3/2)
	defer cancel()
	if again, err := ch.Receive(brief, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("somebody else received %v, %v", again, err)
	}
	if err := v.Done(ctx); err != nil {
		t.Error(err)
	}
}

// A waiting receiver that learns that the channel is closed takes one value out of
// it, and withholds none from later receivers.
func TestChanIsClosedUnderReceiver(t *testing.T) {
	s := startServer(t, withJetStream)
	p := s.startProxy(t)
	ctx := testContext(t)
	waits, other := openChan(t, s.openThrough(t, p), driver.Unbounded), openChan(t, s.open(t), driver.Unbounded)
	take := func(ch driver.Chan, try bool, want string) {
		v, err := ch.Receive(ctx, try)
		if err == nil {
			err = v.Done(ctx)
		}
		if err != nil || string(v.Data) != want {
			t.Errorf("got %v, %v, want %s", v, err, want)
		}
	}
	var received sync.WaitGroup
	received.Go(func() { take(waits, false, "a") })
	eventually(t, "the server knows of the receiver", func() bool {
		consumer, err := other.(*channel).values.Consumer(ctx, chanConsumer)
		return err == nil && consumer.CachedInfo().NumWaiting == 1
	})
	release := p.hold()
	defer release()
	for _, v := range []string{"a", "b", "c"} {
		if err := other.Send(ctx, []byte(v), false); err != nil {
			t.Fatal(err)
		}
	}
	out := func() uint64 { return waits.(*channel).conn.nc.Stats().OutMsgs }
	before := out()
	waits.(*channel).setClosed() // as if the news had been delayed for longer than the value
	eventually(t, "the receiver asks what is left", func() bool { return out() > before })
	if _, err := other.Len(ctx); err != nil { // gives the server time to answer
		t.Fatal(err)
	}
	release()
	received.Wait()
	take(other, true, "b")
	take(waits, false, "c")
}

// A value that the server has recorded as received but not removed, because it was
// stopped in between, does not keep its place.
func TestChanSweepsStuckValues(t *testing.T) {
	s := startServer(t, withJetStream)
	ctx := testContext(t)
	ch := openChan(t, s.open(t), 2)
	if err := ch.Send(ctx, []byte("stuck"), false); err != nil {
		t.Fatal(err)
	}
	values := filepath.Join(s.opts.StoreDir, "jetstream", "$G", "streams", ch.(*channel).stream, "msgs")
	before := filepath.Join(t.TempDir(), "msgs")
	s.stop()
	if err := os.CopyFS(before, os.DirFS(values)); err != nil {
		t.Fatal(err)
	}
	s.start()
	receive := func(ch driver.Chan, want string) {
		t.Helper()
		v, err := ch.Receive(ctx, false)
		if err == nil {
			err = v.Done(ctx)
		}
		if err != nil || string(v.Data) != want {
			t.Fatalf("got %v, %v, want %s", v, err, want)
		}
	}
	receive(ch, "stuck")
	s.stop()
	if err := os.RemoveAll(values); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(before, values); err != nil {
		t.Fatal(err)
	}
	s.start()
	later := openChan(t, s.open(t), 2)
	eventually(t, "the stuck value is removed", func() bool {
		n, err := later.Len(ctx)
		return n == 0 && err == nil
	})
	if err := ch.Send(ctx, []byte("next"), false); err != nil {
		t.Fatal(err)
	}
	receive(later, "next")
}

// chanInput is an operation of a client on a channel, and chanOutput its result.
type (
	chanInput struct {
		kind  chanKind
		value rune // to be sent
	}
	chanOutput struct {
		value   rune // received
		outcome chanOutcome
		held    bool // somebody else had a value in flight during the call
	}
	chanKind    int
	chanOutcome int
	// chanState is the contents of a channel, with a rune for each value.
	chanState struct {
		values string
		closed bool
	}
)

const (
	chanSend chanKind = iota
	chanReceive
	chanTrySend
	chanTryReceive
	chanClose
)

const (
	chanDone chanOutcome = iota
	chanNot
	chanUnsure
	chanOver // it was closed
)

// chanModel is a channel of a capacity. With order it is a queue whose values are
// taken in order. Since values leave it only when their receivers are done, a send
// that found no room proves nothing, and while the last value is in flight,
// a closed channel neither has a value nor is over. Without order it is a bag that
// any value may leave, and a receive that found no value proves nothing.
//
// The model discards any order of sends that later receives will refute; otherwise
// the search would take too long.
func chanModel(capacity int, order bool, history []porcupine.Operation) porcupine.Model {
	received := map[rune]porcupine.Operation{}
	for _, op := range history {
		if out := op.Output.(chanOutput); out.value != 0 && out.outcome == chanDone {
			received[out.value] = op
		}
	}
	refuted := func(values []rune, v rune) bool {
		of, ok := received[v]
		return ok && order && slices.ContainsFunc(values, func(before rune) bool {
			b, ok := received[before]
			return ok && of.Return < b.Call
		})
	}
	return (&porcupine.NondeterministicModel{
		Init: func() []any { return []any{chanState{}} },
		Step: func(state, input, output any) []any {
			s, in, out := state.(chanState), input.(chanInput), output.(chanOutput)
			values := []rune(s.values)
			room := capacity == driver.Unbounded || len(values) < capacity
			sent := chanState{s.values + string(in.value), s.closed}
			if in.kind == chanClose {
				return []any{chanState{s.values, true}}
			}
			sends := in.kind == chanSend || in.kind == chanTrySend
			switch {
			case out.outcome == chanNot && in.kind == chanTrySend:
				return when(order || !room && !s.closed, s)
			case out.outcome == chanNot && in.kind == chanTryReceive:
				return when(!order || len(values) == 0 && (!s.closed || out.held), s)
			case out.outcome == chanNot:
				return []any{s}
			case out.outcome == chanOver && sends:
				return when(s.closed, s)
			case out.outcome == chanOver:
				return when(s.closed && len(values) == 0, s)
			case out.outcome == chanUnsure && sends:
				return append(when(room && !s.closed, sent), s)
			case out.outcome == chanUnsure:
				next := []any{s}
				for i := range values {
					next = append(next, chanState{string(slices.Delete(slices.Clone(values), i, i+1)), s.closed})
				}
				return next
			case sends:
				return when(room && !s.closed && !refuted(values, in.value), sent)
			}
			i := slices.Index(values, out.value)
			if i < 0 || order && i > 0 {
				return nil
			}
			return []any{chanState{string(slices.Delete(values, i, i+1)), s.closed}}
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v = %+v", in, out) },
	}).ToModel()
}

// tellHistory formats a history, one line per operation, in the order of their
// calls.
func tellHistory(history []porcupine.Operation) string {
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	var text strings.Builder
	for _, op := range history {
		in, out := op.Input.(chanInput), op.Output.(chanOutput)
		kind := []string{"send", "receive", "try to send", "try to receive", "close"}[in.kind]
		outcome := []string{"done", "not", "unsure", "closed"}[out.outcome]
		fmt.Fprintf(&text, "%v to %v: client %d: %s %q: %s\n", time.Duration(op.Call), time.Duration(op.Return), op.ClientId, kind, max(in.value, out.value), outcome)
	}
	return text.String()
}

func when(possible bool, next chanState) []any {
	if possible {
		return []any{next}
	}
	return nil
}

// chanClient operates on a channel and records that.
type chanClient struct {
	id      int
	ch      driver.Chan
	start   time.Time
	calm    bool // no call is given up
	done    *atomic.Int64
	history []porcupine.Operation
}

func (c *chanClient) do(t *testing.T, kind chanKind, value rune) chanOutput {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	if !c.calm {
		cancel()
		ctx, cancel = context.WithTimeout(t.Context(), time.Duration(1+rand.N(1000))*time.Millisecond)
	}
	defer cancel()
	call := time.Since(c.start)
	var out chanOutput
	var err error
	switch kind {
	case chanSend, chanTrySend:
		err = c.ch.Send(ctx, []byte(string(value)), kind == chanTrySend)
	case chanClose:
		err = c.ch.Close(ctx)
	default:
		var v *driver.ChanValue
		if v, err = c.ch.Receive(ctx, kind == chanTryReceive); err == nil {
			out.value = []rune(string(v.Data))[0]
			err = v.Done(ctx)
		}
	}
	end := int64(time.Since(c.start))
	switch {
	case err == nil:
	case errors.Is(err, driver.ErrClosed):
		out.outcome = chanOver
	case errors.Is(err, driver.ErrUnsure):
		out.outcome = chanUnsure
		end = int64(time.Hour)
	case errors.Is(err, driver.ErrAgain), errors.Is(err, driver.ErrEnded), !c.calm && errors.Is(err, context.DeadlineExceeded):
		out.outcome = chanNot
	default:
		t.Errorf("%d %c: %v", kind, value, err)
	}
	c.history = append(c.history, porcupine.Operation{
		ClientId: c.id, Input: chanInput{kind, value}, Output: out, Call: int64(call), Return: end,
	})
	c.done.Add(1)
	if out.outcome == chanUnsure {
		c.id += 100 // the operation may still happen
	}
	return out
}

// The operations of several connections on a channel can be put into one order:
// that of a queue, or, while connections are cut, the server restarts and contexts
// end, that of a bag.
func TestChanIsLinearizable(t *testing.T) {
	for _, capacity := range []int{1, 3, driver.Unbounded} {
		for _, calm := range []bool{true, false} {
			t.Run(fmt.Sprintf("capacity %d, calm %v", capacity, calm), func(t *testing.T) {
				for range 5 { // checking a history may take too long
					history := chanHistory(t, capacity, calm)
					got := porcupine.CheckOperationsTimeout(chanModel(capacity, false, history), history, 5*time.Second)
					if got == porcupine.Ok && calm {
						got = porcupine.CheckOperationsTimeout(chanModel(capacity, true, history), history, 5*time.Second)
					}
					switch got {
					case porcupine.Ok:
						return
					case porcupine.Illegal:
						t.Fatalf("no order explains this history:\n%s", tellHistory(history))
					}
				}
				t.Fatal("the check of five histories did not finish")
			})
		}
	}
}

func chanHistory(t *testing.T, capacity int, calm bool) []porcupine.Operation {
	t.Helper()
	const senders, receivers, each = 2, 2, 40
	lease := testLease
	if calm { // also on a busy machine
		lease = patience
	}
	s := startServer(t, withJetStream)
	start := time.Now()
	var done, sent atomic.Int64
	var proxies []*proxy
	client := func(id int) *chanClient {
		p := s.startProxy(t)
		proxies = append(proxies, p)
		return &chanClient{id: id, ch: openChan(t, s.openThrough(t, p, Lease(lease)), capacity), start: start, calm: calm, done: &done}
	}
	var clients []*chanClient
	var sending, receiving sync.WaitGroup
	for id := range senders + receivers {
		clients = append(clients, client(id))
	}
	for id, c := range clients[:senders] {
		sending.Go(func() {
			for i := range each {
				kind := chanSend
				if i%4 == 3 {
					kind = chanTrySend
				}
				c.do(t, kind, rune('A'+id*each+i))
				sent.Add(1)
			}
		})
	}
	for _, c := range clients[senders:] {
		receiving.Go(func() {
			for i := 0; ; i++ {
				kind := chanReceive
				if i%4 == 3 {
					kind = chanTryReceive
				}
				if c.do(t, kind, 0).outcome == chanOver {
					return
				}
			}
		})
	}
	if !calm {
		for i, p := range proxies {
			at := int64((i + 1) * each / 4)
			eventually(t, "operations", func() bool { return sent.Load() >= at })
			p.cut()
			eventually(t, "operations of others", func() bool { return sent.Load() >= at+2 })
			p.mend()
		}
		s.stop()
		s.start()
	}
	sending.Wait()
	last := &chanClient{id: senders + receivers, ch: openChan(t, s.open(t), capacity), start: start, calm: true, done: &done}
	last.do(t, chanClose, 0)
	receiving.Wait()
	var history []porcupine.Operation
	for _, c := range append(clients, last) {
		for _, op := range c.history {
			if op.Output.(chanOutput).outcome != chanNot || calm { // otherwise it may not have happened
				history = append(history, op)
			}
		}
	}
	for i, op := range history {
		out := op.Output.(chanOutput)
		out.held = slices.ContainsFunc(history, func(o porcupine.Operation) bool {
			return o.ClientId != op.ClientId && o.Output.(chanOutput).value != 0 && o.Call < op.Return && op.Call < o.Return
		})
		history[i].Output = out
	}
	return history
}

// A value of a rendezvous goes to one receiver, while its sender waits, or to
// nobody, whatever happens to connections and the server.
func TestChanRendezvousUnderCuts(t *testing.T) {
	const senders, receivers, each = 2, 2, 40
	s := startServer(t, withJetStream)
	var proxies []*proxy
	open := func() driver.Chan {
		p := s.startProxy(t)
		proxies = append(proxies, p)
		return openChan(t, s.openThrough(t, p), 0)
	}
	type span struct{ begin, end time.Time }
	var mu sync.Mutex
	sent, received, unsure := map[string]span{}, map[string]span{}, 0
	var passed atomic.Int64
	var sending, receiving sync.WaitGroup
	for id := range senders {
		ch := open()
		sending.Go(func() {
			for i := range each {
				v := strconv.Itoa(id*each + i)
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rand.N(2000))*time.Millisecond)
				err := ch.Send(ctx, []byte(v), false)
				cancel()
				passed.Add(1)
				if err != nil && !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, driver.ErrUnsure) {
					t.Errorf("send: %v", err)
				}
				if err == nil {
					mu.Lock()
					sent[v] = span{begin, time.Now()}
					mu.Unlock()
				}
			}
		})
	}
	for range receivers {
		ch := open()
		receiving.Go(func() {
			for {
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rand.N(2000))*time.Millisecond)
				v, err := ch.Receive(ctx, false)
				if err == nil {
					err = v.Done(ctx)
				}
				cancel()
				mu.Lock()
				switch {
				case err == nil:
					if _, twice := received[string(v.Data)]; twice {
						t.Errorf("%s was received twice", v.Data)
					}
					received[string(v.Data)] = span{begin, time.Now()}
				case errors.Is(err, driver.ErrUnsure):
					unsure++
				case errors.Is(err, driver.ErrClosed):
					mu.Unlock()
					return
				case !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, driver.ErrEnded):
					t.Errorf("receive: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	for i, p := range proxies {
		at := int64((i + 1) * each / 4)
		eventually(t, "sends", func() bool { return passed.Load() >= at })
		p.cut()
		eventually(t, "sends of others", func() bool { return passed.Load() >= at+2 })
		p.mend()
	}
	s.stop()
	s.start()
	sending.Wait()
	if err := openChan(t, s.open(t), 0).Close(testContext(t)); err != nil {
		t.Error(err)
	}
	receiving.Wait()
	for v, r := range received {
		switch by, ok := sent[v]; {
		case !ok:
			t.Errorf("%s was received and its sender does not know", v)
		case by.end.Before(r.begin) || r.end.Before(by.begin):
			t.Errorf("%s was sent and received at different times", v)
		}
	}
	if lost := len(sent) - len(received); lost > unsure || len(received) < each/2 {
		t.Errorf("%d were sent and %d received, %d are not known", len(sent), len(received), unsure)
	}
}

// TestChanAsksNowAndThen has a sender wait for room that nobody makes. The sender
// relies on being told, and tries by itself only now and then.
func TestChanAsksNowAndThen(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	ch := openChan(t, c, 1)
	ctx := testContext(t)
	if err := ch.Send(ctx, []byte("fills it"), false); err != nil {
		t.Fatal(err)
	}
	attempts := make(chan time.Time, 64)
	sub, err := c.Client().Subscribe(chanPrefix+"jobs", func(*nats.Msg) {
		select {
		case attempts <- time.Now():
		default: // more than anybody reads
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	waits, stop := context.WithCancelCause(ctx)
	enough := errors.New("enough")
	sent := make(chan error, 1)
	go func() { sent <- ch.Send(waits, []byte("waits"), false) }()
	const early, more = 2, 4 // the first two make sure that nothing is missed
	var begin, end time.Time
	for i := range early + more {
		select {
		case at := <-attempts:
			if i == early-1 {
				begin = at
			}
			end = at
		case <-ctx.Done():
			t.Fatalf("it has tried %d times only", i)
		}
	}
	stop(enough)
	if err := <-sent; !errors.Is(err, enough) {
		t.Errorf("send: got %v, want the cause", err)
	}
	if took := end.Sub(begin); took < (more-1)*chanPoll {
		t.Errorf("it tried %d times within %v, want at least %v between two", more, took, chanPoll)
	}
	if err := sub.Unsubscribe(); err != nil {
		t.Error(err)
	}
}
