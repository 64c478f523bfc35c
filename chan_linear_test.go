package hark_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/internal/leak"
	"github.com/harkbus/hark/internal/race"
)

// chanOp is an operation on a channel, chanResult its result.
type (
	chanOp struct {
		kind  chanKind
		value int
	}
	chanResult struct {
		value   int
		outcome chanOutcome
	}
	chanKind    int
	chanOutcome int
)

// What may be done to a channel. The way through In or Out is recorded as send
// or receive: it must not make a difference.
const (
	opSend chanKind = iota
	opReceive
	opTrySend
	opTryReceive
	opClose
	opLen
	opPass // a send and the receive of its value at the same moment, for capacity 0
)

const (
	done      chanOutcome = iota
	not                   // a Try did nothing
	ended                 // its context ended first
	wasClosed             // ErrClosed
)

type chanState struct {
	values []int
	closed bool
}

// period is the time from the call to the return of an operation.
type period struct{ begin, end int64 }

// receives returns when each value was received.
func receives(history []porcupine.Operation) map[int]period {
	received := map[int]period{}
	for _, op := range history {
		in, out := op.Input.(chanOp), op.Output.(chanResult)
		if (in.kind == opReceive || in.kind == opTryReceive) && out.outcome == done {
			received[out.value] = period{op.Call, op.Return}
		}
	}
	return received
}

// chanModel is the model of a channel with the given capacity: a queue that is
// never longer than that, and that can be closed. An operation that waits takes
// effect when it can. One whose context ended has no effect.
//
// received says when each value was received. It changes no verdict. It only
// excludes orders of sends that later receives would refute, without which the
// search would take too long.
func chanModel(capacity int, received map[int]period) porcupine.Model {
	refuted := func(s chanState, v int) bool {
		of, ok := received[v]
		return ok && slices.ContainsFunc(s.values, func(before int) bool {
			b, ok := received[before]
			return ok && of.end < b.begin
		})
	}
	full := func(s chanState) bool { return capacity >= 0 && len(s.values) >= capacity }
	return porcupine.Model{
		Init: func() any { return chanState{} },
		Step: func(state, input, output any) (bool, any) {
			s, op, out := state.(chanState), input.(chanOp), output.(chanResult)
			if out.outcome == ended {
				return true, s
			}
			switch op.kind {
			case opSend, opTrySend:
				switch out.outcome {
				case wasClosed:
					return s.closed, s
				case not:
					return !s.closed && full(s), s
				}
				return !s.closed && !full(s) && !refuted(s, op.value), chanState{append(slices.Clip(s.values), op.value), s.closed}
			case opReceive, opTryReceive:
				empty := len(s.values) == 0
				switch out.outcome {
				case wasClosed:
					return s.closed && empty, s
				case not:
					return !s.closed && empty, s
				}
				if empty || s.values[0] != out.value {
					return false, s
				}
				return true, chanState{s.values[1:], s.closed}
			case opPass:
				return !s.closed, s
			case opClose:
				return true, chanState{s.values, true}
			case opLen:
				return out.value == len(s.values), s
			}
			return false, s
		},
		Equal: func(a, b any) bool {
			x, y := a.(chanState), b.(chanState)
			return x.closed == y.closed && slices.Equal(x.values, y.values)
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v = %+v", in, out) },
	}
}

// rendezvous converts a history of a channel of capacity 0 to one that the
// model of a queue without room can explain: each send and the receive of its
// value become one operation, at a moment when both were in progress. A Try
// that found no one proves nothing, because a history does not show whether
// someone waits.
func rendezvous(history []porcupine.Operation) ([]porcupine.Operation, error) {
	var passed []porcupine.Operation
	sends := map[int]porcupine.Operation{}
	for _, op := range history {
		if in := op.Input.(chanOp); op.Output.(chanResult).outcome == done && (in.kind == opSend || in.kind == opTrySend) {
			sends[in.value] = op
		}
	}
	for _, op := range history {
		in, out := op.Input.(chanOp), op.Output.(chanResult)
		switch {
		case out.outcome == not:
		case out.outcome != done || in.kind == opClose || in.kind == opLen:
			passed = append(passed, op)
		case in.kind == opReceive || in.kind == opTryReceive:
			send, ok := sends[out.value]
			if !ok {
				return nil, fmt.Errorf("%d was received twice, or never sent", out.value)
			}
			delete(sends, out.value)
			pass := porcupine.Operation{
				ClientId: op.ClientId, Input: chanOp{opPass, out.value}, Output: chanResult{},
				Call: max(op.Call, send.Call), Return: min(op.Return, send.Return),
			}
			if pass.Call > pass.Return {
				return nil, fmt.Errorf("%d was sent and received at different times", out.value)
			}
			passed = append(passed, pass)
		}
	}
	for value := range sends {
		return nil, fmt.Errorf("%d was sent and never received", value)
	}
	return passed, nil
}

// chanClient operates on a channel and records what it does.
type chanClient struct {
	id      int
	c       *hark.Chan[int]
	rnd     *rand.Rand
	start   time.Time
	in      chan<- int // nil if not to be used
	out     <-chan int
	history []porcupine.Operation
	// stop is closed after the channel has been. Those who wait at In need it.
	stop <-chan struct{}
}

func outcomeOf(err error) chanOutcome {
	switch {
	case err == nil:
		return done
	case errors.Is(err, hark.ErrClosed):
		return wasClosed
	}
	return ended
}

// send and receive use the Go channels half of the time, if these are in use.
func (cc *chanClient) send(ctx context.Context, v int) chanOutcome {
	if cc.in == nil || cc.rnd.IntN(2) == 0 {
		return outcomeOf(cc.c.Send(ctx, v))
	}
	select {
	case cc.in <- v:
		return done
	case <-ctx.Done():
	case <-cc.stop:
	}
	return ended
}

func (cc *chanClient) receive(ctx context.Context) (int, chanOutcome) {
	if cc.out == nil || cc.rnd.IntN(2) == 0 {
		v, err := cc.c.Receive(ctx)
		return v, outcomeOf(err)
	}
	select {
	case v, ok := <-cc.out:
		if !ok {
			return 0, wasClosed
		}
		return v, done
	case <-ctx.Done():
		return 0, ended
	}
}

func (cc *chanClient) do(kind chanKind, value int, patience time.Duration) chanOutcome {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	op := porcupine.Operation{ClientId: cc.id, Input: chanOp{kind, value}, Call: time.Since(cc.start).Nanoseconds()}
	var r chanResult
	var ok bool
	var err error
	switch kind {
	case opSend:
		r.outcome = cc.send(ctx, value)
	case opReceive:
		r.value, r.outcome = cc.receive(ctx)
	case opTrySend:
		ok, err = cc.c.TrySend(ctx, value)
		if r.outcome = outcomeOf(err); err == nil && !ok {
			r.outcome = not
		}
	case opTryReceive:
		r.value, ok, err = cc.c.TryReceive(ctx)
		if r.outcome = outcomeOf(err); err == nil && !ok {
			r.outcome = not
		}
	case opClose:
		if err := cc.c.Close(); err != nil {
			panic(err)
		}
	case opLen:
		r.value = cc.c.Len()
	}
	op.Return = time.Since(cc.start).Nanoseconds()
	op.Output = r
	cc.history = append(cc.history, op)
	return r.outcome
}

// TestChanIsLinearizable records the operations of concurrent senders,
// receivers, cancellations and a close, with and without In and Out, and checks
// that the model explains them.
func TestChanIsLinearizable(t *testing.T) {
	rounds := 60
	if testing.Short() || race.Enabled {
		rounds = 20
	}
	for _, capacity := range []int{0, 1, 3, hark.Unbounded} {
		for _, way := range []struct {
			name    string
			in, out bool
		}{{"plain", false, false}, {"In", true, false}, {"Out", false, true}, {"In and Out", true, true}} {
			if capacity == 0 && way.in && way.out {
				continue // In then takes one value ahead, so there is no rendezvous
			}
			t.Run(fmt.Sprintf("capacity %d/%s", capacity, way.name), func(t *testing.T) {
				leak.Check(t)
				undecided := 0
				for decided := 0; decided < rounds; {
					if checkChanHistory(t, capacity, way.in, way.out) {
						decided++
					} else if undecided++; undecided > 3 {
						t.Fatalf("the check of %d histories did not finish", undecided)
					}
				}
			})
		}
	}
}

// checkChanHistory records a history and checks it. It returns false if the
// check would take too long. That may happen on a busy machine, where more
// operations overlap; the caller then has to record another one.
func checkChanHistory(t *testing.T, capacity int, in, out bool) (decided bool) {
	const each = 25
	seed := rand.Uint64()
	c, err := hark.NewChan[int](nil, "", capacity)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	client := func(id int) *chanClient {
		cc := &chanClient{id: id, c: c, rnd: rand.New(rand.NewPCG(seed, uint64(id))), start: start, stop: c.Done()}
		if in {
			cc.in = c.In()
		}
		if out {
			cc.out = c.Out()
		}
		return cc
	}
	var wg sync.WaitGroup
	clients := make([]*chanClient, 7)
	for id := range clients {
		cc := client(id)
		clients[id] = cc
		wg.Go(func() {
			for i := range each {
				value := 1_000_000*(id+1) + i
				patience := time.Duration(cc.rnd.IntN(100_000)) * time.Nanosecond
				if cc.rnd.IntN(3) == 0 {
					patience = time.Second
					if id > 3 && i > each/2 {
						patience = 0 // its context has already ended
					}
				}
				kind := opReceive
				if id%3 == 0 {
					kind = opSend
				}
				switch n := cc.rnd.IntN(12); {
				case n < 2:
					kind += opTrySend - opSend
				case n == 2:
					kind = opLen
				case id == 6 && i == each-1:
					kind = opClose
				}
				cc.do(kind, value, min(patience, 5*time.Millisecond))
			}
		})
	}
	wg.Wait()
	last := client(len(clients))
	last.do(opClose, 0, time.Second)
	for last.do(opReceive, 0, time.Minute) == done { // so that a lost value shows
	}
	var history []porcupine.Operation
	for _, cc := range append(clients, last) {
		for _, op := range cc.history {
			// A cancelled operation has had no effect. The other operations
			// show whether that is true; leaving it in would only make the
			// search longer.
			if op.Output.(chanResult).outcome != ended {
				history = append(history, op)
			}
		}
	}
	if capacity == 0 {
		if history, err = rendezvous(history); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	switch porcupine.CheckOperationsTimeout(chanModel(capacity, receives(history)), history, 15*time.Second) {
	case porcupine.Illegal:
		t.Fatalf("seed %d: no order explains the history of %d operations", seed, len(history))
	case porcupine.Unknown:
		return false
	}
	return true
}

// TestChanModelRefuses checks that the model rejects wrong histories.
func TestChanModelRefuses(t *testing.T) {
	op := func(client int, kind chanKind, in, out int, outcome chanOutcome, call, end int64) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: chanOp{kind, in}, Output: chanResult{out, outcome}, Call: call, Return: end}
	}
	tests := []struct {
		title    string
		capacity int
		history  []porcupine.Operation
		want     bool
	}{
		{"in order", 2, []porcupine.Operation{
			op(0, opSend, 1, 0, done, 0, 1), op(0, opSend, 2, 0, done, 2, 3),
			op(1, opReceive, 0, 1, done, 4, 5), op(1, opReceive, 0, 2, done, 6, 7),
		}, true},
		{"out of order", 2, []porcupine.Operation{
			op(0, opSend, 1, 0, done, 0, 1), op(0, opSend, 2, 0, done, 2, 3),
			op(1, opReceive, 0, 2, done, 4, 5), op(1, opReceive, 0, 1, done, 6, 7),
		}, false},
		{"twice", 2, []porcupine.Operation{
			op(0, opSend, 1, 0, done, 0, 1), op(1, opReceive, 0, 1, done, 2, 5), op(2, opReceive, 0, 1, done, 2, 5),
		}, false},
		{"sent although cancelled", 2, []porcupine.Operation{
			op(0, opSend, 1, 0, ended, 0, 1), op(1, opReceive, 0, 1, done, 2, 5),
		}, false},
		{"more than the capacity", 1, []porcupine.Operation{
			op(0, opSend, 1, 0, done, 0, 1), op(0, opSend, 2, 0, done, 2, 3), op(1, opReceive, 0, 1, done, 4, 5),
		}, false},
		{"lost by the close", 1, []porcupine.Operation{
			op(0, opSend, 1, 0, done, 0, 1), op(0, opClose, 0, 0, done, 2, 3), op(1, opReceive, 0, 0, wasClosed, 4, 5),
		}, false},
		{"full although it has room", 2, []porcupine.Operation{
			op(0, opSend, 1, 0, done, 0, 1), op(0, opTrySend, 2, 0, not, 2, 3),
		}, false},
		{"at the same time", 0, []porcupine.Operation{
			op(0, opSend, 1, 0, done, 0, 3), op(1, opReceive, 0, 1, done, 2, 5),
		}, true},
		{"one after the other", 0, []porcupine.Operation{
			op(0, opSend, 1, 0, done, 0, 1), op(1, opReceive, 0, 1, done, 2, 5),
		}, false},
		{"passed after the close", 0, []porcupine.Operation{
			op(0, opClose, 0, 0, done, 0, 1), op(1, opSend, 1, 0, done, 2, 5), op(2, opReceive, 0, 1, done, 2, 5),
		}, false},
	}
	for _, tt := range tests {
		history, err := tt.history, error(nil)
		if tt.capacity == 0 {
			history, err = rendezvous(history)
		}
		if got := err == nil && porcupine.CheckOperations(chanModel(tt.capacity, receives(history)), history); got != tt.want {
			t.Errorf("%s: explained %v, want %v", tt.title, got, tt.want)
		}
	}
}
