package hark

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A round tells the inline observers of a value of a change. There is only one
// at a time. It runs on the goroutine that made the change, without a lock
// held. Changes that observers make meanwhile wait in the queue, and observers
// are told of them before the round ends. Changes from elsewhere wait until it
// has ended.
//
// A round begins, with mu held, by incrementing begun. It ends with one store
// to ended, without mu if no one waits. Whoever waits for its end sets knock
// and then checks again whether it has ended; a round stores ended and then
// checks knock, so one of the two sees the other. While anyone waits (queue,
// setters, idlers), knock is set.
type round[T any] struct {
	v *Value[T]
	change[T]
	next   int // which of to is being told
	number uint64
}

// change is a change and the observers to be told of it.
type change[T any] struct {
	old, new T
	to       []inlineObserver[T]
}

// inlineObserver is an inline observer and its function, which is not loaded
// through it because that takes a third as long as a call
// (BenchmarkValueObservers).
type inlineObserver[T any] struct {
	f func(old, new T)
	o *observer[T]
}

// inRoundLocked reports whether a round is in progress. If so, the round will
// look for what the caller then leaves for it.
func (v *Value[T]) inRoundLocked() bool {
	if v.begun == v.ended.Load() {
		return false
	}
	v.knock.Store(true)
	return v.begun != v.ended.Load()
}

// errOvertaken means that another change came first.
var errOvertaken = errors.New("overtaken")

// changeLocked sets the value as soon as that is allowed, provided that its
// version is n or n is 0, and tells observers and watchers. It unlocks mu.
func (v *Value[T]) changeLocked(ctx context.Context, value T, n uint64) (changed bool, err error) {
	if v.sealed && v.stopped == nil {
		v.mu.Unlock()
		if handlerOf(ctx) == nil && !inHandler() {
			return false, fmt.Errorf("bus %w", ErrClosed)
		}
		v.mu.Lock()
	}
	for {
		inRound, err := v.enterLocked(ctx, func() bool { return n != 0 && v.version != n }, false)
		var version uint64
		switch {
		case err != nil:
		case v.remote == nil:
			version = v.version + 1
		default:
			if version, err = v.commitLocked(ctx, value); err == nil {
				inRound = inRound && v.inRoundLocked()
			}
		}
		switch {
		case err == nil:
			v.tellAllLocked(value, version, inRound)
			return true, nil
		case !errors.Is(err, errOvertaken):
			return false, err
		case n != 0:
			return false, nil
		}
		v.mu.Lock()
	}
}

// enterLocked waits until a change may be made, and reports whether a round is
// then in progress. It returns errOvertaken if over returns true, since there
// is then nothing left to do. foreign marks changes that have been made
// elsewhere, which are not refused. If it returns an error, mu is unlocked.
func (v *Value[T]) enterLocked(ctx context.Context, over func() bool, foreign bool) (inRound bool, err error) {
	var known, inside, waited bool
	for {
		if v.stopped != nil {
			v.mu.Unlock()
			return false, v.stopped
		}
		if over() {
			v.wakeSetterLocked()
			v.mu.Unlock()
			return false, errOvertaken
		}
		inRound = len(v.inline) > 0 && v.inRoundLocked()
		full, writing := v.fullLocked(), v.remote != nil && v.remote.writing
		if full == Fail && foreign {
			full = 0
		}
		if !inRound && full == 0 && !writing {
			return false, nil
		}
		if full == Fail {
			v.wakeSetterLocked()
			v.mu.Unlock()
			return false, ErrFull
		}
		if known && inside && !writing {
			if v.overgrownLocked() {
				v.mu.Unlock()
				return false, ErrWouldDeadlock
			}
			return inRound, nil
		}
		if !known {
			v.mu.Unlock()
			known, inside = true, inObserver()
			v.mu.Lock()
			continue
		}
		if err := v.awaitTurnLocked(ctx, waited); err != nil {
			return false, err
		}
		waited = true
	}
}

// tellAllLocked sets the value and tells observers and watchers, after the
// changes of the round in progress, if there is one. It unlocks mu.
func (v *Value[T]) tellAllLocked(value T, version uint64, inRound bool) {
	old := v.value
	v.putLocked(value)
	v.version = version
	buffered := v.buffered
	for _, o := range buffered {
		o.pushLocked(value)
	}
	woken := v.unparkLocked()
	r := round[T]{v: v}
	if len(v.inline) == 0 {
		v.wakeSetterLocked()
	} else {
		v.queue.push(change[T]{old, value, v.inline})
		if !inRound {
			r.beginLocked()
		}
	}
	v.mu.Unlock()
	woken.wake()
	if len(buffered) > 0 {
		v.reportDrops(buffered)
	}
	if r.number != 0 {
		r.finish()
	}
}

// finish runs the round to its end.
func (r *round[T]) finish() {
	for !r.run() {
	}
}

// run tells observers until there is nothing left to tell. It returns false if
// one of them panicked; the next call continues after that observer.
func (r *round[T]) run() (over bool) {
	defer func() {
		if !over {
			r.failed(recover())
		}
	}()
	v := r.v
	for {
		// next is only written here, for failed, and i counts. If the index
		// were read back from memory, each call would wait for the one before
		// (BenchmarkValueObservers).
		for i, c := range r.to {
			r.next = i
			if !c.o.closed.Load() {
				c.f(r.old, r.new)
			}
		}
		if !v.knock.Load() {
			v.ended.Store(r.number)
			if !v.knock.Load() {
				return true
			}
		}
		if !r.proceed() {
			return true
		}
	}
}

// failed reports the observer that did not return normally.
func (r *round[T]) failed(value any) {
	o := r.to[r.next].o
	r.to = r.to[r.next+1:]
	o.failed(caught(value))
	if value == nil {
		// The goroutine is about to end (runtime.Goexit), so the other
		// observers are told from here.
		r.finish()
	}
}

// proceed is called at the end of a round for which someone waits. It reports
// whether r continues as another round, for the next change in the queue. That
// may be the very change whose Set runs r.
func (r *round[T]) proceed() bool {
	v := r.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.begun != r.number {
		return false // r had ended, and another round has begun, for which knock is still set
	}
	v.knock.Store(false)
	if v.queue.len() > 0 {
		r.beginLocked()
		return true
	}
	v.ended.Store(r.number)
	v.wakeSetterLocked()
	if v.tellIdleLocked(); len(v.idlers) > 0 {
		v.knock.Store(true)
	}
	return false
}

// beginLocked begins a round with the first change in the queue.
func (r *round[T]) beginLocked() {
	v := r.v
	r.change = v.queue.pop()
	if v.queue.len() == 0 && cap(v.queue.items) > defaultBuffer {
		v.queue = fifo[change[T]]{}
	}
	if v.queue.len() > 0 || len(v.setters) > 0 || len(v.idlers) > 0 {
		v.knock.Store(true)
	}
	v.begun++
	r.number = v.begun
}

// awaitTurnLocked waits until what prevents a change may be gone, or ctx ends.
// A change that was overtaken goes to the front of the line. awaitTurnLocked
// returns with mu locked, unless it returns an error.
func (v *Value[T]) awaitTurnLocked(ctx context.Context, overtaken bool) error {
	turn := make(chan struct{})
	if overtaken {
		v.setters = slices.Insert(v.setters, 0, turn)
	} else {
		v.setters = append(v.setters, turn)
	}
	v.knock.Store(true)
	v.mu.Unlock()
	select {
	case <-turn:
		v.mu.Lock()
		return nil
	case <-ctx.Done():
	}
	v.mu.Lock()
	if i := slices.Index(v.setters, turn); i >= 0 {
		v.setters = slices.Delete(v.setters, i, i+1)
	} else {
		v.wakeSetterLocked() // it was our turn, so pass it on
	}
	v.mu.Unlock()
	return context.Cause(ctx)
}

// wakeSetterLocked makes the longest waiting Set look again. All of them wait
// for the same thing, so the others need not look before it has.
func (v *Value[T]) wakeSetterLocked() {
	if len(v.setters) == 0 {
		return
	}
	close(v.setters[0])
	v.setters = slices.Delete(v.setters, 0, 1)
	if len(v.setters) > 0 {
		v.knock.Store(true)
	}
}

// fullLocked returns the policy of a full buffer that prevents a change: Fail
// or Block, or 0 if there is none.
func (v *Value[T]) fullLocked() Policy {
	var found Policy
	for _, o := range v.buffered {
		if (o.queue.policy == Block || o.queue.policy == Fail) && o.fullLocked() {
			found = max(found, o.queue.policy)
		}
	}
	return found
}

// overgrownLocked reports whether observers have made more changes than may
// wait beyond the buffers.
func (v *Value[T]) overgrownLocked() bool {
	if v.queue.len() >= maxOvergrown {
		return true
	}
	for _, o := range v.buffered {
		if o.queue.policy == Block && o.queue.buffer != Unbounded && o.waiting.len() >= o.queue.buffer+maxOvergrown {
			return true
		}
	}
	return false
}

// idleLocked reports whether every observer has been told of every change.
func (v *Value[T]) idleLocked() bool {
	if v.queue.len() > 0 || v.inRoundLocked() {
		return false
	}
	for _, o := range v.buffered {
		if o.busy || o.waiting.len() > 0 {
			return false
		}
	}
	return len(v.leaving) == 0
}

// tellIdleLocked wakes those who wait for idleness, if the value is idle.
func (v *Value[T]) tellIdleLocked() {
	if len(v.idlers) == 0 || !v.idleLocked() {
		return
	}
	for _, ch := range v.idlers {
		close(ch)
	}
	v.idlers = nil
}

// settle waits until the value is idle or ctx ends.
func (v *Value[T]) settle(ctx context.Context) {
	v.mu.Lock()
	ch := make(chan struct{})
	v.idlers = append(v.idlers, ch)
	v.knock.Store(true)
	v.tellIdleLocked()
	v.mu.Unlock()
	select {
	case <-ch:
	case <-ctx.Done():
		v.mu.Lock()
		v.idlers = slices.DeleteFunc(v.idlers, func(c chan struct{}) bool { return c == ch })
		v.mu.Unlock()
	}
}
