package memdriver

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/harkbus/hark/driver"
)

// channel is a channel of the engine.
type channel struct {
	config driver.ChanConfig

	mu       sync.Mutex // guards the fields below
	last     uint64     // number of the last value sent
	values   []*chanValue
	inFlight map[*chanValue]*chanHandle
	handles  map[*chanHandle]struct{}
	closed   bool
	changed  chan struct{} // closed and replaced at each change
}

// chanValue is a value in the channel. With capacity 0 its sender is waiting.
type chanValue struct {
	nth      uint64
	data     []byte
	received bool
}

// chanHandle is a channel as one connection sees it.
type chanHandle struct {
	*channel

	over chan struct{} // returned by Closed

	// The channel's mu guards the fields below.
	ended              bool // over is closed
	gone               bool // the connection is closed
	senders, receivers int  // number of waiting senders and receivers
}

// OpenChan implements driver.Chans.
func (c *conn) OpenChan(ctx context.Context, config driver.ChanConfig) (driver.Chan, error) {
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	if config.Capacity == 0 {
		config.Durability = driver.DurableMemory
	}
	if config.Durability != driver.DurableMemory {
		return nil, fmt.Errorf("%w: engine memory: nothing outlives the process", driver.ErrUnsupported)
	}
	e := c.engine
	e.mu.Lock()
	ch := e.chans[config.Name]
	if ch == nil {
		ch = &channel{
			config: config, inFlight: map[*chanValue]*chanHandle{}, handles: map[*chanHandle]struct{}{}, changed: make(chan struct{}),
		}
		e.chans[config.Name] = ch
	}
	e.mu.Unlock()
	if ch.config.Capacity != config.Capacity {
		return nil, fmt.Errorf("%w: the capacity is %d, not %d", driver.ErrConflict, ch.config.Capacity, config.Capacity)
	}
	h := &chanHandle{channel: ch, over: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	c.chans = append(c.chans, h)
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.handles[h] = struct{}{}
	if ch.closed {
		h.finishLocked()
	}
	return h, nil
}

func (h *chanHandle) finishLocked() {
	if !h.ended {
		h.ended = true
		close(h.over)
	}
}

// leave ends the handle with its connection. Values that it has in flight go to
// others.
func (h *chanHandle) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
	for v, holder := range h.inFlight {
		if holder == h {
			h.putBackLocked(v)
		}
	}
	delete(h.handles, h)
	h.finishLocked()
	h.changeLocked()
}

func (ch *channel) changeLocked() {
	close(ch.changed)
	ch.changed = make(chan struct{})
}

// putBackLocked returns a value in flight to its old place, where it can be
// received again.
func (ch *channel) putBackLocked(v *chanValue) {
	delete(ch.inFlight, v)
	i, _ := slices.BinarySearchFunc(ch.values, v, func(a, b *chanValue) int { return int(int64(a.nth - b.nth)) })
	ch.values = slices.Insert(ch.values, i, v)
	ch.changeLocked()
}

// removeLocked removes a value that is still there, whoever has it in flight.
func (ch *channel) removeLocked(v *chanValue) bool {
	if i := slices.Index(ch.values, v); i >= 0 {
		ch.values = slices.Delete(ch.values, i, i+1)
	} else if _, ok := ch.inFlight[v]; !ok {
		return false
	}
	delete(ch.inFlight, v)
	ch.changeLocked()
	return true
}

func (ch *channel) putLocked(data []byte) *chanValue {
	ch.last++
	v := &chanValue{nth: ch.last, data: slices.Clone(data)}
	ch.values = append(ch.values, v)
	ch.changeLocked()
	return v
}

// awaitLocked waits for a change. It unlocks mu while it waits. count is the
// counter of those who wait.
func (h *chanHandle) awaitLocked(ctx context.Context, count *int) error {
	*count++
	if count == &h.receivers && h.config.Capacity == 0 {
		h.changeLocked() // a sender can send to this receiver
	}
	changed := h.changed
	h.mu.Unlock()
	var err error
	select {
	case <-changed:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	h.mu.Lock()
	*count--
	return err
}

// refusesLocked returns the reason why nothing can be sent, or nil.
func (h *chanHandle) refusesLocked() error {
	switch {
	case h.gone:
		return errClosed
	case h.closed:
		return fmt.Errorf("channel %w", driver.ErrClosed)
	}
	return nil
}

// Send implements driver.Chan.
func (h *chanHandle) Send(ctx context.Context, data []byte, try bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.config.Capacity == 0 {
		return h.meetLocked(ctx, data, try)
	}
	for {
		if err := h.refusesLocked(); err != nil {
			return err
		}
		if h.roomLocked() {
			h.putLocked(data)
			return nil
		}
		if try {
			return driver.ErrAgain
		}
		if err := h.awaitLocked(ctx, &h.senders); err != nil {
			return err
		}
	}
}

// tryTimeout limits how long a try-send waits for a receiver that is waiting
// to finish taking the value.
const tryTimeout = 100 * time.Millisecond

// meetLocked sends on a channel of capacity 0.
func (h *chanHandle) meetLocked(ctx context.Context, data []byte, try bool) error {
	if err := h.refusesLocked(); err != nil {
		return err
	}
	if try {
		if !h.roomLocked() {
			return driver.ErrAgain
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, tryTimeout, driver.ErrAgain)
		defer cancel()
	}
	v := h.putLocked(data)
	for !v.received {
		err := h.refusesLocked()
		if err == nil {
			err = h.awaitLocked(ctx, &h.senders)
		}
		if err != nil && !v.received {
			h.removeLocked(v)
			return err
		}
	}
	return nil
}

// Receive implements driver.Chan.
func (h *chanHandle) Receive(ctx context.Context, try bool) (*driver.ChanValue, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.gone:
			return nil, errClosed
		case h.closed && (h.config.Capacity == 0 || len(h.values)+len(h.inFlight) == 0):
			return nil, fmt.Errorf("channel %w", driver.ErrClosed)
		case len(h.values) > 0:
			v := h.values[0]
			h.values = slices.Delete(h.values, 0, 1)
			h.inFlight[v] = h
			return h.handed(v), nil
		case try:
			return nil, driver.ErrAgain
		}
		if err := h.awaitLocked(ctx, &h.receivers); err != nil {
			return nil, err
		}
	}
}

func (h *chanHandle) handed(v *chanValue) *driver.ChanValue {
	holds := func() error {
		switch {
		case h.gone:
			return errClosed
		case h.inFlight[v] != h:
			return driver.ErrEnded
		}
		return nil
	}
	return &driver.ChanValue{
		Data: slices.Clone(v.data),
		Done: func(context.Context) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			if err := holds(); err != nil {
				return err
			}
			v.received = true
			h.removeLocked(v)
			return nil
		},
		Return: func(context.Context) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			if err := holds(); err != nil {
				return err
			}
			h.putBackLocked(v)
			return nil
		},
	}
}

// Len implements driver.Chan.
func (h *chanHandle) Len(ctx context.Context) (int, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		return 0, errClosed
	}
	if h.config.Capacity == 0 {
		return 0, nil
	}
	return len(h.values) + len(h.inFlight), nil
}

// roomLocked reports whether there is room, or a receiver for which no value is
// there yet.
func (h *chanHandle) roomLocked() bool {
	switch h.config.Capacity {
	case driver.Unbounded:
		return true
	case 0:
		receivers := 0
		for other := range h.handles {
			receivers += other.receivers
		}
		return receivers > len(h.values)
	}
	return len(h.values)+len(h.inFlight) < h.config.Capacity
}

// Room implements driver.Chan.
func (h *chanHandle) Room(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var unseen int
	for h.refusesLocked() == nil && !h.roomLocked() {
		if err := h.awaitLocked(ctx, &unseen); err != nil {
			return err
		}
	}
	return nil
}

// Waiting implements driver.Chan.
func (h *chanHandle) Waiting() (senders, receivers int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.senders, h.receivers
}

// Close implements driver.Chan.
func (h *chanHandle) Close(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		return errClosed
	}
	h.closed = true
	if h.config.Capacity == 0 { // the values belong to their senders again
		h.values = nil
		clear(h.inFlight)
	}
	for other := range h.handles {
		other.finishLocked()
	}
	h.changeLocked()
	return nil
}

// Closed implements driver.Chan.
func (h *chanHandle) Closed() <-chan struct{} { return h.over }
