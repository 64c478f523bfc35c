package hark

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"

	"github.com/harkbus/hark/driver"
)

// remoteChan is the engine's side of a channel.
type remoteChan[T any] struct {
	bus    *Bus
	name   string
	codec  Codec
	config driver.ChanConfig

	opening sync.Mutex // guards the opening of engine
	engine  atomic.Pointer[driver.Chan]

	sent, received atomic.Uint64

	life    context.Context // ends with the component on the bus
	end     context.CancelCauseFunc
	stopped atomic.Bool
	pumps   sync.WaitGroup
	in      remoteInlet[T]
	out     remoteOutlet[T]
}

// openRemoteChan is openChan over an engine.
func openRemoteChan[T any](b *Bus, name string, capacity int, cfg chanConfig) (*Chan[T], bool, error) {
	engine, ok := b.engine.conn.(driver.Chans)
	if !ok {
		return nil, false, b.engine.refuse("channels")
	}
	config := driver.ChanConfig{Name: name, Capacity: capacity}
	if cfg.durability == 0 {
		switch info := b.engine.info; {
		case info.Has(driver.Relaxed):
			cfg.durability = Relaxed
		case info.Has(driver.Memory):
			cfg.durability = Memory
		default: // the engine keeps nothing
			return nil, false, b.engine.refuse("channels")
		}
	}
	var err error
	if config.Durability, err = b.engine.durability(cfg.durability); err != nil {
		return nil, false, err
	}
	if cfg.codec == nil {
		cfg.codec = b.codecFor(reflect.TypeFor[T]())
	}
	c, existed, err := attach(b, KindChan, name, func() *Chan[T] {
		r := &remoteChan[T]{bus: b, name: name, codec: cfg.codec, config: config}
		r.life, r.end = context.WithCancelCause(context.Background())
		r.in.init(r)
		r.out.init(r)
		return &Chan[T]{name: name, capacity: capacity, remote: r}
	})
	if err != nil || c.capacity != capacity {
		return c, existed, err // the caller checks the capacity
	}
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	if err := c.remote.open(ctx, engine); err != nil {
		if !existed {
			b.detach(KindChan, name, c)
		}
		return nil, existed, err
	}
	return c, existed, nil
}

// open opens the engine's channel, if it is not open yet.
func (r *remoteChan[T]) open(ctx context.Context, engine driver.Chans) error {
	r.opening.Lock()
	defer r.opening.Unlock()
	if r.engine.Load() != nil {
		return nil
	}
	ch, err := engine.OpenChan(ctx, r.config)
	if err != nil {
		return engineError(err)
	}
	r.engine.Store(&ch)
	return nil
}

// agrees returns an error if the options of a later maker differ.
func (r *remoteChan[T]) agrees(cfg chanConfig) error {
	if otherCodec(cfg.codec, r.codec) {
		return errOtherCodec
	}
	if cfg.durability != 0 {
		d, err := r.bus.engine.durability(cfg.durability)
		if err != nil {
			return err
		}
		if d != r.config.Durability {
			return fmt.Errorf("%w: it was made without durability %v", ErrInvalidOption, cfg.durability)
		}
	}
	return nil
}

func (r *remoteChan[T]) chann() driver.Chan { return *r.engine.Load() }

// over returns the reason why the channel can no longer be used here, or nil.
func (r *remoteChan[T]) over() error {
	if r.stopped.Load() {
		return fmt.Errorf("bus %w", ErrClosed)
	}
	return nil
}

// send is Send, or TrySend if try is true.
func (r *remoteChan[T]) send(ctx context.Context, v T, try bool) (bool, error) {
	if err := r.over(); err != nil {
		return false, fail("send", r.name, err)
	}
	// What was put into In earlier comes first.
	if settled, err := r.in.settle(ctx, try); err != nil {
		return false, fail("send", r.name, err)
	} else if !settled {
		return false, nil
	}
	err := r.put(ctx, v, try)
	switch {
	case err == nil:
		return true, nil
	case try && errors.Is(err, driver.ErrAgain):
		return false, nil
	}
	return false, fail("send", r.name, err)
}

// put passes a value to the engine.
func (r *remoteChan[T]) put(ctx context.Context, v T, try bool) error {
	data, err := r.encode(v)
	if err != nil {
		return err
	}
	return r.putEncoded(ctx, data, try)
}

// encode returns the message data for a value.
func (r *remoteChan[T]) encode(v T) ([]byte, error) {
	data, err := encodeWith(r.codec, &v)
	if err != nil {
		return nil, err
	}
	if info := r.bus.engine.info; info.MaxPayload > 0 && len(data) > info.MaxPayload {
		return nil, fmt.Errorf("%w: the value has %d bytes, and engine %s accepts at most %d", ErrInvalidOption, len(data), info.Engine, info.MaxPayload)
	}
	return data, nil
}

func (r *remoteChan[T]) putEncoded(ctx context.Context, data []byte, try bool) error {
	if err := r.chann().Send(ctx, data, try); err != nil {
		return engineError(err)
	}
	r.sent.Add(1)
	return nil
}

// receive is Receive, or TryReceive if try is true. It then returns
// driver.ErrAgain if there is nothing.
func (r *remoteChan[T]) receive(ctx context.Context, try bool) (v T, err error) {
	for {
		t, err := r.take(ctx, try)
		if err != nil {
			return v, err
		}
		if err = t.done(ctx); err == nil {
			return t.Value, nil
		}
		if !errors.Is(err, ErrNotHeld) {
			return v, err
		}
	}
}

// take is Take. If try is true, it does not wait.
func (r *remoteChan[T]) take(ctx context.Context, try bool) (*Taken[T], error) {
	if err := r.over(); err != nil {
		return nil, err
	}
	if try {
		if _, err := r.in.settle(ctx, try); err != nil {
			return nil, err
		}
	}
	cv, asked, err := r.out.ask(ctx, try)
	if !asked {
		cv, err = r.next(ctx, try)
	}
	if err != nil {
		return nil, err
	}
	return r.taken(ctx, cv)
}

// next takes a value from the engine, or one that In could not send.
func (r *remoteChan[T]) next(ctx context.Context, try bool) (*driver.ChanValue, error) {
	cv, err := r.chann().Receive(ctx, try)
	if err == nil {
		return cv, nil
	}
	if errors.Is(err, driver.ErrClosed) {
		if cv := r.in.remainder(ctx); cv != nil {
			return cv, nil
		}
	}
	return nil, engineError(err)
}

// taken decodes a value. If that is impossible, the value is lost.
func (r *remoteChan[T]) taken(ctx context.Context, cv *driver.ChanValue) (*Taken[T], error) {
	t := &Taken[T]{name: r.name, remote: r, held: cv}
	if err := decodeWith(r.codec, cv.Data, &t.Value); err != nil {
		if done := cv.Done(ctx); done != nil {
			return nil, errors.Join(err, done)
		}
		r.dropped(DropUndecodable)
		return nil, err
	}
	return t, nil
}

// close implements Close.
func (r *remoteChan[T]) close() error {
	if r.over() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	err := r.chann().Close(ctx)
	if err != nil && !errors.Is(err, driver.ErrClosed) {
		return engineError(err)
	}
	return nil
}

// len implements Len.
func (r *remoteChan[T]) len() int {
	if r.over() != nil {
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	if r.config.Capacity == 0 {
		return r.in.ahead()
	}
	_, err := r.in.settle(ctx, false)
	if err == nil {
		err = r.out.settle(ctx)
	}
	if err != nil {
		return 0
	}
	n, err := r.chann().Len(ctx)
	if err != nil {
		return 0
	}
	return n + r.in.ahead()
}

// stop ends the channel on this bus. The engine's channel stays as it is.
func (r *remoteChan[T]) stop(cause error) []Left {
	if r.stopped.Swap(true) {
		return nil
	}
	r.end(cause)
	r.in.shut()
	r.out.shut()
	r.pumps.Wait()
	if n := r.in.ahead(); n > 0 {
		return []Left{{Kind: KindChan, Name: r.name, Waiting: n}}
	}
	return nil
}

func (r *remoteChan[T]) stats() ChanStats {
	if r.engine.Load() == nil { // it is being opened
		return ChanStats{Name: r.name, Cap: r.config.Capacity}
	}
	senders, receivers := r.chann().Waiting()
	closed := r.over() != nil
	select {
	case <-r.chann().Closed():
		closed = true
	default:
	}
	return ChanStats{
		Name: r.name, Len: r.len(), Cap: r.config.Capacity, Sent: r.sent.Load(), Received: r.received.Load(),
		Senders: senders, Receivers: max(receivers+r.out.waiting(), 0), Closed: closed,
	}
}
