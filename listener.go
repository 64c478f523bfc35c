package hark

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"
)

// ListenOption configures a listener of a Notifier.
type ListenOption interface{ applyListen(*listenConfig) error }

type listenConfig struct {
	each  bool
	queue queue
}

type listenOption func(*listenConfig) error

func (f listenOption) applyListen(c *listenConfig) error { return f(c) }

// EachSignal gives the listener each notification as a separate signal, in
// order. Buffer says how many may wait, 1,024 by default. Beyond that the oldest
// waiting signal is merged into the newest, so that none is lost, unless
// Overflow says otherwise.
//
// Overflow(Block) and Buffer(Unbounded) are for functions only: for the channel
// of Listen, nobody can see when there is room again.
func EachSignal() ListenOption {
	return listenOption(func(c *listenConfig) error {
		c.each = true
		return nil
	})
}

// merge is the default policy of listeners: the oldest waiting signal becomes
// part of the newest.
const merge Policy = 0

func parseListen(opts []ListenOption, channel bool) (queue, error) {
	var c listenConfig
	for opt := range given(opts) {
		if err := opt.applyListen(&c); err != nil {
			return queue{}, err
		}
	}
	if !c.each {
		if c.queue != (queue{}) {
			return queue{}, fmt.Errorf("%w: Buffer and Overflow are for listeners with EachSignal; others have one signal that counts", ErrInvalidOption)
		}
		return queue{buffer: 1, policy: merge}, nil
	}
	q, err := c.queue.or(defaultBuffer, merge)
	switch {
	case err != nil:
	case channel && q.policy == Block:
		err = fmt.Errorf("%w: Overflow(Block) for a channel: its reader does not say when there is room; use Register", ErrInvalidOption)
	case channel && q.buffer == Unbounded:
		err = fmt.Errorf("%w: Buffer(Unbounded) for a channel; use Register", ErrInvalidOption)
	}
	return q, err
}

// Listener receives notifications. It is safe for concurrent use.
type Listener struct {
	n     *Notifier
	shard *shard
	group *group
	id    uint32
	place uintptr // who registered it
	queue queue
	c     chan Signal // nil if it has a function
	call  *callee     // nil if it has a channel

	// Guarded by shard.mu.
	at         int // index in group.listeners
	closed     bool
	tally      listenerTally
	unreported int // drops not yet reported to the hooks
}

type listenerTally struct {
	notified, merged, dropped, failed, overgrown uint64
}

// stats returns the statistics of a listener with no waiting signals.
func (t *listenerTally) stats() ListenerStats {
	return ListenerStats{
		Delivered: t.notified - t.merged - t.dropped,
		Merged:    t.merged, Dropped: t.dropped, Failed: t.failed, BufferExceeded: t.overgrown,
	}
}

// Register calls f for signals sent to name, a dot-separated name or a method
// such as "counter.Counter#OnIncrement". Many listeners may share a name. Calls
// of one listener never overlap. Signals that arrive while f runs, or before it
// has begun, are merged into one that counts them, so a slow f holds up nobody
// and misses nothing; EachSignal delivers each on its own.
//
// f runs on a goroutine of the bus, and may notify, wait, register and close
// whatever it likes. Its ctx ends when the listener or the bus is closed; pass
// it on. If f panics, or calls runtime.Goexit, the FailHooks are called and the
// listener stays.
//
// If the name is latched, f is called at once. A listener stays until it is
// closed, and costs no goroutine while it has nothing to do. Once the bus is
// being closed, Register returns ErrClosed.
func (n *Notifier) Register(name string, f func(context.Context, Signal), opts ...ListenOption) (*Listener, error) {
	if f == nil {
		return nil, fail("register", name, fmt.Errorf("%w: the function is nil", ErrInvalidOption))
	}
	a, err := parseName(name)
	if err != nil {
		return nil, fail("register", "", err)
	}
	l, err := n.add(&a, f, caller(), opts)
	if err != nil {
		return nil, fail("register", name, err)
	}
	return l, nil
}

// RegisterFunc is Register under the name that FuncName derives from f: its
// package, type and method. f is a func(context.Context, Signal), a
// func(Signal) or a func(); another type is ErrInvalidOption.
func (n *Notifier) RegisterFunc(f any, opts ...ListenOption) (*Listener, error) {
	owner, member, err := funcName(f)
	if err != nil {
		return nil, fail("register function", "", err)
	}
	name := join(owner, member)
	call, err := signalFunc(f)
	if err != nil {
		return nil, fail("register", name, err)
	}
	a := address{text: name, owner: owner, member: member}
	a.place()
	l, err := n.add(&a, call, caller(), opts)
	if err != nil {
		return nil, fail("register", name, err)
	}
	return l, nil
}

// signalFunc returns f as a function that Register accepts.
func signalFunc(f any) (func(context.Context, Signal), error) {
	v := reflect.ValueOf(f)
	for _, form := range []reflect.Type{
		reflect.TypeFor[func(context.Context, Signal)](), reflect.TypeFor[func(Signal)](), reflect.TypeFor[func()](),
	} {
		if v.CanConvert(form) {
			f = v.Convert(form).Interface() // f may be of a named type
		}
	}
	switch f := f.(type) {
	case func(context.Context, Signal):
		return f, nil
	case func(Signal):
		return func(_ context.Context, s Signal) { f(s) }, nil
	case func():
		return func(context.Context, Signal) { f() }, nil
	}
	return nil, fmt.Errorf("%w: %T: want func(context.Context, hark.Signal), func(hark.Signal) or func()", ErrInvalidOption, f)
}

// Listen returns a listener whose signals come through its channel C, for
// select. The channel holds one signal; signals that arrive while it waits are
// merged into it, so a slow reader holds up nobody and misses nothing. If the
// name is latched, a signal is there from the beginning. Otherwise Listen works
// like Register.
func (n *Notifier) Listen(name string, opts ...ListenOption) (*Listener, error) {
	a, err := parseName(name)
	if err != nil {
		return nil, fail("listen", "", err)
	}
	l, err := n.add(&a, nil, caller(), opts)
	if err != nil {
		return nil, fail("listen", name, err)
	}
	return l, nil
}

func (n *Notifier) add(a *address, f func(context.Context, Signal), at uintptr, opts []ListenOption) (*Listener, error) {
	q, err := parseListen(opts, f == nil)
	if err != nil {
		return nil, err
	}
	s := &n.shards[a.shard]
	l := &Listener{n: n, shard: s, place: at, queue: q}
	if f == nil {
		l.c = make(chan Signal, q.buffer)
	} else {
		l.call = &callee{l: l, f: f}
		l.call.Init(n.pool, l.call)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.state.Load() != open {
		return nil, errBusClosed
	}
	g := n.groupLocked(a)
	l.group, l.at = g, len(g.listeners)
	g.owner.shown = true
	g.listeners = append(g.listeners, l)
	for l.id = rand.Uint32N(idLimit); s.ids[l.id] != nil; {
		l.id = rand.Uint32N(idLimit)
	}
	s.ids[l.id] = l
	if l.strict() {
		s.strict++
	}
	if bare := &g.owner.bare; bare.latched {
		l.offerLocked(Signal{bare.name(), 1})
	}
	if g.method != "" && g.latched {
		l.offerLocked(Signal{g.name(), 1})
	}
	return l, nil
}

// strict reports whether notifications may have to wait for room, or to fail.
func (l *Listener) strict() bool { return l.queue.policy == Block || l.queue.policy == Fail }

// Name returns the name under which the listener is registered.
func (l *Listener) Name() string { return l.group.name() }

// ID returns the name with a suffix that is unique in its notifier: the target
// that reaches this listener alone.
func (l *Listener) ID() string { return formatID(l.group.owner.name, l.group.method, l.id) }

// C returns the channel of a listener made by Listen, the same each time. It is
// closed when the listener or the bus is closed; a signal waiting then can still
// be received. For a listener with a function it is nil.
func (l *Listener) C() <-chan Signal { return l.c }

// Stats returns the numbers of the listener.
func (l *Listener) Stats() ListenerStats {
	l.shard.mu.Lock()
	defer l.shard.mu.Unlock()
	return l.statsLocked()
}

func (l *Listener) statsLocked() ListenerStats {
	st := l.tally.stats()
	st.Name, st.ID = l.Name(), l.ID()
	st.Waiting = uint64(l.waitingLocked())
	st.Delivered -= st.Waiting
	return st
}

func (l *Listener) waitingLocked() int {
	if l.c != nil {
		return len(l.c)
	}
	return l.call.waiting.len()
}

// fullLocked reports whether the buffer has no room.
func (l *Listener) fullLocked() bool {
	return l.queue.buffer != Unbounded && l.waitingLocked() >= l.queue.buffer
}

// Close removes the listener at once: no later notification reaches it, signals
// that wait for its function are dropped and counted as DropClosed, and its
// channel is closed. If the function is running, Close cancels its context and
// waits for it to return for as long as the bus's Grace period; after that it
// returns an error. Called from a handler it does not wait. It is idempotent.
func (l *Listener) Close() error {
	quiet, _ := l.remove(errListenerClosed)
	l.n.reportDrops()
	if quiet == nil || inHandler() {
		return nil
	}
	late := time.NewTimer(l.n.grace)
	defer late.Stop()
	select {
	case <-quiet:
		return nil
	case <-late.C:
		return fail("close", l.ID(), fmt.Errorf("the function has not returned %v after its context ended", l.n.grace))
	}
}

var errListenerClosed = fmt.Errorf("listener %w", ErrClosed)

// remove removes the listener and cancels the context of its function with
// cause. It returns a channel that is closed when the function has returned,
// nil if it is not running, and what was waiting for it.
func (l *Listener) remove(cause error) (quiet <-chan struct{}, left Left) {
	left = Left{Kind: KindNotifier, Name: l.Name(), Subscription: l.ID()}
	s := l.shard
	s.mu.Lock()
	if !l.closed {
		l.closed = true
		g := l.group
		last := len(g.listeners) - 1
		g.listeners[l.at] = g.listeners[last]
		g.listeners[l.at].at = l.at
		g.listeners[last] = nil
		g.listeners = g.listeners[:last]
		delete(s.ids, l.id)
		if l.strict() {
			s.strict--
		}
		l.n.tidyLocked(s, g)
		if l.c != nil {
			close(l.c)
		} else {
			left.Waiting = l.call.emptyLocked()
		}
		s.gone.add(&l.tally)
	}
	var cancel context.CancelCauseFunc
	if l.call != nil {
		cancel = l.call.cancel
		if l.call.working {
			ch := make(chan struct{})
			l.call.quiet = append(l.call.quiet, ch)
			quiet = ch
		}
	}
	s.mu.Unlock()
	if cancel != nil {
		cancel(cause)
	}
	return quiet, left
}

func (t *listenerTally) add(o *listenerTally) {
	t.notified += o.notified
	t.merged += o.merged
	t.dropped += o.dropped
	t.failed += o.failed
	t.overgrown += o.overgrown
}

// offerLocked gives the listener a signal as its policy demands. If the policy
// is to wait or to fail, the caller has checked that there is room.
func (l *Listener) offerLocked(sig Signal) {
	l.tally.notified++
	if l.call != nil {
		l.call.offerLocked(sig)
		return
	}
	for {
		// No one else sends, and readers only make room, so this terminates.
		select {
		case l.c <- sig:
			return
		default:
		}
		if l.queue.policy == DropNewest {
			l.dropLocked(1)
			return
		}
		select {
		case oldest := <-l.c:
			l.yieldLocked(oldest, &sig)
		default:
		}
	}
}

// yieldLocked disposes of the oldest signal, for which there is no room beside
// the newest.
func (l *Listener) yieldLocked(oldest Signal, newest *Signal) {
	if l.queue.policy == merge {
		newest.Count += oldest.Count
		l.tally.merged++
		return
	}
	l.dropLocked(1)
}

func (l *Listener) dropLocked(n int) {
	l.tally.dropped += uint64(n)
	if len(l.n.hooks.drop) == 0 || n == 0 {
		return
	}
	if l.unreported += n; !slices.Contains(l.shard.dropping, l) {
		l.shard.dropping = append(l.shard.dropping, l)
	}
	l.n.dropped.Store(true)
}

func (l *Listener) source() Source {
	return Source{Kind: KindNotifier, Name: l.Name(), Subscription: l.ID()}
}
