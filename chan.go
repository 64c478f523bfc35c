package hark

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
)

// Chan is a channel: each value sent is received by exactly one receiver, in the
// order in which they were sent. Unlike a Go channel it can be unbounded, its
// waits end with a context, it can be closed at any time without a panic, and it
// has a name on its bus. Everyone who names the same channel of a bus shares one
// Chan. It is safe for concurrent use by any number of senders and receivers,
// and linearizable: everything that happens to it happens in one order.
//
// A channel drops nothing and runs no handler, so it calls no hooks. A Chan made
// outside a testing/synctest bubble must not be used inside one.
type Chan[T any] struct {
	name     string
	capacity int
	split    bool // senders and receivers have separate locks

	// The following fields are written with all locks held, and read with any
	// of them. aside means that there is more to consider than senders and
	// receivers: the channel is closed, or In, Out or Take is in use. attention
	// means that a value cannot simply be pushed or popped, either because of
	// aside or because someone waits. With capacity 0 no one reads attention,
	// so it is not maintained.
	aside     bool
	attention bool

	// sendMu guards pushing, recvMu popping. A channel of capacity 0 uses
	// sendMu for everything. Both of them, acquired in this order by lock,
	// guard the other fields from receivers on. These are next to sendMu
	// because a channel of capacity 0 needs no others.
	queue     valueQueue[T]
	sendMu    sync.Mutex
	receivers waiterQueue[T] // if there are any, there is neither a value nor a sender
	senders   waiterQueue[T] // if there are any, the queue is full
	direct    uint64         // values passed from a sender to a receiver without the queue
	spares    spares[*chanWaiter[T]]
	_         [64]byte
	recvMu    sync.Mutex
	_         [64]byte

	closed error         // why nothing can be sent any more
	done   chan struct{} // returned by Done; nil until first requested
	at     []uintptr     // callers of NewChan

	in    chanInlet[T]
	out   chanOutlet[T]
	taken chanHands[T]

	remote *remoteChan[T] // nil in process; otherwise split is false, and nothing else is in use
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

// NewChan returns the channel of that name, and creates it with that capacity if
// it does not exist. With capacity 0, a Send returns when a receiver has the
// value. With capacity n, up to n values wait to be received. Unbounded sets no
// limit but memory. If the channel exists, another capacity is ErrInvalidOption
// and another T ErrTypeMismatch. With a nil bus NewChan makes a private channel,
// whose name may be empty.
//
// On a bus over an engine, everyone who opens the channel on that engine, in
// whatever process, shares it, with the same capacity and durability. The
// channel and its contents stay there when the bus is closed. NewChan waits for
// the engine, at most ten seconds. The option Durability says what the values in
// the channel survive: Relaxed by default, or what the engine has; in process
// there is only Memory. With capacity 0 the channel holds no value, so the
// option changes nothing.
func NewChan[T any](b *Bus, name string, capacity int, opts ...ChanOption) (*Chan[T], error) {
	c, err := openChan[T](b, name, capacity, caller(), opts)
	if err != nil {
		return nil, fail("channel", name, err)
	}
	return c, nil
}

func openChan[T any](b *Bus, name string, capacity int, at uintptr, opts []ChanOption) (*Chan[T], error) {
	var cfg chanConfig
	for opt := range given(opts) {
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
		return nil, fmt.Errorf("%w: capacity %s: the channel exists with %s", ErrInvalidOption, capacityText(capacity), capacityText(c.capacity))
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
// without waiting for another Send, and those that were taken (Take) and are not
// done. Values of waiting senders do not count. Over an engine Len asks the
// engine, waiting a second at most; it counts what it has not learnt by then as
// 0.
func (c *Chan[T]) Len() int {
	if c.remote != nil {
		return c.remote.len()
	}
	c.lock()
	defer c.unlock()
	c.settleLocked()
	return c.queue.len() + c.taken.outside()
}

// Close closes the channel. Senders get ErrClosed, including those that wait;
// receivers get what is left and then ErrClosed. Closing again does nothing. In
// process it returns nil. Over an engine it closes the channel for all
// processes, permanently, and waits at most ten seconds for the engine to
// confirm.
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

// Done returns a Go channel that is closed when this channel is closed, for use
// in a select with In.
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

// asideLocked recomputes aside and attention.
func (c *Chan[T]) asideLocked() {
	c.aside = c.closed != nil || c.in.ch != nil || c.out.ch != nil || len(c.taken.back) > 0 || len(c.taken.waiting) > 0
	c.attendLocked()
}

// attendLocked recomputes attention.
func (c *Chan[T]) attendLocked() {
	if a := c.aside || c.receivers.first != nil || c.senders.first != nil; c.split && a != c.attention {
		c.attention = a
	}
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

// The channel as a component of its bus.

func (c *Chan[T]) valueType() reflect.Type { return reflect.TypeFor[T]() }

// seal and drain do nothing: handlers may need the channel until all of them
// are done.
func (c *Chan[T]) seal() {}

func (c *Chan[T]) drain(context.Context) {}

func (c *Chan[T]) work() (accepted uint64, done bool) { return 0, true }

// stop closes the channel. The values left in it can still be received, over an
// engine by other processes.
func (c *Chan[T]) stop(_ context.Context, cause error) []Left {
	if c.remote != nil {
		return c.remote.stop(cause)
	}
	c.close(cause)
	return nil
}

// linger waits until the values that are left have been received from Out, and
// then ends Out.
func (c *Chan[T]) linger(ctx context.Context) []Left {
	if c.remote != nil {
		return nil // the engine keeps the values
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
