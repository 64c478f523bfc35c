package hark

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/harkbus/hark/driver"
)

// remoteOutlet offers values on the Go channel that Out returns. While it is in
// use, only its pump receives here. Others ask the pump, so that they get the
// value on offer, and nothing overtakes it.
type remoteOutlet[T any] struct {
	r *remoteChan[T]

	wakeup chan struct{} // tells a pump that offers a value of new requests

	mu      sync.Mutex // guards the fields below
	ch      chan T
	asks    []*chanAsk
	poke    context.CancelFunc // ends the pump's wait for a value; nil if it is not waiting
	running bool
	ended   bool // no pump may run any more
}

// chanAsk is a request to the pump for a value, or just to learn when it is at
// rest.
type chanAsk struct {
	try, rest bool
	answered  chan struct{} // closed when the fields below are set
	value     *driver.ChanValue
	alone     bool // the pump has ended, so the asker must receive by itself
	err       error
}

func (o *remoteOutlet[T]) init(r *remoteChan[T]) {
	o.r, o.wakeup = r, make(chan struct{}, 1)
}

// shut prevents a pump from starting.
func (o *remoteOutlet[T]) shut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
}

// channel implements Out.
func (o *remoteOutlet[T]) channel() <-chan T {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ch == nil {
		o.ch = make(chan T)
		if o.ended {
			close(o.ch)
		} else {
			o.running = true
			o.r.pumps.Go(o.pump)
		}
	}
	return o.ch
}

// waiting returns how many goroutines wait for a value that the engine does not
// know of.
func (o *remoteOutlet[T]) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, a := range o.asks {
		if !a.rest {
			n++
		}
	}
	if o.poke != nil {
		n--
	}
	return n
}

// ask asks the pump for a value. It returns false if there is no pump.
func (o *remoteOutlet[T]) ask(ctx context.Context, try bool) (*driver.ChanValue, bool, error) {
	a := &chanAsk{try: try, answered: make(chan struct{})}
	err, asked := o.put(ctx, a)
	return a.value, asked && !a.alone, err
}

// settle waits until what someone has taken from Out is accounted for.
func (o *remoteOutlet[T]) settle(ctx context.Context) error {
	err, _ := o.put(ctx, &chanAsk{rest: true, answered: make(chan struct{})})
	return err
}

func (o *remoteOutlet[T]) put(ctx context.Context, a *chanAsk) (err error, asked bool) {
	o.mu.Lock()
	if !o.running {
		o.mu.Unlock()
		return nil, false
	}
	o.asks = append(o.asks, a)
	if o.poke != nil && (a.try || a.rest) {
		o.poke()
	}
	o.mu.Unlock()
	signal(o.wakeup)
	select {
	case <-a.answered:
		return a.err, true
	case <-ctx.Done():
	}
	o.mu.Lock()
	at := slices.Index(o.asks, a)
	if at >= 0 {
		o.asks = slices.Delete(o.asks, at, at+1)
	}
	o.mu.Unlock()
	if at < 0 { // the answer has been given, or is about to be
		<-a.answered
		return a.err, true
	}
	return context.Cause(ctx), true
}

// answer answers the requests for which f returns true, at most one of them if
// once is true.
func (o *remoteOutlet[T]) answer(once bool, f func(a *chanAsk) bool) (any bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asks = slices.DeleteFunc(o.asks, func(a *chanAsk) bool {
		if any && once || !f(a) {
			return false
		}
		any = true
		close(a.answered)
		return true
	})
	return any
}

// pump offers values until the channel is closed and empty, or its bus is
// closed.
func (o *remoteOutlet[T]) pump() {
	r := o.r
	pause := firstChanPause
	var held *driver.ChanValue
	var value *Taken[T]
	for {
		o.answer(false, func(a *chanAsk) bool { return a.rest })
		if held == nil {
			var err error
			held, err = o.next()
			switch {
			case err == nil, errors.Is(err, driver.ErrAgain):
			case errors.Is(err, ErrClosed), r.life.Err() != nil:
				o.finish()
				return
			case !r.pause(&pause): // all who asked have been answered
				o.finish()
				return
			}
			value = nil
			continue
		}
		pause = firstChanPause
		if o.answer(true, func(a *chanAsk) bool {
			if a.rest {
				return false
			}
			a.value = held
			return true
		}) {
			held = nil
			continue
		}
		if value == nil {
			var err error
			if value, err = r.taken(r.life, held); err != nil { // the value is lost, which has been reported
				held = nil
				continue
			}
		}
		select {
		case o.ch <- value.Value:
			o.handed(value)
			held = nil
		case <-o.wakeup:
		case <-r.life.Done():
			ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
			_ = held.Return(ctx) // otherwise the engine notices that no one has it any more
			cancel()
			o.finish()
			return
		}
	}
}

// handed finishes a value that someone has taken from Out. If the engine cannot
// be told, someone else gets it too.
func (o *remoteOutlet[T]) handed(t *Taken[T]) {
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	_ = t.Done(ctx) // as said above
}

// next receives a value. It returns driver.ErrAgain when there may be requests
// to answer first.
func (o *remoteOutlet[T]) next() (*driver.ChanValue, error) {
	r := o.r
	o.mu.Lock()
	tries := slices.ContainsFunc(o.asks, func(a *chanAsk) bool { return a.try })
	rests := slices.ContainsFunc(o.asks, func(a *chanAsk) bool { return a.rest })
	if rests {
		o.mu.Unlock()
		return nil, driver.ErrAgain
	}
	ctx, cancel := context.WithCancel(r.life)
	defer cancel()
	var asked []*chanAsk
	if tries {
		asked = slices.Clone(o.asks)
	} else {
		o.poke = cancel
	}
	o.mu.Unlock()
	cv, err := r.next(ctx, tries)
	o.mu.Lock()
	o.poke = nil
	o.mu.Unlock()
	if err != nil && ctx.Err() != nil && r.life.Err() == nil {
		return nil, driver.ErrAgain
	}
	if err != nil && tries {
		o.answer(false, func(a *chanAsk) bool {
			if !a.try || !slices.Contains(asked, a) {
				return false
			}
			a.err = err
			return true
		})
	} else if err != nil && !errors.Is(err, ErrClosed) {
		o.answer(false, func(a *chanAsk) bool {
			if a.rest {
				return false
			}
			a.err = err
			return true
		})
	}
	return cv, err
}

// finish ends Out.
func (o *remoteOutlet[T]) finish() {
	o.mu.Lock()
	o.running = false
	o.mu.Unlock()
	close(o.ch)
	o.answer(false, func(a *chanAsk) bool {
		a.alone = true
		return true
	})
}
