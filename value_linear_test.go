package hark_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/internal/leak"
)

// The operations of the model below.
type (
	getOp    struct{}
	loadOp   struct{}
	setOp    struct{ value int }
	updateOp struct{}
	casOp    struct {
		version uint64
		value   int
	}
)

type valueState struct {
	value   int
	version uint64
}

// valueModel is the model of a value: a variable with a version.
var valueModel = porcupine.Model{
	Init: func() any { return valueState{0, 1} },
	Step: func(state, input, output any) (bool, any) {
		s := state.(valueState)
		switch op := input.(type) {
		case getOp:
			return output == s.value, s
		case loadOp:
			return output == s, s
		case setOp:
			return true, valueState{op.value, s.version + 1}
		case updateOp:
			now := valueState{updated(s.value), s.version + 1}
			return output == now.value, now
		case casOp:
			if output != (op.version == s.version) {
				return false, s
			}
			if op.version == s.version {
				return true, valueState{op.value, s.version + 1}
			}
			return true, s
		}
		return false, s
	},
	Equal:             func(a, b any) bool { return a == b },
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%T%+v = %v", in, in, out) },
}

// updated is the function that updates apply. Its results show the order of two
// of them.
func updated(n int) int { return n*31 + 1 }

// TestValueIsLinearizable records concurrent operations on a value, without
// observers or with observers of both kinds, and checks that the model explains
// them.
func TestValueIsLinearizable(t *testing.T) {
	leak.Check(t)
	const clients, each = 5, 40
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for round := range rounds {
		seed := rand.Uint64()
		bus := hark.New()
		v := newValue(t, bus, 0)
		if round%3 > 0 {
			observe(t, v, func(int, int) {})
		}
		if round%3 > 1 {
			observe(t, v, func(int, int) {}, hark.Overflow(hark.Latest))
		}
		var mu sync.Mutex
		var history []porcupine.Operation
		start := time.Now()
		var wg sync.WaitGroup
		for client := range clients {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, uint64(client)))
				version := uint64(1)
				for i := range each {
					op := porcupine.Operation{ClientId: client}
					unique := 1_000_000*client + i
					switch rnd.IntN(6) {
					case 0, 1:
						op.Input = getOp{}
					case 2:
						op.Input = loadOp{}
					case 3:
						op.Input = setOp{unique}
					case 4:
						op.Input = updateOp{}
					case 5:
						op.Input = casOp{version, unique}
					}
					op.Call = time.Since(start).Nanoseconds()
					var err error
					switch in := op.Input.(type) {
					case getOp:
						op.Output = v.Get()
					case loadOp:
						value, n := v.Load()
						op.Output, version = valueState{value, n}, n
					case setOp:
						err = v.Set(t.Context(), in.value)
					case updateOp:
						op.Output, err = v.Update(t.Context(), updated)
					case casOp:
						op.Output, err = v.CompareAndSet(t.Context(), in.version, in.value)
						version = v.Version()
					}
					op.Return = time.Since(start).Nanoseconds()
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					history = append(history, op)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		closeBus(t, bus)
		switch porcupine.CheckOperationsTimeout(valueModel, history, time.Minute) {
		case porcupine.Illegal:
			t.Fatalf("seed %d: no order explains the history of %d operations", seed, len(history))
		case porcupine.Unknown:
			t.Fatalf("seed %d: the check did not finish", seed)
		}
	}
}

// TestValueModelRefuses checks that the model rejects wrong histories.
func TestValueModelRefuses(t *testing.T) {
	tests := []struct {
		title   string
		history []porcupine.Operation
		want    bool
	}{
		{"a stale Get", []porcupine.Operation{
			{ClientId: 0, Input: setOp{7}, Call: 0, Return: 1},
			{ClientId: 1, Input: getOp{}, Output: 0, Call: 2, Return: 3},
		}, false},
		{"a Get at the same time", []porcupine.Operation{
			{ClientId: 0, Input: setOp{7}, Call: 0, Return: 3},
			{ClientId: 1, Input: getOp{}, Output: 0, Call: 2, Return: 3},
		}, true},
		{"a lost update", []porcupine.Operation{
			{ClientId: 0, Input: updateOp{}, Output: 1, Call: 0, Return: 3},
			{ClientId: 1, Input: updateOp{}, Output: 1, Call: 0, Return: 3},
		}, false},
		{"two winners of one version", []porcupine.Operation{
			{ClientId: 0, Input: casOp{1, 5}, Output: true, Call: 0, Return: 3},
			{ClientId: 1, Input: casOp{1, 6}, Output: true, Call: 0, Return: 3},
		}, false},
	}
	for _, tt := range tests {
		if got := porcupine.CheckOperations(valueModel, tt.history); got != tt.want {
			t.Errorf("%s: explained %v, want %v", tt.title, got, tt.want)
		}
	}
}
