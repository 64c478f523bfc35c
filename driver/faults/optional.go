package faults

import (
	"context"
	"fmt"

	"github.com/harkbus/hark/driver"
)

// refuse returns the error for what the engine does not have.
func (c *Conn) refuse(what string) error {
	return fmt.Errorf("%w: engine %s: %s", driver.ErrUnsupported, c.Info().Engine, what)
}

// Request implements driver.Requester.
func (c *Conn) Request(ctx context.Context, name string, m *driver.Message) (*driver.Message, error) {
	r, ok := c.Conn.(driver.Requester)
	if !ok {
		return nil, c.refuse("requests")
	}
	if err := c.pass(ctx); err != nil {
		return nil, err
	}
	return r.Request(ctx, name, m)
}

// Respond implements driver.Requester.
func (c *Conn) Respond(ctx context.Context, name string, window int) (driver.Responder, error) {
	r, ok := c.Conn.(driver.Requester)
	if !ok {
		return nil, c.refuse("requests")
	}
	if err := c.pass(ctx); err != nil {
		return nil, err
	}
	return r.Respond(ctx, name, window)
}

// Notify implements driver.Signals.
func (c *Conn) Notify(ctx context.Context, target string) (int, error) {
	s, ok := c.Conn.(driver.Signals)
	if !ok {
		return 0, c.refuse("notifications")
	}
	if err := c.pass(ctx); err != nil {
		return 0, err
	}
	return s.Notify(ctx, target)
}

// Latch implements driver.Signals.
func (c *Conn) Latch(ctx context.Context, name string, set bool) error {
	s, ok := c.Conn.(driver.Signals)
	if !ok {
		return c.refuse("latches")
	}
	if err := c.pass(ctx); err != nil {
		return err
	}
	return s.Latch(ctx, name, set)
}

// Listen implements driver.Signals.
func (c *Conn) Listen(ctx context.Context, f func(s driver.Signal) (reached int)) error {
	s, ok := c.Conn.(driver.Signals)
	if !ok {
		return c.refuse("notifications")
	}
	if err := c.pass(ctx); err != nil {
		return err
	}
	return s.Listen(ctx, f)
}

// OpenValue implements driver.Values.
func (c *Conn) OpenValue(ctx context.Context, name string, initial []byte) (driver.Value, error) {
	vs, ok := c.Conn.(driver.Values)
	if !ok {
		return nil, c.refuse("values")
	}
	if err := c.pass(ctx); err != nil {
		return nil, err
	}
	v, err := vs.OpenValue(ctx, name, initial)
	if err != nil {
		return nil, err
	}
	return &value{v, c}, nil
}

type value struct {
	driver.Value
	conn *Conn
}

// Load implements driver.Value.
func (v *value) Load(ctx context.Context) (driver.State, error) {
	if err := v.conn.pass(ctx); err != nil {
		return driver.State{}, err
	}
	return v.Value.Load(ctx)
}

// CompareAndSet implements driver.Value.
func (v *value) CompareAndSet(ctx context.Context, version uint64, data []byte) (driver.State, bool, error) {
	if err := v.conn.pass(ctx); err != nil {
		return driver.State{}, false, fmt.Errorf("%w: %w", driver.ErrAgain, err) // nothing has changed
	}
	if v.conn.hit(v.conn.config.Again, func(n *Counts) *int { return &n.Agains }) {
		return driver.State{}, false, fmt.Errorf("%w: a fault", driver.ErrAgain)
	}
	return v.Value.CompareAndSet(ctx, version, data)
}

// Watch implements driver.Value.
func (v *value) Watch(ctx context.Context) (driver.ValueWatch, error) {
	if err := v.conn.pass(ctx); err != nil {
		return nil, err
	}
	w, err := v.Value.Watch(ctx)
	if err != nil {
		return nil, err
	}
	return &watch{w, v.conn}, nil
}

type watch struct {
	driver.ValueWatch
	conn *Conn
}

// Next implements driver.ValueWatch.
func (w *watch) Next(ctx context.Context) (driver.State, error) {
	if err := w.conn.pass(ctx); err != nil {
		return driver.State{}, err
	}
	return w.ValueWatch.Next(ctx)
}

// OpenChan implements driver.Chans.
func (c *Conn) OpenChan(ctx context.Context, config driver.ChanConfig) (driver.Chan, error) {
	cs, ok := c.Conn.(driver.Chans)
	if !ok {
		return nil, c.refuse("channels")
	}
	if err := c.pass(ctx); err != nil {
		return nil, err
	}
	ch, err := cs.OpenChan(ctx, config)
	if err != nil {
		return nil, err
	}
	return &channel{ch, c}, nil
}

type channel struct {
	driver.Chan
	conn *Conn
}

// Send implements driver.Chan.
func (ch *channel) Send(ctx context.Context, data []byte, try bool) error {
	if err := ch.conn.pass(ctx); err != nil {
		return err
	}
	return ch.Chan.Send(ctx, data, try)
}

// Receive implements driver.Chan.
func (ch *channel) Receive(ctx context.Context, try bool) (*driver.ChanValue, error) {
	if err := ch.conn.pass(ctx); err != nil {
		return nil, err
	}
	return ch.Chan.Receive(ctx, try)
}

// Len implements driver.Chan.
func (ch *channel) Len(ctx context.Context) (int, error) {
	if err := ch.conn.pass(ctx); err != nil {
		return 0, err
	}
	return ch.Chan.Len(ctx)
}

// Close implements driver.Chan.
func (ch *channel) Close(ctx context.Context) error {
	if err := ch.conn.pass(ctx); err != nil {
		return err
	}
	return ch.Chan.Close(ctx)
}
