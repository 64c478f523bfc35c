package hark

import (
	"context"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/harkbus/hark/internal/exec"
)

// Value is a shared variable that can be observed: the subject of the Observer
// pattern. Everyone who names the same value of a bus shares one Value. It is
// safe for concurrent use, and everything that happens to it happens in one
// order: each change has a version, and observers see the changes in that order.
//
// A Value holds a T as it is. If T refers to other memory (a pointer, slice or
// map), that memory must not be modified after the value has been set.
type Value[T any] struct {
	// recent is the value as of the last change. It is nil if no one has needed
	// it since then; in that case the only copy is value, which mu guards. A
	// change that no one reads allocates nothing.
	//
	// It is a *version[T], read and written atomically. With an atomic.Pointer,
	// Get would be too long to be inlined and would cost twice as much
	// (BenchmarkValueGet).
	recent unsafe.Pointer

	core   valueCore
	remote *remoteValue[T] // nil in process

	// ended and knock are what the end of a round uses without mu: the number
	// of the last round that has ended, and whether someone waits for the end.
	// See round.
	ended atomic.Uint64
	knock atomic.Bool

	mu        sync.Mutex // guards the fields below; never held while user code runs
	value     T
	version   uint64
	misses    uint8 // calls of Get since the last change that found no recent
	attention attention

	inline   []inlineObserver[T] // replaced, but never modified
	buffered []*observer[T]      // replaced, but never modified
	leaving  []*observer[T]      // stopped while they were running
	begun    uint64              // the number of the last round that has begun
	queue    fifo[change[T]]     // changes made by observers during the round
	setters  []chan struct{}
	idlers   []chan struct{}

	parked   *watcher
	parking  uint64 // how often parked was emptied
	watchers int

	sealed  bool
	stopped error  // why nothing can be changed any more
	lost    uint64 // number of dropped changes

	observed uint64 // number of observers so far, for their names
	failures atomic.Uint64
}

// attention says what a change has to do besides storing the value.
type attention uint8

const (
	nobody     attention = iota // nothing
	inlineOnly                  // tell inline observers
	everybody                   // see changeLocked
)

// version is a value and the number of the change that set it.
type version[T any] struct {
	value T
	n     uint64
}

// valueCore is the part of a value that does not depend on its type.
type valueCore struct {
	bus   *Bus   // nil for a private value
	hooks *hooks // never nil
	name  string
	at    []uintptr  // callers of NewValue; guarded by Value.mu
	pool  *exec.Pool // runs buffered observers; guarded by Value.mu until created
}

var noHooks hooks

// getsBeforeCopy is how many calls of Get since a change take the lock before
// one of them makes a copy that all later calls find without it. A copy costs
// about ten times as much as the lock (BenchmarkValueGet).
const getsBeforeCopy = 3

// NewValue returns the value of that name, and creates it with the initial value
// if it does not exist: in process that is version 1. If it exists, initial is
// ignored; another T is ErrTypeMismatch. With a nil bus it makes a private value, whose name may
// be empty.
//
// On a bus over an engine everyone who opens the value on that engine, in whatever
// process, shares it. It stays there when the bus is closed. NewValue waits for the
// engine, at most ten seconds; an engine that has no values is ErrUnsupported.
func NewValue[T any](b *Bus, name string, initial T, opts ...ValueOption) (*Value[T], error) {
	v, err := newValue(b, name, initial, caller(), opts)
	if err != nil {
		return nil, fail("value", name, err)
	}
	return v, nil
}

// ValueOption configures NewValue: WithCodec.
type ValueOption interface{ applyValue(*valueConfig) error }

type valueConfig struct{ codec Codec }

func newValue[T any](b *Bus, name string, initial T, at uintptr, opts []ValueOption) (*Value[T], error) {
	var cfg valueConfig
	for opt := range given(opts) {
		if err := opt.applyValue(&cfg); err != nil {
			return nil, err
		}
	}
	if b == nil {
		if name != "" {
			if err := checkName(name); err != nil {
				return nil, err
			}
		}
		return &Value[T]{core: valueCore{hooks: &noHooks, name: name}, value: initial, version: 1}, nil
	}
	if b.engine != nil {
		v, err := openRemoteValue(b, name, initial, cfg)
		if err != nil {
			return nil, err
		}
		v.declare(at)
		return v, nil
	}
	v, _, err := attach(b, KindValue, name, func() *Value[T] {
		return &Value[T]{
			core:  valueCore{bus: b, hooks: &b.hooks, name: name, pool: b.pool},
			value: initial, version: 1,
		}
	})
	if err != nil {
		return nil, err
	}
	v.declare(at)
	return v, nil
}

// declare records who named the value.
func (v *Value[T]) declare(at uintptr) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.core.at) < maxPlaces && !slices.Contains(v.core.at, at) {
		v.core.at = append(v.core.at, at)
	}
}

// Name returns the name of the value.
func (v *Value[T]) Name() string { return v.core.name }

// Get returns the value. It is one atomic load; only the first few calls after
// a change take a lock for a moment. It never waits for observers, nor for an
// engine: there it returns the newest state that has reached this process.
func (v *Value[T]) Get() T {
	if r := (*version[T])(atomic.LoadPointer(&v.recent)); r != nil {
		return r.value
	}
	return v.read()
}

// read is load for Get. Get is short enough to be inlined with one call in it,
// but not with the body of load.
//
//go:noinline
func (v *Value[T]) read() T {
	value, _ := v.load()
	return value
}

// Load returns the value and its version.
func (v *Value[T]) Load() (T, uint64) {
	if r := (*version[T])(atomic.LoadPointer(&v.recent)); r != nil {
		return r.value, r.n
	}
	return v.load()
}

// Version returns the number of the last change. It grows with each change, even
// one that sets the same value again; in process by one.
func (v *Value[T]) Version() uint64 {
	_, n := v.Load()
	return n
}

func (v *Value[T]) load() (T, uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.misses < getsBeforeCopy {
		v.misses++
	} else if atomic.LoadPointer(&v.recent) == nil {
		atomic.StorePointer(&v.recent, unsafe.Pointer(&version[T]{v.value, v.version}))
	}
	return v.value, v.version
}

// Set changes the value. When it returns, every inline observer has been called;
// buffered ones and watchers follow.
//
// Changes are made one after the other: while the inline observers of one run,
// Set from elsewhere waits for its turn until ctx ends, and then has changed
// nothing. It waits in the same way for room in the buffer of an observer with
// Overflow(Block). If an observer with Overflow(Fail) has a full buffer, Set
// returns ErrFull. If ctx has already ended it changes nothing.
//
// From an observer, of this value or another, Set never waits: if observers are
// being called for a change it makes the next one at once, and they are called
// for it when all have been called for the first. Past 65,536 changes that
// observers have not seen it returns ErrWouldDeadlock.
//
// Once the bus is being closed only handlers and observers may change the
// value; then, and after the close, others get ErrClosed.
//
// Over an engine the change is made there first, so Set also waits for the answer,
// and for a lost connection, until ctx ends. If it is not known then whether the
// change was made, the error wraps ErrUnsure.
func (v *Value[T]) Set(ctx context.Context, value T) error {
	_, err := v.change(ctx, "set", 0, value)
	return err
}

// CompareAndSet changes the value if its version is still n, as returned by
// Load, and reports whether it did. It waits, fails and calls observers as Set
// does.
func (v *Value[T]) CompareAndSet(ctx context.Context, n uint64, value T) (bool, error) {
	if n == 0 {
		n = math.MaxUint64 // no value has either version
	}
	return v.change(ctx, "set", n, value)
}

// Update changes the value to what f returns for it, and returns that. No other
// change comes between: if one did, f is called again, so f must be pure, and
// must not change the value itself. Update waits, fails and calls observers as
// Set does. A panic of f reaches the caller and changes nothing.
func (v *Value[T]) Update(ctx context.Context, f func(T) T) (T, error) {
	var zero T
	if f == nil {
		return zero, v.failed("update", fmt.Errorf("%w: the function is nil", ErrInvalidOption))
	}
	for {
		if ctx.Err() != nil {
			return zero, v.failed("update", context.Cause(ctx))
		}
		old, n := v.Load()
		value := f(old)
		switch ok, err := v.change(ctx, "update", n, value); {
		case err != nil:
			return zero, err
		case ok:
			return value, nil
		}
	}
}

// change sets the value if its version is n or n is 0, and reports whether it
// did. It tells inline observers itself. If there is more to do or to wait for,
// it leaves that to changeLocked.
func (v *Value[T]) change(ctx context.Context, op string, n uint64, value T) (changed bool, err error) {
	if ctx.Err() != nil {
		return false, v.failed(op, context.Cause(ctx))
	}
	v.mu.Lock()
	switch {
	case n != 0 && v.version != n && v.stopped == nil:
		v.mu.Unlock()
		return false, nil
	case v.attention == nobody:
		v.putLocked(value)
		v.mu.Unlock()
		return true, nil
	case v.attention == inlineOnly && v.begun == v.ended.Load() && v.queue.len() == 0:
		// Assign each field: a composite literal would be copied as a whole,
		// which waits until its parts have been stored
		// (BenchmarkValueObservers).
		var r round[T]
		r.v = v
		r.old = v.value
		r.new = value
		r.to = v.inline
		v.begun++
		r.number = v.begun
		v.putLocked(value)
		v.mu.Unlock()
		r.finish()
		return true, nil
	}
	if changed, err = v.changeLocked(ctx, value, n); err != nil {
		return false, v.failed(op, err)
	}
	return changed, nil
}

// putLocked sets the value.
func (v *Value[T]) putLocked(value T) {
	v.value = value
	v.version++
	v.misses = 0
	if atomic.LoadPointer(&v.recent) != nil {
		atomic.StorePointer(&v.recent, nil)
	}
}

// attendLocked recomputes attention.
func (v *Value[T]) attendLocked() {
	switch {
	case len(v.buffered) > 0 || v.parked != nil || v.sealed || v.stopped != nil || v.remote != nil:
		v.attention = everybody
	case len(v.inline) > 0:
		v.attention = inlineOnly
	default:
		v.attention = nobody
	}
}

func (v *Value[T]) failed(op string, err error) error { return fail(op, v.core.name, err) }

// The value as a component of its bus.

func (v *Value[T]) valueType() reflect.Type { return reflect.TypeFor[T]() }

func (v *Value[T]) seal() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sealed = true
	v.attendLocked()
}

func (v *Value[T]) drain(ctx context.Context) { v.settle(ctx) }

func (v *Value[T]) work() (accepted uint64, done bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.version, v.idleLocked()
}

// stop refuses further changes and ends watchers and waiters. It waits until no
// observer is running or ctx ends.
func (v *Value[T]) stop(ctx context.Context, cause error) []Left {
	v.mu.Lock()
	v.stopped = cause
	observers := v.buffered
	waiting := make([]int, len(observers))
	for i, o := range observers {
		waiting[i] = o.waiting.len()
		v.removeLocked(o)
	}
	woken := v.unparkLocked()
	for _, s := range v.setters {
		close(s)
	}
	v.setters = nil
	v.attendLocked()
	v.mu.Unlock()
	woken.wake()
	v.reportDrops(observers)
	if v.remote != nil {
		v.remote.stop(ctx)
	}
	v.settle(ctx) // the observers that are running
	v.mu.Lock()
	defer v.mu.Unlock()
	var left []Left
	for i, o := range observers {
		l := Left{Kind: KindValue, Name: v.core.name, Subscription: o.name, Waiting: waiting[i]}
		if o.busy {
			l.InFlight = 1
		}
		if l.any() {
			left = append(left, l)
		}
	}
	if v.inRoundLocked() {
		left = append(left, Left{Kind: KindValue, Name: v.core.name, Waiting: v.queue.len(), InFlight: 1})
	}
	return left
}

// Stats returns the numbers of the value.
func (v *Value[T]) Stats() ValueStats {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := ValueStats{
		Name:      v.core.name,
		Version:   v.version,
		Observers: len(v.inline) + len(v.buffered),
		Watchers:  v.watchers,
		Dropped:   v.lost,
		Failed:    v.failures.Load(),
	}
	for _, o := range v.buffered {
		s.Waiting += uint64(o.waiting.len())
	}
	return s
}

func (v *Value[T]) addStats(s *Stats) { s.Values = append(s.Values, v.Stats()) }

func (v *Value[T]) addTopology(t *Topology) {
	v.mu.Lock()
	defer v.mu.Unlock()
	node := Node{Kind: KindValue, Name: v.core.name, Type: reflect.TypeFor[T]().String()}
	for _, pc := range v.core.at {
		node.Ends = append(node.Ends, End{Role: "declare", At: place(pc)})
	}
	for _, c := range v.inline {
		node.Ends = append(node.Ends, c.o.end())
	}
	for _, o := range v.buffered {
		node.Ends = append(node.Ends, o.end())
	}
	t.Nodes = append(t.Nodes, node)
}
