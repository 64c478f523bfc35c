package hark_test

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harkbus/hark"
)

// valueWorld is a value, what a random walk has done to it, and what the model
// says should have come of that.
type valueWorld struct {
	t         *testing.T
	rnd       *rand.Rand
	v         *hark.Value[int]
	value     int // the model: a variable,
	version   uint64
	observers []*walker // and the observers of its changes
	next      int       // the next value to set, so that all differ
}

// walker is an observer with a habit.
type walker struct {
	stop func()
	want []int // changes it should be told of
	got  []int
	last int
	live bool
	late bool // buffered with a small buffer, so only the last change matters
}

func (w *valueWorld) observe(opts []hark.ObserveOption, late bool, habit func(o *walker, now int)) *walker {
	o := &walker{last: w.value, live: true, late: late}
	stop, err := w.v.Observe(func(old, now int) {
		if old != o.last {
			w.t.Errorf("told %d -> %d, the last was %d", old, now, o.last)
		}
		o.last = now
		o.got = append(o.got, now)
		if habit != nil {
			habit(o, now)
		}
	}, opts...)
	if err != nil {
		w.t.Fatal(err)
	}
	o.stop = stop
	w.observers = append(w.observers, o)
	return o
}

// changed tells the model of a change.
func (w *valueWorld) changed(value int) {
	w.value = value
	w.version++
	for _, o := range w.observers {
		if o.live {
			o.want = append(o.want, value)
		}
	}
}

func (w *valueWorld) fresh() int {
	w.next++
	return w.next
}

// set changes the value in one of the available ways.
func (w *valueWorld) set() {
	n := w.fresh()
	// Update the model first, because observers change the value in turn.
	way := w.rnd.IntN(3)
	version := w.version
	w.changed(n)
	var err error
	ok := true
	switch way {
	case 0:
		err = w.v.Set(w.t.Context(), n)
	case 1:
		ok, err = w.v.CompareAndSet(w.t.Context(), version, n)
	case 2:
		_, err = w.v.Update(w.t.Context(), func(int) int { return n })
	}
	if err != nil || !ok {
		w.t.Errorf("change %d: %v, %v", way, ok, err)
	}
}

func (w *valueWorld) step() {
	switch w.rnd.IntN(12) {
	case 0:
		w.observe(nil, false, nil)
	case 1: // sets the value now and then
		w.observe(nil, false, func(_ *walker, now int) {
			if now%3 == 0 && len(w.observers) < 40 && w.next < 5000 {
				w.set()
			}
		})
	case 2: // stops itself after a few changes
		left := 1 + w.rnd.IntN(4)
		w.observe(nil, false, func(o *walker, _ int) {
			if left--; left == 0 {
				o.live = false
				o.stop()
				o.want = slices.Clone(o.got) // earlier changes do not reach it
			}
		})
	case 3: // adds an observer
		w.observe(nil, false, func(_ *walker, now int) {
			if now%7 == 0 && len(w.observers) < 40 {
				w.observe(nil, false, nil)
			}
		})
	case 4:
		w.observe(nil, false, func(_ *walker, now int) {
			if now%2 == 0 {
				panic(now)
			}
		})
	case 5:
		w.observe([]hark.ObserveOption{hark.Buffer(hark.Unbounded)}, false, nil)
	case 6:
		rnd := rand.New(rand.NewPCG(w.rnd.Uint64(), 0))
		w.observe([]hark.ObserveOption{hark.Buffer(1 + w.rnd.IntN(3))}, true, func(*walker, int) {
			switch rnd.IntN(5) {
			case 0:
				time.Sleep(time.Second)
			case 1:
				runtime.Goexit()
			}
		})
	case 7:
		if len(w.observers) > 0 {
			o := w.observers[w.rnd.IntN(len(w.observers))]
			if synctest.Wait(); o.live {
				o.live = false
				o.stop()
				if o.late || len(o.got) < len(o.want) {
					o.want, o.late = nil, true
				}
			}
		}
	case 8:
		if ok, err := w.v.CompareAndSet(w.t.Context(), w.version+1, -1); ok || err != nil {
			w.t.Errorf("CompareAndSet of a version to come = %v, %v", ok, err)
		}
	default:
		w.set()
	}
	if value, n := w.v.Load(); value != w.value || n != w.version || w.v.Get() != value {
		w.t.Errorf("the value is %d, version %d; the model has %d, %d", value, n, w.value, w.version)
	}
}

// check compares what observers were told with the model.
func (w *valueWorld) check() {
	for i, o := range w.observers {
		switch {
		case o.late && o.live:
			if len(o.want) > 0 && o.last != o.want[len(o.want)-1] {
				w.t.Errorf("observer %d was told %d last, want %d", i, o.last, o.want[len(o.want)-1])
			}
		case o.late:
		case !slices.Equal(o.got, o.want):
			w.t.Errorf("observer %d was told\n%v, want\n%v", i, o.got, o.want)
		}
	}
}

// TestValueWalk operates randomly on a value and compares it with a model.
func TestValueWalk(t *testing.T) {
	walk(t, 20, func(t *testing.T, rnd *rand.Rand) {
		bus := hark.New()
		w := &valueWorld{t: t, rnd: rnd, version: 1}
		w.v = newValue(t, bus, 0)
		for range 150 {
			w.step()
		}
		closeBus(t, bus)
		w.check()
	})
}
