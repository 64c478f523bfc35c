package hark

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/harkbus/hark/driver"
)

// remoteInlet sends what is put into the Go channel that In returns. Its pump
// takes a value when there is room for it, and then sends it.
type remoteInlet[T any] struct {
	r *remoteChan[T]

	withdraw chan struct{} // makes a pump that may take a value start again

	mu    sync.Mutex // guards the fields below
	ch    chan T
	trip  *inletTrip    // of the value that the pump may take or has taken; nil if none
	gone  chan struct{} // closed when the pump has ended
	left  []T           // values that were taken and could not be sent
	ended bool          // no pump may run any more
}

// inletTrip is the way of a value from In to the engine.
type inletTrip struct {
	taken chan struct{} // closed when the pump has taken it
	over  chan struct{} // closed when the value has been sent, or will not be
}

func (i *remoteInlet[T]) init(r *remoteChan[T]) { i.r, i.withdraw = r, make(chan struct{}) }

// shut prevents a pump from starting.
func (i *remoteInlet[T]) shut() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ended = true
}

// channel implements In.
func (i *remoteInlet[T]) channel() chan<- T {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ch == nil {
		i.ch = make(chan T)
		if !i.ended {
			i.gone = make(chan struct{})
			i.r.pumps.Go(i.pump)
		}
	}
	return i.ch
}

func (i *remoteInlet[T]) pump() {
	defer close(i.gone)
	r := i.r
	pause := firstChanPause
	for {
		if err := r.chann().Room(r.life); err != nil {
			if !r.pause(&pause) {
				return
			}
			continue
		}
		pause = firstChanPause
		if !i.carry() {
			return
		}
	}
}

// carry takes a value and sends it. It returns false when the pump must end.
func (i *remoteInlet[T]) carry() bool {
	r := i.r
	trip := &inletTrip{make(chan struct{}), make(chan struct{})}
	i.mu.Lock()
	i.trip = trip
	i.mu.Unlock()
	var v T
	taken, open := false, true
	select {
	case v, open = <-i.ch:
		taken = open
	case <-i.withdraw:
	case <-r.chann().Closed():
		open = false
	case <-r.life.Done():
		open = false
	}
	if taken {
		close(trip.taken)
		open = i.send(v)
	}
	i.mu.Lock()
	if i.trip = nil; taken && !open {
		i.left = append(i.left, v)
	}
	i.mu.Unlock()
	close(trip.over)
	if !taken && !open && r.life.Err() == nil {
		_ = r.close() // there is no one to report an error to; a second close changes nothing
	}
	return open
}

// send sends a value that was taken. It returns false when that is no longer
// possible. A value that can never be sent is dropped, so that it does not
// block the rest.
func (i *remoteInlet[T]) send(v T) bool {
	r := i.r
	data, err := r.encode(v)
	if err != nil {
		r.dropped(DropUndecodable)
		return true
	}
	pause := firstChanPause
	err = r.putEncoded(r.life, data, false)
	for err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrUnsure) && r.pause(&pause) {
		err = r.putEncoded(r.life, data, false)
	}
	if errors.Is(err, ErrUnsure) { // sending it again might duplicate it
		r.dropped(DropUnreachable)
		return true
	}
	return err == nil
}

// dropped reports to the hooks a value that no one will receive.
func (r *remoteChan[T]) dropped(why DropReason) {
	r.bus.hooks.onDrop(DropEvent{Source: Source{Kind: KindChan, Name: r.name}, Count: 1, Reason: why})
}

// The pauses after which the pumps try again after a temporary error.
const (
	firstChanPause = 10 * time.Millisecond
	longChanPause  = time.Second
)

// pause waits a little, longer each time. It returns false if the channel is
// over.
func (r *remoteChan[T]) pause(d *time.Duration) bool {
	select {
	case <-time.After(*d):
		*d = min(2**d, longChanPause)
		return true
	case <-r.chann().Closed():
	case <-r.life.Done():
	}
	return false
}

// settle waits until what was put into In has been sent, and reports whether it
// has. If try is true, it does not wait long. With capacity 0 it returns true at
// once, because such a value is sent only when it is received.
func (i *remoteInlet[T]) settle(ctx context.Context, try bool) (bool, error) {
	trip := i.way()
	if trip == nil || i.r.config.Capacity == 0 {
		return true, nil
	}
	var late <-chan time.Time
	if try {
		timer := time.NewTimer(tryTimeout)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case i.withdraw <- struct{}{}: // nothing was taken
		return true, nil
	case <-trip.over:
		return true, nil
	case <-late:
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// tryTimeout is how long TrySend and TryReceive wait for a value that was put
// into In and is on its way.
const tryTimeout = 100 * time.Millisecond

func (i *remoteInlet[T]) way() *inletTrip {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.trip
}

// ahead returns the number of values that were taken and do not count at the
// engine yet.
func (i *remoteInlet[T]) ahead() (n int) {
	if trip := i.way(); trip != nil && i.r.config.Capacity == 0 {
		select {
		case i.withdraw <- struct{}{}:
		case <-trip.taken:
			select {
			case <-trip.over:
			default:
				n++
			}
		case <-trip.over:
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return n + len(i.left)
}

// remainder returns the value that In has taken and could not send because the
// channel was closed.
func (i *remoteInlet[T]) remainder(ctx context.Context) *driver.ChanValue {
	i.mu.Lock()
	gone := i.gone
	i.mu.Unlock()
	if gone == nil {
		return nil
	}
	select {
	case <-gone: // immediately, since the channel is closed
	case <-ctx.Done():
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.left) == 0 {
		return nil
	}
	v := i.left[0]
	data, err := encodeWith(i.r.codec, &v)
	if err != nil {
		return nil
	}
	i.left = nil
	return &driver.ChanValue{
		Data: data,
		Done: func(context.Context) error { return nil },
		Return: func(context.Context) error {
			i.mu.Lock()
			defer i.mu.Unlock()
			i.left = append(i.left, v)
			return nil
		},
	}
}
