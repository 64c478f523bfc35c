package hark

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/harkbus/hark/driver"
)

// remoteValue is the engine's side of a value. The Value holds the newest state
// that has reached this process: a change made here is made at the engine
// first, and changes by others arrive through a watch.
type remoteValue[T any] struct {
	bus    *Bus
	name   string
	codec  Codec
	engine driver.Value
	opened chan struct{} // closed when engine is set, or the value could not be opened
	failed error         // the reason, in the latter case

	// writing says that a change is on its way to the engine. Others wait for
	// their turn meanwhile. Value.mu guards it.
	writing bool
	// pause limits the wait before a change is tried again after one from
	// another process was faster. Value.mu guards it.
	pause time.Duration

	cancel  context.CancelFunc // ends the watch
	watched chan struct{}      // closed when the watch has ended
}

// openRemoteValue is newValue on a bus over an engine.
func openRemoteValue[T any](b *Bus, name string, initial T, cfg valueConfig) (*Value[T], error) {
	values, ok := b.engine.conn.(driver.Values)
	if !ok {
		return nil, b.engine.refuse("values")
	}
	codec := cfg.codec
	if codec == nil {
		codec = b.codecFor(reflect.TypeFor[T]())
	}
	v, existed, err := attach(b, KindValue, name, func() *Value[T] {
		return &Value[T]{
			core:      valueCore{bus: b, hooks: &b.hooks, name: name, pool: b.pool},
			attention: everybody,
			remote:    &remoteValue[T]{bus: b, name: name, codec: codec, opened: make(chan struct{}), watched: make(chan struct{})},
		}
	})
	if err != nil {
		return nil, err
	}
	r := v.remote
	if existed {
		<-r.opened // limited by the engineTimeout of whoever opens it
		if r.failed == nil && otherCodec(cfg.codec, r.codec) {
			return nil, errOtherCodec
		}
		return v, r.failed
	}
	r.failed = v.openAt(values, initial)
	close(r.opened)
	if r.failed != nil {
		b.detach(KindValue, name, v)
		return nil, r.failed
	}
	return v, nil
}

// openAt opens the engine's value and starts watching it.
func (v *Value[T]) openAt(values driver.Values, initial T) error {
	r := v.remote
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	data, err := r.encode(initial)
	if err != nil {
		return err
	}
	if r.engine, err = values.OpenValue(ctx, r.name, data); err != nil {
		return engineError(err)
	}
	state, err := r.engine.Load(ctx)
	if err != nil {
		return engineError(err)
	}
	value, err := r.decode(state.Data)
	if err != nil {
		return err
	}
	v.mu.Lock()
	v.value, v.version = value, state.Version
	v.mu.Unlock()
	watch, err := r.engine.Watch(ctx)
	if err != nil {
		return engineError(err)
	}
	life, end := context.WithCancel(context.Background())
	r.cancel = end
	go v.follow(life, watch)
	return nil
}

func (r *remoteValue[T]) encode(value T) ([]byte, error) {
	data, err := encodeWith(r.codec, &value)
	if err != nil {
		return nil, err
	}
	if most := r.bus.engine.info.MaxPayload; most > 0 && len(data) > most {
		return nil, fmt.Errorf("%w: the value has %d bytes, and engine %s accepts at most %d", ErrInvalidOption, len(data), r.bus.engine.info.Engine, most)
	}
	return data, nil
}

func (r *remoteValue[T]) decode(data []byte) (value T, err error) {
	err = decodeWith(r.codec, data, &value)
	return value, err
}

// follow applies the states that the watch delivers.
func (v *Value[T]) follow(ctx context.Context, watch driver.ValueWatch) {
	r := v.remote
	defer close(r.watched)
	defer func() { _ = watch.Close() }() // nothing more can be done about it
	for {
		state, err := watch.Next(ctx)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, driver.ErrClosed) {
				r.bus.engine.lost(r.bus, fmt.Errorf("watch %s: %w", r.name, err))
			}
			return
		}
		if err := v.adopt(ctx, state); err != nil && ctx.Err() == nil {
			v.failures.Add(1)
			v.core.hooks.onFail(FailEvent{Source: Source{Kind: KindValue, Name: r.name}, Attempt: 1, Err: err})
		}
	}
}

// adopt applies a state that the engine already has, if it is newer, and tells
// observers and watchers.
func (v *Value[T]) adopt(ctx context.Context, state driver.State) error {
	v.mu.Lock()
	if v.version >= state.Version {
		v.mu.Unlock()
		return nil
	}
	v.mu.Unlock()
	value, err := v.remote.decode(state.Data)
	if err != nil {
		return err
	}
	v.mu.Lock()
	known := func() bool { return v.version >= state.Version }
	inRound, err := v.enterLocked(ctx, known, true)
	if err == nil {
		v.tellAllLocked(value, state.Version, inRound)
	}
	if errors.Is(err, errOvertaken) || errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

// commitLocked makes a change at the engine, based on the version that is here,
// and returns the new version. It unlocks mu meanwhile, and keeps others from
// changing the value. If another process was faster, it applies that change
// here and returns errOvertaken. If it returns an error, mu is unlocked.
func (v *Value[T]) commitLocked(ctx context.Context, value T) (version uint64, err error) {
	r := v.remote
	base := v.version
	r.writing = true
	v.mu.Unlock()
	state, done, err := r.compareAndSet(ctx, base, value)
	v.mu.Lock()
	r.writing = false
	if err == nil && done {
		r.pause = 0
		return state.Version, nil
	}
	pause := r.pause
	r.pause = min(max(2*pause, firstCollision), longCollision)
	v.wakeSetterLocked()
	v.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if err := v.adopt(ctx, state); err != nil {
		return 0, err
	}
	collide(ctx, pause)
	return 0, errOvertaken
}

func (r *remoteValue[T]) compareAndSet(ctx context.Context, base uint64, value T) (driver.State, bool, error) {
	data, err := r.encode(value)
	if err != nil {
		return driver.State{}, false, err
	}
	for {
		state, done, err := r.engine.CompareAndSet(ctx, base, data)
		if !errors.Is(err, driver.ErrAgain) {
			return state, done, engineError(err)
		}
		if collide(ctx, longCollision); ctx.Err() != nil {
			return driver.State{}, false, context.Cause(ctx)
		}
	}
}

// The limits of the wait after another process was faster. The first retry is
// immediate. After that the wait is random, and its limit doubles.
const (
	firstCollision = 200 * time.Microsecond
	longCollision  = 20 * time.Millisecond
)

// collide waits for a random time of at most pause, or until ctx ends.
func collide(ctx context.Context, pause time.Duration) {
	select {
	case <-time.After(rand.N(max(pause, 1))):
	case <-ctx.Done():
	}
}

// stop ends the watch. It waits until that has happened or ctx ends, since an
// observer that is being told of a change may be stuck.
func (r *remoteValue[T]) stop(ctx context.Context) {
	if r.cancel == nil {
		return // it has not been opened
	}
	r.cancel()
	select {
	case <-r.watched:
	case <-ctx.Done():
	}
}
