package hark

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"sync"

	"github.com/harkbus/hark/driver"
)

// Chan is a channel: each value sent is received by exactly one receiver, in
// the order in which they were sent. Beside what a Go channel does it can be
// unbounded, waits no longer than a context, can be closed at any time without
// a panic, and has a name on its bus. Everyone who names the same channel of a
// bus shares one Chan. It is safe for concurrent use by any number of senders
// and receivers; all that happens to it happens in one order (it is
// linearizable).
//
// A channel drops nothing and runs no handler, so it calls no hooks. A Chan
// made outside of a testing/synctest bubble must not be used inside of one.
type Chan[T any] struct {
	name     string
	capacity int
	split    bool // senders and receivers have a lock each

	// What is written with all locks held and read with any. aside says that
	// there is more to look at than senders and receivers: the channel is closed,
	// or In, Out or Take is in use. attention says that a value cannot simply be
	// pushed or popped, because of that or because somebody waits; it is not kept
	// with capacity 0, where nobody asks.
	aside     bool
	attention bool

	// sendMu guards pushing, recvMu popping; a channel of capacity 0 uses
	// sendMu for everything. Both, taken in that order by lock, guard the other
	// fields from receivers on, which stand beside sendMu because a channel of
	// capacity 0 needs no others.
	queue     valueQueue[T]
	sendMu    sync.Mutex
	receivers waiterQueue[T] // if there are any, there is neither a value nor a sender
	senders   waiterQueue[T] // if there are any, the queue is full
	direct    uint64         // values that went from a sender to a receiver without the queue
	spares    spares[*chanWaiter[T]]
	_         [64]byte
	recvMu    sync.Mutex
	_         [64]byte

	closed error         // why nothing can be sent any more
	done   chan struct{} // what Done returns; nil until somebody asks
	at     []uintptr     // callers of NewChan

	in    chanInlet[T]
	out   chanOutlet[T]
	taken chanHands[T]

	remote *remoteChan[T] // nil in process; then split is false, and nothing else is in use
}

// ChanOption configures NewChan: a Durability, or WithCodec.
type ChanOption interface{ applyChan(*chanConfig) error }

type chanConfig struct {
	durability Durability
	codec      Codec
}

func (d Durability) applyChan(c *chanConfig) error {
	if d < Strict || d > Memory {
		return fmt.Errorf("%w: durability %v", ErrInvalidOption, d)
	}
	c.durability = d
	return nil
}

// NewChan returns the channel of that name, made with that capacity if need
// be. With capacity 0 a Send returns when a receiver has the value; with n up
// to n values wait to be received; Unbounded sets no limit but memory. If the
// channel is there already, another capacity is ErrInvalidOption and another T
// ErrTypeMismatch. With a nil bus it makes a private channel, whose name may
// be empty.
//
// On a bus over an engine everybody shares the channel who opens it on that
// engine, in whatever process, with the same capacity and durability; it stays
// there, with what is in it, when the bus is closed. It waits for the engine, at
// most ten seconds. The option Durability says what the values in it survive:
// Relaxed by default, or what the engine has; in process there is only Memory.
// With capacity 0 no value is in it, so there it changes nothing.
func NewChan[T any](b *Bus, name string, capacity int, opts ...ChanOption) (*Chan[T], error) {
	c, err := openChan[T](b, name, capacity, caller(), opts)
	if err != nil {
		return nil, fail("channel", name, err)
	}
	return c, nil
}

func openChan[T any](b *Bus, name string, capacity int, at uintptr, opts []ChanOption) (*Chan[T], error) {
	var cfg chanConfig
	for _, opt := range opts {
		if err := opt.applyChan(&cfg); err != nil {
			return nil, err
		}
	}
	remote := b != nil && b.engine != nil
	if d := cfg.durability; !remote && d != 0 && d != Memory {
		return nil, fmt.Errorf("%w: in-process engine: durability %v", ErrUnsupported, d)
	}
	if capacity < 0 && capacity != Unbounded {
		return nil, fmt.Errorf("%w: capacity %d: want 0, more, or Unbounded", ErrInvalidOption, capacity)
	}
	if b == nil {
		if name != "" {
			if err := checkName(name); err != nil {
				return nil, err
			}
		}
		return makeChan[T](name, capacity), nil
	}
	var c *Chan[T]
	var existed bool
	var err error
	if remote {
		c, existed, err = openRemoteChan[T](b, name, capacity, cfg)
	} else {
		c, existed, err = attach(b, KindChan, name, func() *Chan[T] { return makeChan[T](name, capacity) })
	}
	if err != nil {
		return nil, err
	}
	if c.capacity != capacity {
		return nil, fmt.Errorf("%w: capacity %s: the channel is there with %s", ErrInvalidOption, capacityText(capacity), capacityText(c.capacity))
	}
	if r := c.remote; existed && r != nil {
		if err := r.agrees(cfg); err != nil {
			return nil, err
		}
	}
	c.lock()
	defer c.unlock()
	if len(c.at) < maxPlaces && !slices.Contains(c.at, at) {
		c.at = append(c.at, at)
	}
	return c, nil
}

func makeChan[T any](name string, capacity int) *Chan[T] {
	c := &Chan[T]{name: name, capacity: capacity, split: capacity != 0}
	c.queue.init(capacity)
	return c
}

func capacityText(n int) string {
	if n == Unbounded {
		return "Unbounded"
	}
	return fmt.Sprint(n)
}

// Name returns the name of the channel.
func (c *Chan[T]) Name() string { return c.name }

// Cap returns the capacity: 0, a number or Unbounded.
func (c *Chan[T]) Cap() int { return c.capacity }

// Len returns how many values are in the channel: those that can be received
// without waiting for a Send to begin, and those that were taken (Take) and are
// not done with. Values of senders that wait do not count. Over an engine it is
// asked, for a second at most; what it does not know by then is 0.
func (c *Chan[T]) Len() int {
	if c.remote != nil {
		return c.remote.len()
	}
	c.lock()
	defer c.unlock()
	c.settleLocked()
	return c.queue.len() + c.taken.outside()
}

// Send sends v. It waits until there is room, or with capacity 0 until a
// receiver has the value, at most until ctx ends: then nothing has been sent,
// and it returns the cause. A context that has already ended sends nothing. On
// a closed channel, and when it is closed while Send waits, it returns
// ErrClosed and nothing has been sent. Senders that wait are served in the
// order in which they came; over an engine that is not promised.
//
// Over an engine Send waits for a lost connection too, and sends a value once
// however often it has to try. When ctx ends while it is not known whether the
// value was sent, it waits for the answer, a second at most; an error that wraps
// ErrUnsure says that it is still not known.
func (c *Chan[T]) Send(ctx context.Context, v T) error {
	if ctx.Err() != nil {
		return fail("send", c.name, context.Cause(ctx))
	}
	if c.split {
		c.sendMu.Lock()
		if !c.attention && c.queue.room() {
			c.queue.push(v)
			c.sendMu.Unlock()
			return nil
		}
		c.sendMu.Unlock()
	}
	return c.send(ctx, v)
}

// TrySend sends v if that is possible without waiting, and reports whether it
// did. It returns ErrClosed if the channel is closed. ctx bounds the way to
// the engine, not a wait for room; if it has ended nothing is sent and its
// cause is returned.
func (c *Chan[T]) TrySend(ctx context.Context, v T) (bool, error) {
	if ctx.Err() != nil {
		return false, fail("send", c.name, context.Cause(ctx))
	}
	if c.split {
		c.sendMu.Lock()
		if !c.attention && c.queue.room() {
			c.queue.push(v)
			c.sendMu.Unlock()
			return true, nil
		}
		c.sendMu.Unlock()
	}
	if c.remote != nil {
		return c.remote.send(ctx, v, true)
	}
	c.lock()
	sent, served := c.sendLocked(v, true)
	err := c.closed
	c.unlock()
	served.call()
	if !sent && err != nil {
		return false, fail("send", c.name, err)
	}
	return sent, nil
}

// Receive returns the next value. It waits for one at most until ctx ends:
// then it has received nothing, and returns the cause. A context that has
// already ended receives nothing. Once the channel is closed and what was in
// it has been received, it returns ErrClosed. Receivers that wait are served
// in the order in which they came; over an engine that is not promised.
//
// Over an engine a value that Receive returns is nobody else's any more. It is
// lost if the process ends just then: Take does without that. So may be the
// value of a Receive whose context ended while the connection was lost, if the
// error wraps ErrUnsure. A value that cannot be decoded is an error, lost too,
// and told to the DropHooks.
func (c *Chan[T]) Receive(ctx context.Context) (T, error) {
	if ctx.Err() != nil {
		var zero T
		return zero, fail("receive", c.name, context.Cause(ctx))
	}
	if c.split {
		c.recvMu.Lock()
		if !c.attention && c.queue.any() {
			v := c.queue.pop()
			c.recvMu.Unlock()
			return v, nil
		}
		c.recvMu.Unlock()
	}
	return c.receive(ctx)
}

// TryReceive returns the next value if there is one, and whether there was. It
// returns ErrClosed if there will never be one again. ctx bounds the way to
// the engine, not a wait for a value; if it has ended nothing is received and
// its cause is returned.
func (c *Chan[T]) TryReceive(ctx context.Context) (v T, ok bool, err error) {
	if ctx.Err() != nil {
		return v, false, fail("receive", c.name, context.Cause(ctx))
	}
	if c.split {
		c.recvMu.Lock()
		if !c.attention && c.queue.any() {
			v = c.queue.pop()
			c.recvMu.Unlock()
			return v, true, nil
		}
		c.recvMu.Unlock()
	}
	if c.remote != nil {
		if v, err = c.remote.receive(ctx, true); errors.Is(err, driver.ErrAgain) {
			return v, false, nil
		} else if err != nil {
			return v, false, fail("receive", c.name, err)
		}
		return v, true, nil
	}
	c.lock()
	v, ok, served := c.receiveLocked()
	err = c.endedLocked()
	c.unlock()
	served.call()
	if !ok && err != nil {
		return v, false, fail("receive", c.name, err)
	}
	return v, ok, nil
}

// All returns an iterator over the values, received one by one as the loop
// asks for them: a loop that ends early takes no value that its body was not
// given. It ends when the channel is closed and empty, or when ctx ends; after
// the loop ctx.Err() tells which. It may be used more than once, and by
// several loops, who share the values.
func (c *Chan[T]) All(ctx context.Context) iter.Seq[T] {
	return func(yield func(T) bool) {
		for {
			v, err := c.Receive(ctx)
			if err != nil || !yield(v) {
				return
			}
		}
	}
}

// Close closes the channel. Senders, also those who wait, get ErrClosed;
// receivers get what is left and then ErrClosed. Closing again does nothing.
// In process it returns nil. Over an engine it closes the channel for all
// processes, for good, and waits ten seconds at most for the engine to say so.
func (c *Chan[T]) Close() error {
	if c.remote != nil {
		if err := c.remote.close(); err != nil {
			return fail("close", c.name, err)
		}
		return nil
	}
	c.close(ErrClosed)
	return nil
}

// Done returns a Go channel that is closed when this channel is closed, for a
// select beside In.
func (c *Chan[T]) Done() <-chan struct{} {
	if c.remote != nil {
		return c.remote.chann().Closed()
	}
	c.lock()
	defer c.unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.closed != nil {
			close(c.done)
		}
	}
	return c.done
}

func (c *Chan[T]) lock() {
	c.sendMu.Lock()
	if c.split {
		c.recvMu.Lock()
	}
}

func (c *Chan[T]) unlock() {
	if c.split {
		c.recvMu.Unlock()
	}
	c.sendMu.Unlock()
}

// asideLocked sets aside, and attention, from what is there.
func (c *Chan[T]) asideLocked() {
	c.aside = c.closed != nil || c.in.ch != nil || c.out.ch != nil || len(c.taken.back) > 0 || len(c.taken.waiting) > 0
	c.attendLocked()
}

// attendLocked sets attention from what is there.
func (c *Chan[T]) attendLocked() {
	if a := c.aside || c.receivers.first != nil || c.senders.first != nil; c.split && a != c.attention {
		c.attention = a
	}
}

// send is Send where the way is not clear.
func (c *Chan[T]) send(ctx context.Context, v T) error {
	if c.remote != nil {
		_, err := c.remote.send(ctx, v, false)
		return err
	}
	c.lock()
	sent, served := c.sendLocked(v, false)
	if sent {
		c.unlock()
		served.call()
		return nil
	}
	if err := c.closed; err != nil {
		c.unlock()
		return fail("send", c.name, err)
	}
	w := c.waiterLocked()
	w.value = v
	c.senders.push(w)
	c.attendLocked()
	c.noticeLocked()
	c.unlock()
	if !c.await(ctx, w) {
		return fail("send", c.name, context.Cause(ctx))
	}
	closed := w.closed
	w.release()
	if closed {
		return fail("send", c.name, c.why())
	}
	return nil
}

// sendLocked sends v if it can be done without waiting. The caller calls
// served when it has released the lock. Unless sure, it may miss room that a
// receiver at Out has just made.
func (c *Chan[T]) sendLocked(v T, sure bool) (sent bool, served *chanWaiter[T]) {
	if c.in.busy {
		c.settleInLocked()
	}
	if c.closed != nil {
		return false, nil
	}
	if c.receivers.first != nil && c.placeLocked() {
		w := c.receivers.pop()
		w.value = v
		c.direct++
		c.attendLocked()
		return true, c.serveLocked(w)
	}
	if c.out.busy && sure && !c.queue.room() {
		c.settleOutLocked()
	}
	if c.senders.first != nil {
		return false, nil
	}
	if c.offerLocked(v) {
		c.direct++
		return true, nil
	}
	if !c.queue.room() {
		return false, nil
	}
	c.queue.push(v)
	c.noticeLocked()
	return true, nil
}

// receive is Receive where the way is not clear.
func (c *Chan[T]) receive(ctx context.Context) (T, error) {
	if c.remote != nil {
		v, err := c.remote.receive(ctx, false)
		if err != nil {
			return v, fail("receive", c.name, err)
		}
		return v, nil
	}
	c.lock()
	v, ok, served := c.receiveLocked()
	if ok {
		c.unlock()
		served.call()
		return v, nil
	}
	if err := c.endedLocked(); err != nil {
		c.unlock()
		return v, fail("receive", c.name, err)
	}
	w := c.waiterLocked()
	c.receivers.push(w)
	c.attendLocked()
	c.noticeLocked()
	c.unlock()
	if !c.await(ctx, w) {
		return v, fail("receive", c.name, context.Cause(ctx))
	}
	v, closed := w.value, w.closed
	w.release()
	if closed {
		return v, fail("receive", c.name, c.why())
	}
	return v, nil
}

// receiveLocked receives a value if it can be done without waiting. The caller
// calls served when it has released the lock.
func (c *Chan[T]) receiveLocked() (v T, ok bool, served *chanWaiter[T]) {
	if c.out.busy {
		c.settleOutLocked()
	}
	if len(c.taken.back) > 0 {
		v = c.backLocked()
		served = c.refillLocked()
		c.asideLocked()
		c.noticeLocked()
		return v, true, served
	}
	if !c.queue.any() && c.in.busy {
		c.settleInLocked()
	}
	if c.queue.any() {
		v = c.queue.pop()
		served = c.refillLocked()
		c.noticeLocked()
		return v, true, served
	}
	if c.capacity == 0 && c.senders.first != nil {
		w := c.senders.pop()
		v = w.value
		c.direct++
		c.attendLocked()
		c.noticeLocked()
		return v, true, c.serveLocked(w)
	}
	v, ok = c.fetchLocked()
	return v, ok, nil
}

// refillLocked moves the value of the sender that has been waiting longest
// into the queue, if there is room, and returns that sender.
func (c *Chan[T]) refillLocked() *chanWaiter[T] {
	if c.senders.first == nil || !c.queue.room() {
		return nil
	}
	w := c.senders.pop()
	c.queue.push(w.value)
	c.attendLocked()
	return c.serveLocked(w)
}

func (c *Chan[T]) why() error {
	c.lock()
	defer c.unlock()
	return c.closed
}

func (c *Chan[T]) close(why error) {
	c.lock()
	c.settleLocked()
	if c.closed == nil {
		c.closeLocked(why)
	}
	c.unlock()
	c.in.pump.Wait()
}

// closeLocked is called with both pumps settled.
func (c *Chan[T]) closeLocked(why error) {
	c.closed = why
	c.dismissLocked(&c.senders)
	for len(c.taken.offers) > 0 {
		t := c.taken.offers[0]
		c.letGoLocked(t)
		t.sender.closed = true
		c.serveLocked(t.sender).call()
	}
	if c.endedLocked() != nil {
		c.dismissLocked(&c.receivers)
	}
	c.asideLocked()
	if c.done != nil {
		close(c.done)
	}
	c.noticeLocked()
}

// The face of a channel on its bus.

func (c *Chan[T]) valueType() reflect.Type { return reflect.TypeFor[T]() }

// seal and drain do nothing: handlers may need the channel until all of them
// are done.
func (c *Chan[T]) seal() {}

func (c *Chan[T]) drain(context.Context) {}

func (c *Chan[T]) work() (accepted uint64, done bool) { return 0, true }

// stop closes the channel. What is left in it can still be received, over an
// engine by others.
func (c *Chan[T]) stop(_ context.Context, cause error) []Left {
	if c.remote != nil {
		return c.remote.stop(cause)
	}
	c.close(cause)
	return nil
}

// linger waits until those at Out have received what is left, and ends Out.
func (c *Chan[T]) linger(ctx context.Context) []Left {
	if c.remote != nil {
		return nil // the engine keeps it
	}
	if waiting := c.endOut(ctx); waiting > 0 {
		return []Left{{Kind: KindChan, Name: c.name, Waiting: waiting}}
	}
	return nil
}

// Stats returns the numbers of the channel.
func (c *Chan[T]) Stats() ChanStats {
	if c.remote != nil {
		return c.remote.stats()
	}
	c.lock()
	defer c.unlock()
	c.settleLocked()
	return ChanStats{
		Name:      c.name,
		Len:       c.queue.len() + c.taken.outside(),
		Cap:       c.capacity,
		Sent:      c.queue.tail.Load() + c.direct,
		Received:  c.queue.head.Load() + c.direct - uint64(c.taken.outside()),
		Senders:   c.senders.len + len(c.taken.offers),
		Receivers: c.receivers.len + len(c.taken.waiting),
		Closed:    c.closed != nil,
	}
}

func (c *Chan[T]) addStats(s *Stats) { s.Chans = append(s.Chans, c.Stats()) }

func (c *Chan[T]) addTopology(t *Topology) {
	c.lock()
	defer c.unlock()
	node := Node{Kind: KindChan, Name: c.name, Type: reflect.TypeFor[T]().String()}
	for _, pc := range c.at {
		node.Ends = append(node.Ends, End{Role: "declare", At: place(pc)})
	}
	t.Nodes = append(t.Nodes, node)
}
