package memdriver

import (
	"bytes"
	"context"
	"sync"

	"github.com/harkbus/hark/driver"
)

// value is a shared value of the engine.
type value struct {
	mu      sync.Mutex // guards the fields below
	state   driver.State
	changed chan struct{} // closed and replaced at each change
}

// valueHandle is a value as one connection sees it.
type valueHandle struct {
	*value
	conn *conn
}

// OpenValue implements driver.Values.
func (c *conn) OpenValue(ctx context.Context, name string, initial []byte) (driver.Value, error) {
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	e := c.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	v := e.values[name]
	if v == nil {
		v = &value{state: driver.State{Version: 1, Data: bytes.Clone(initial)}, changed: make(chan struct{})}
		e.values[name] = v
	}
	return &valueHandle{v, c}, nil
}

func (v *value) load() (driver.State, <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return driver.State{Version: v.state.Version, Data: bytes.Clone(v.state.Data)}, v.changed
}

// Load implements driver.Value.
func (h *valueHandle) Load(ctx context.Context) (driver.State, error) {
	if err := h.conn.check(ctx); err != nil {
		return driver.State{}, err
	}
	state, _ := h.load()
	return state, nil
}

// CompareAndSet implements driver.Value.
func (h *valueHandle) CompareAndSet(ctx context.Context, version uint64, data []byte) (driver.State, bool, error) {
	if err := h.conn.check(ctx); err != nil {
		return driver.State{}, false, err
	}
	h.mu.Lock()
	done := h.state.Version == version
	if done {
		h.state = driver.State{Version: version + 1, Data: bytes.Clone(data)}
		close(h.changed)
		h.changed = make(chan struct{})
	}
	h.mu.Unlock()
	state, _ := h.load()
	if done {
		state = driver.State{Version: version + 1, Data: bytes.Clone(data)}
	}
	return state, done, nil
}

// Watch implements driver.Value.
func (h *valueHandle) Watch(ctx context.Context) (driver.ValueWatch, error) {
	if err := h.conn.check(ctx); err != nil {
		return nil, err
	}
	return &valueWatch{value: h.value, ended: make(chan struct{})}, nil
}

// valueWatch is a driver.ValueWatch.
type valueWatch struct {
	value *value
	seen  uint64 // used only by Next
	once  sync.Once
	ended chan struct{}
}

// Next implements driver.ValueWatch.
func (w *valueWatch) Next(ctx context.Context) (driver.State, error) {
	for {
		state, changed := w.value.load()
		if state.Version > w.seen {
			w.seen = state.Version
			return state, nil
		}
		select {
		case <-changed:
		case <-w.ended:
			return driver.State{}, driver.ErrEnded
		case <-ctx.Done():
			return driver.State{}, context.Cause(ctx)
		}
	}
}

// Close implements driver.ValueWatch.
func (w *valueWatch) Close() error {
	w.once.Do(func() { close(w.ended) })
	return nil
}
