package hark

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark/internal/exec"
	"github.com/harkbus/hark/internal/names"
)

// Kind says what a name on a bus stands for. Each kind has its own name space: a
// topic and a value may both be called "jobs".
type Kind string

// The kinds of things that live on a bus.
const (
	KindTopic    Kind = "topic"
	KindRequest  Kind = "request"
	KindPattern  Kind = "pattern"
	KindChan     Kind = "channel"
	KindNotifier Kind = "notifier"
	KindValue    Kind = "value"
)

// Bus connects the parts of a program: topics, channels, values and listeners
// are found on it by name. A Bus is safe for concurrent use. Make one with New.
type Bus struct {
	pool   *exec.Pool
	engine *engine // nil in process
	codec  Codec   // used instead of JSON; nil for JSON
	hooks  hooks
	slow   time.Duration // threshold for OnSlow
	grace  time.Duration // how long Close waits for cancelled handlers

	hands    sync.Map // by reflect.Type: a *sync.Pool; see handsOf
	patterns patterns
	waits    waits
	serial   atomic.Uint64 // last serial number of a subscription, for names
	forced   bool          // Close stops the components before all work is done; Close sets it and the components read it

	mu         sync.Mutex // guards the fields below
	components map[componentKey]component
	wrap       []Middleware
	closing    bool          // nothing new from outside is accepted
	stopped    bool          // nothing new at all is accepted
	done       chan struct{} // closed when Close has finished
	err        error         // what Close returned; set before done is closed
}

type componentKey struct {
	kind Kind
	name string
}

// component is what a bus knows of a topic, pattern, channel, value or notifier on
// it. The bus calls its methods without holding a lock.
type component interface {
	// valueType is the Go type that the component carries; nil if it carries none.
	valueType() reflect.Type
	// seal permanently refuses new work from outside, while what handlers
	// publish is still accepted. It does not block.
	seal()
	// drain waits until all work accepted so far is done or ctx ends.
	drain(ctx context.Context)
	// work returns how much work has been accepted since the start, and whether
	// all of it is done. Work that handlers pass on counts where it arrives.
	work() (accepted uint64, done bool)
	// stop ends what is left: it cancels the contexts of handlers with cause
	// and starts nothing more. It waits for running handlers until ctx ends,
	// and reports what was left.
	stop(ctx context.Context, cause error) []Left
	// addStats and addTopology append what the component has to report.
	addStats(*Stats)
	addTopology(*Topology)
}

// BusOption configures a bus: New, Open and Over.
type BusOption interface{ applyBus(*Bus) }

type busOption func(*Bus)

func (f busOption) applyBus(b *Bus) { f(b) }

// WithHooks adds hooks: each value must implement at least one of the hook
// interfaces, such as DropHook. New panics on a value that does not, because it
// would never be called.
func WithHooks(hooks ...any) BusOption {
	return busOption(func(b *Bus) {
		for _, h := range hooks {
			if !b.hooks.add(h) {
				panic(fmt.Sprintf("hark: WithHooks: %T implements none of the hook interfaces", h))
			}
		}
	})
}

const defaultGrace = 5 * time.Second

// SlowAfter sets how long a handler may run before the SlowHooks are called. The
// default is one second. Without a SlowHook it has no effect.
func SlowAfter(d time.Duration) BusOption {
	return busOption(func(b *Bus) { b.slow = d })
}

// Grace sets how long Close and Drain wait for handlers after cancelling their
// contexts. The default is five seconds.
func Grace(d time.Duration) BusOption {
	return busOption(func(b *Bus) { b.grace = d })
}

// New returns a bus that lives in this process. It starts no goroutine until
// there is something to deliver.
func New(opts ...BusOption) *Bus {
	b := &Bus{
		pool:       exec.NewPool(),
		slow:       time.Second,
		grace:      defaultGrace,
		components: map[componentKey]component{},
		done:       make(chan struct{}),
	}
	for opt := range given(opts) {
		opt.applyBus(b)
	}
	return b
}

// attach returns the component with the given kind and name. If there is none, it
// makes one. If the existing component has a Go type other than F, the error is
// ErrTypeMismatch. mk is called with the bus locked and must not call the bus.
func attach[F component](b *Bus, kind Kind, name string, mk func() F) (f F, existed bool, err error) {
	return attachUntil(b, func() bool { return b.closing }, kind, name, mk)
}

// attachUntil is attach, except that it refuses once over returns true. over is
// called with the bus locked.
func attachUntil[F component](b *Bus, over func() bool, kind Kind, name string, mk func() F) (f F, existed bool, err error) {
	if err := checkName(name); err != nil {
		return f, false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if over() {
		return f, false, fmt.Errorf("bus %w", ErrClosed)
	}
	if f, existed, err = componentLocked[F](b, kind, name); !existed {
		f = mk()
		b.components[componentKey{kind, name}] = f
	}
	return f, existed, err
}

// attached is attach that makes nothing: if there is no component with the name, it
// returns the zero F.
func attached[F component](b *Bus, kind Kind, name string) (f F, err error) {
	if err := checkName(name); err != nil {
		return f, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return f, fmt.Errorf("bus %w", ErrClosed)
	}
	f, _, err = componentLocked[F](b, kind, name)
	return f, err
}

// componentLocked returns the component with the given kind and name, if there is one.
func componentLocked[F component](b *Bus, kind Kind, name string) (f F, exists bool, err error) {
	old, exists := b.components[componentKey{kind, name}]
	if !exists {
		return f, false, nil
	}
	f, ok := old.(F)
	if !ok {
		var want F
		return f, true, fmt.Errorf("%w: it carries %v, not %v", ErrTypeMismatch, old.valueType(), want.valueType())
	}
	return f, true, nil
}

// detach removes a component that could not be opened after all.
func (b *Bus) detach(kind Kind, name string, f component) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if key := (componentKey{kind, name}); b.components[key] == f {
		delete(b.components, key)
	}
}

func (b *Bus) has(kind Kind, name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.components[componentKey{kind, name}]
	return ok
}

// checkName wraps the errors of package names in ErrInvalidName.
func checkName(name string) error { return nameError(names.Check(name)) }

func nameError(err error) error {
	var fault *names.Error
	if errors.As(err, &fault) {
		return fmt.Errorf("%w %q: %s at byte %d", ErrInvalidName, fault.Name, fault.Reason, fault.Offset)
	}
	return err
}

// snapshot returns the components except those of patterns, ordered by kind and
// name.
func (b *Bus) snapshot() []component {
	b.mu.Lock()
	defer b.mu.Unlock()
	keys := make([]componentKey, 0, len(b.components))
	for key := range b.components {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(x, y componentKey) int {
		return cmp.Or(cmp.Compare(x.kind, y.kind), cmp.Compare(x.name, y.name))
	})
	components := make([]component, len(keys))
	for i, key := range keys {
		components[i] = b.components[key]
	}
	return components
}

// Close shuts the bus down in stages. New work from outside is refused with
// ErrClosed; handlers may still publish what follows from the messages they
// were given. Close waits until everything accepted has been handled. When ctx
// ends first, it cancels the contexts of the handlers, gives them the grace
// period to return, and reports what was left in a *CloseError. It returns
// once nothing of the bus runs any more, or the grace period is over.
//
// Close is idempotent: later calls wait for the first and return its result.
// Called from a handler, which Close would have to wait for, it only returns
// ErrWouldDeadlock.
func (b *Bus) Close(ctx context.Context) error {
	if handlerOf(ctx) != nil || inHandler() {
		return fail("close", "", fmt.Errorf("%w: a handler called it, and would wait for itself", ErrWouldDeadlock))
	}
	b.mu.Lock()
	if b.closing {
		b.mu.Unlock()
		select {
		case <-b.done: // whether or not ctx has ended
			return b.err
		default:
		}
		select {
		case <-b.done:
			return b.err
		case <-ctx.Done():
			return fail("close", "", context.Cause(ctx))
		}
	}
	b.closing = true
	b.mu.Unlock()
	b.err = b.shutDown(ctx)
	close(b.done)
	return b.err
}

func (b *Bus) shutDown(ctx context.Context) error {
	if b.engine != nil {
		b.engine.retireAll(ctx)
	}
	for _, f := range b.everything() {
		f.seal()
	}
	b.forced = !b.settle(ctx)
	cause := context.Cause(ctx)
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
	hard, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.grace)
	defer cancel()
	why := fmt.Errorf("bus %w", ErrClosed)
	components := b.everything()
	for _, f := range components { // all at once, so that none uses up the grace of the others
		if f, ok := f.(canceller); ok {
			f.cancel(why)
		}
	}
	var left []Left
	for _, f := range components {
		left = append(left, f.stop(hard, why)...)
	}
	if hard.Err() == nil { // all handlers have returned
		b.pool.Wait()
	}
	for _, f := range components {
		if f, ok := f.(lingerer); ok {
			left = append(left, f.linger(hard)...)
		}
	}
	var failed error
	if b.engine != nil {
		soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), statsTimeout)
		b.engine.abandonCalls(soon, b)
		cancel()
		failed = b.engine.conn.Close(hard)
	}
	if len(left) > 0 {
		return &CloseError{Left: left, Cause: cmp.Or(cause, failed, errors.New("work was left"))}
	}
	if failed != nil {
		return fail("close", "", failed)
	}
	return nil
}

// canceller is a component that can cancel the contexts of its handlers before stop
// waits for them.
type canceller interface{ cancel(cause error) }

// lingerer is a component that still has something to be fetched after stop. linger
// waits until it has been fetched or ctx ends, and reports what was left.
type lingerer interface {
	linger(ctx context.Context) []Left
}

// everything returns all components, those of pattern subscriptions last.
func (b *Bus) everything() []component {
	components := b.snapshot()
	b.patterns.mu.Lock()
	defer b.patterns.mu.Unlock()
	for _, p := range b.patterns.all {
		components = append(components, p)
	}
	for _, p := range b.patterns.remote {
		components = append(components, p)
	}
	return components
}

// Settle waits until everything that the bus has accepted is done, including
// what handlers publish, notify and set meanwhile: no handler, observer or
// listener function is running, and nothing waits for one or for another
// attempt. It does not wait for messages that are not due, nor for values that
// wait in a channel to be received. Over an engine, it covers what this bus has
// published to its own subscriptions and what has reached them.
//
// While others go on publishing, or a paused subscription has messages waiting,
// it waits until ctx ends and returns its cause. In a handler it returns
// ErrWouldDeadlock. It is meant for tests (package harktest) and for programs
// that work in rounds.
func (b *Bus) Settle(ctx context.Context) error {
	if handlerOf(ctx) != nil || inHandler() {
		return fail("settle", "", fmt.Errorf("%w: a handler called it, and would wait for itself", ErrWouldDeadlock))
	}
	if !b.settle(ctx) {
		return fail("settle", "", context.Cause(ctx))
	}
	return nil
}

// settle waits until nothing is left to do, or ctx ends, and then returns
// false.
func (b *Bus) settle(ctx context.Context) bool {
	// What one component drains may give another one something to do, or create a
	// dead-letter topic.
	for ctx.Err() == nil {
		components := b.everything()
		if settled(components) {
			return true
		}
		if b.engine != nil {
			b.engine.dirty.Store(false) // what comes back after this needs another round
		}
		for _, f := range components {
			f.drain(ctx)
		}
	}
	return false
}

// settled reports whether nothing is left to do. It asks the components one after
// the other, while handlers may pass work from one to another, so all must have
// been done in a pass during which none accepted anything.
func settled(components []component) bool {
	var before, after uint64
	for _, f := range components {
		accepted, _ := f.work()
		before += accepted
	}
	all := true
	for _, f := range components {
		_, done := f.work()
		all = all && done
	}
	for _, f := range components {
		accepted, _ := f.work()
		after += accepted
	}
	return all && before == after
}
