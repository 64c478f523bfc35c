package hark

import (
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark/internal/exec"
)

// ObserveOption configures an observer of a Value.
type ObserveOption interface{ applyObserve(*observeConfig) error }

type observeConfig struct {
	queue queue
}

// observer is a function that is told of the changes of a value: inline, by the
// rounds of the value, or buffered, by a task of its own.
type observer[T any] struct {
	v      *Value[T]
	f      func(old, new T) // not called any more once closed is set
	closed atomic.Bool
	name   string
	at     uintptr

	// Only for buffered observers.
	exec.Task
	queue queue
	last  T // the last value that f was told; used only by the task

	// Guarded by Value.mu.
	waiting    fifo[T]
	busy       bool   // the task has taken something and has not come back
	unreported uint64 // drops not yet reported to the hooks
}

// Observe calls f for each change from now on, with the value before and after
// it. All observers see the changes in the same order, and new is the old of the
// next call; calls of one observer never overlap.
//
// Without options f is inline: it misses nothing, and is called by the goroutine
// that makes the change, before Set returns there. With Buffer or Overflow it is
// called by a goroutine of the bus while Set goes on, and the policy says what
// happens when f is slow. The default keeps the latest changes: with Buffer(n),
// 1,024 by default, f gets the n latest changes as soon as it has time, and so
// always the last state (DropOldest). Overflow(Latest) is Buffer(1). A dropped
// change is counted, and merged into the next: old is still the value that f got
// last.
//
// f may use the value in any way: change it, observe it, and call stop. If it
// panics, or calls runtime.Goexit, the FailHooks are called, the other observers
// get the change as usual, and f gets the next one.
//
// After stop has returned no call of f begins; one that has begun may still run.
// Changes waiting in the buffer are counted as DropClosed. Calling stop again
// does nothing. If the bus is being closed, Observe returns ErrClosed.
func (v *Value[T]) Observe(f func(old, new T), opts ...ObserveOption) (stop func(), err error) {
	o, err := v.observe(f, caller(), opts)
	if err != nil {
		return nil, v.failed("observe", err)
	}
	return func() { v.removeObserver(o) }, nil
}

func (v *Value[T]) observe(f func(old, new T), at uintptr, opts []ObserveOption) (*observer[T], error) {
	if f == nil {
		return nil, fmt.Errorf("%w: the observer is nil", ErrInvalidOption)
	}
	var c observeConfig
	for opt := range given(opts) {
		if err := opt.applyObserve(&c); err != nil {
			return nil, err
		}
	}
	buffered := c.queue != queue{}
	q, err := c.queue.or(defaultBuffer, DropOldest)
	if err != nil {
		return nil, err
	}
	o := &observer[T]{v: v, f: f, at: at, queue: q}
	if len(v.core.hooks.slow) > 0 {
		o.f = o.watched(f)
	}

	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sealed || v.stopped != nil {
		return nil, fmt.Errorf("bus %w", ErrClosed)
	}
	v.observed++
	o.name = v.core.name + "#" + strconv.FormatUint(v.observed, 10)
	if !buffered {
		v.inline = append(slices.Clip(v.inline), inlineObserver[T]{o.f, o})
	} else {
		if v.core.pool == nil {
			v.core.pool = exec.NewPool()
		}
		o.Init(v.core.pool, o)
		o.last = v.value
		v.buffered = append(slices.Clip(v.buffered), o)
	}
	v.attendLocked()
	return o, nil
}

func (v *Value[T]) removeObserver(o *observer[T]) {
	v.mu.Lock()
	v.removeLocked(o)
	v.attendLocked()
	v.wakeSetterLocked() // it may have been what they wait for
	v.tellIdleLocked()
	v.mu.Unlock()
	v.reportDrops([]*observer[T]{o})
}

func (v *Value[T]) removeLocked(o *observer[T]) {
	if o.closed.Swap(true) {
		return
	}
	v.inline = slices.DeleteFunc(slices.Clone(v.inline), func(c inlineObserver[T]) bool { return c.o == o })
	v.buffered = slices.DeleteFunc(slices.Clone(v.buffered), func(other *observer[T]) bool { return other == o })
	o.unreported += uint64(o.waiting.len())
	v.lost += uint64(o.waiting.len())
	o.waiting = fifo[T]{}
	if o.busy {
		v.leaving = append(v.leaving, o)
	}
}

// fullLocked reports whether the buffer has no room.
func (o *observer[T]) fullLocked() bool {
	return o.queue.buffer != Unbounded && o.waiting.len() >= o.queue.buffer
}

// pushLocked puts a change into the buffer as the policy demands. If the policy
// is to wait or to fail, the caller has checked that there is room.
func (o *observer[T]) pushLocked(value T) {
	switch {
	case !o.fullLocked():
	case o.queue.policy == DropNewest || o.queue.policy == Fail && o.v.remote != nil: // the change was made elsewhere
		o.unreported++
		o.v.lost++
		return
	case o.queue.policy == DropOldest || o.queue.policy == Latest:
		o.waiting.pop()
		o.unreported++
		o.v.lost++
	}
	o.waiting.push(value)
	o.Notify()
}

// observerTurn is how many changes a buffered observer is told of before other
// tasks get their turn.
const observerTurn = 64

// Run implements exec.Runner.
func (o *observer[T]) Run() (more bool) {
	for range observerTurn {
		value, ok := o.take()
		if !ok {
			return false
		}
		o.tell(value)
	}
	return true
}

// take returns the next change.
func (o *observer[T]) take() (value T, ok bool) {
	v := o.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if ok = o.waiting.len() > 0; ok {
		value = o.waiting.pop()
		o.busy = true
		if o.queue.policy == Block {
			v.wakeSetterLocked()
		}
		return value, true
	}
	o.busy = false
	if cap(o.waiting.items) > defaultBuffer {
		o.waiting = fifo[T]{} // releases the memory that a burst needed
	}
	if o.closed.Load() {
		v.leaving = slices.DeleteFunc(v.leaving, func(other *observer[T]) bool { return other == o })
	}
	v.tellIdleLocked()
	return value, false
}

// tell tells a buffered observer of a change.
func (o *observer[T]) tell(value T) {
	returned := false
	defer func() {
		if !returned {
			o.failed(caught(recover()))
		}
	}()
	old := o.last
	o.last = value
	if !o.closed.Load() {
		o.f(old, value)
	}
	returned = true
}

// watched returns f wrapped in a watch that reports to the hooks if it is slow.
func (o *observer[T]) watched(f func(old, new T)) func(old, new T) {
	return func(old, value T) {
		bus := o.v.core.bus
		slow := time.AfterFunc(bus.slow, func() {
			bus.hooks.onSlow(SlowEvent{Source: o.source(), For: bus.slow})
		})
		defer slow.Stop()
		f(old, value)
	}
}

// end returns the observer's End in a Topology.
func (o *observer[T]) end() End { return End{Role: "observe", Name: o.name, At: place(o.at)} }

func (o *observer[T]) source() Source {
	return Source{Kind: KindValue, Name: o.v.core.name, Subscription: o.name}
}

// failed counts and reports a call that did not return normally.
func (o *observer[T]) failed(err error) {
	o.v.failures.Add(1)
	o.v.core.hooks.onFail(FailEvent{Source: o.source(), Attempt: 1, Err: err})
}

// reportDrops reports the drops since the last call to the hooks. No lock is
// held.
func (v *Value[T]) reportDrops(of []*observer[T]) {
	if len(v.core.hooks.drop) == 0 {
		return
	}
	for _, o := range of {
		v.mu.Lock()
		n := o.unreported
		o.unreported = 0
		v.mu.Unlock()
		if n == 0 {
			continue
		}
		why := DropOverflow
		if o.closed.Load() {
			why = DropClosed
		}
		v.core.hooks.onDrop(DropEvent{Source: o.source(), Count: int(n), Reason: why})
	}
}
