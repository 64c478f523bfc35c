package hark

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/harkbus/hark/driver"
)

// remoteOutlet offers values at the Go channel that Out returns. While it is in
// use, its pump is the only one here that receives: others ask it, so that what
// is on offer goes to them and nothing overtakes it.
type remoteOutlet[T any] struct {
	r *remoteChan[T]

	wakeup chan struct{} // tells the pump that offers a value of new asks

	mu      sync.Mutex // guards what follows
	ch      chan T
	asks    []*chanAsk
	poke    context.CancelFunc // ends the pump's waiting for a value; nil if it does not
	running bool
	ended   bool // there is to be no pump
}

// chanAsk is somebody who asks the pump for a value, or only whether it is at
// rest.
type chanAsk struct {
	try, rest bool
	answered  chan struct{} // closed when the rest is set
	value     *driver.ChanValue
	alone     bool // the pump has ended: the asker has to receive by itself
	err       error
}

func (o *remoteOutlet[T]) init(r *remoteChan[T]) {
	o.r, o.wakeup = r, make(chan struct{}, 1)
}

// shut lets no pump begin any more.
func (o *remoteOutlet[T]) shut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
}

// channel is Out.
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

// waiting returns how many more wait for a value than the engine knows of.
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

// ask asks the pump for a value. It reports false if there is none to ask.
func (o *remoteOutlet[T]) ask(ctx context.Context, try bool) (*driver.ChanValue, bool, error) {
	a := &chanAsk{try: try, answered: make(chan struct{})}
	err, asked := o.put(ctx, a)
	return a.value, asked && !a.alone, err
}

// settle returns when what somebody has taken from Out is accounted for.
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
	if at < 0 { // the answer is there, or about to be
		<-a.answered
		return a.err, true
	}
	return context.Cause(ctx), true
}

// answer answers the asks for which f returns true, one at most if once.
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

// pump offers values until the channel is closed and empty, or its bus.
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
			case !r.pause(&pause): // whoever asked has been told
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
			if value, err = r.taken(r.life, held); err != nil { // it is lost, and that is reported
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
			ctx, cancel := context.WithTimeout(context.Background(), statsPatience)
			_ = held.Return(ctx) // or the engine finds that it is nobody's any more
			cancel()
			o.finish()
			return
		}
	}
}

// handed is done with what somebody has taken from Out. When the engine cannot
// be told, somebody else gets it too.
func (o *remoteOutlet[T]) handed(t *Taken[T]) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = t.Done(ctx) // as said
}

// next receives a value. It returns driver.ErrAgain when there may be somebody
// else to answer first.
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
