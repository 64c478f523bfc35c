package hark

import (
	"context"
	"fmt"
	"iter"
)

// watcher is a loop over Watch, or a call of WaitUntil.
type watcher struct {
	sleeper             // reset each time the watcher parks
	next, prev *watcher // in the list of parked watchers
	parking    uint64   // Value.parking when it parked
}

// wakeList is a list of watchers that were removed from a value, to be woken
// without its lock.
type wakeList struct{ first *watcher }

// wake wakes all of them. It may be called once.
func (l wakeList) wake() {
	for w := l.first; w != nil; {
		next := w.next // w may park again at once
		w.sleeper.wake()
		w = next
	}
}

// Watch returns an iterator over the states of the value, beginning with the
// current one. A loop that is slower than the changes skips some but always gets
// the last: use Observe to see each. It ends when ctx ends, and with the bus
// after the last state. It may be used more than once; each loop begins with the
// state at that time.
func (v *Value[T]) Watch(ctx context.Context) iter.Seq[T] {
	return func(yield func(T) bool) {
		w := v.watch()
		defer v.unwatch()
		for seen := uint64(0); ; {
			value, n, err := v.await(ctx, w, seen)
			if err != nil || !yield(value) {
				return
			}
			seen = n
		}
	}
}

// WaitUntil waits until the value satisfies pred and returns the value that did.
// It looks at the current value and then, after changes, at the last state: a
// state that lasted only a moment may be missed. pred is called without a lock
// held, by the caller's goroutine. If ctx ends first WaitUntil returns its
// cause; if the bus closes, ErrClosed.
func (v *Value[T]) WaitUntil(ctx context.Context, pred func(T) bool) (T, error) {
	var zero T
	if pred == nil {
		return zero, v.failed("wait", fmt.Errorf("%w: the predicate is nil", ErrInvalidOption))
	}
	w := v.watch()
	defer v.unwatch()
	for seen := uint64(0); ; {
		value, n, err := v.await(ctx, w, seen)
		if err != nil {
			return zero, v.failed("wait", err)
		}
		if pred(value) {
			return value, nil
		}
		seen = n
	}
}

func (v *Value[T]) watch() *watcher {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.watchers++
	return &watcher{sleeper: newSleeper()}
}

func (v *Value[T]) unwatch() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.watchers--
}

// await waits until the version differs from seen, and returns the value and
// its version.
func (v *Value[T]) await(ctx context.Context, w *watcher, seen uint64) (value T, n uint64, err error) {
	for {
		if ctx.Err() != nil {
			return value, 0, context.Cause(ctx)
		}
		v.mu.Lock()
		if v.version != seen {
			value, n = v.value, v.version
			v.mu.Unlock()
			return value, n, nil
		}
		if v.stopped != nil {
			v.mu.Unlock()
			return value, 0, v.stopped
		}
		v.parkLocked(w)
		v.mu.Unlock()
		if !w.sleep(ctx) {
			v.unpark(w)
		}
	}
}

func (v *Value[T]) parkLocked(w *watcher) {
	w.reset()
	w.next, w.prev, w.parking = v.parked, nil, v.parking
	if w.next != nil {
		w.next.prev = w
	}
	v.parked = w
	v.attention = everybody
}

// unparkLocked removes all parked watchers. The caller wakes them after
// unlocking mu.
func (v *Value[T]) unparkLocked() wakeList {
	if v.parked == nil {
		return wakeList{}
	}
	l := wakeList{v.parked}
	v.parked = nil
	v.parking++
	v.attendLocked()
	return l
}

// unpark removes w, which stops waiting for a reason of its own.
func (v *Value[T]) unpark(w *watcher) {
	v.mu.Lock()
	if w.parking != v.parking {
		v.mu.Unlock()
		w.wait() // it is being woken
		return
	}
	if w.prev == nil {
		v.parked = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	}
	v.attendLocked()
	v.mu.Unlock()
}
