package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

const (
	// responders is the queue group of those that answer requests.
	responders = "hark"
	// A requester that no longer waits publishes the ID of its request to
	// cancelPrefix followed by the name.
	cancelPrefix = "$HARK.cancel."
)

// Request implements driver.Requester. If the connection is lost while it waits for
// the answer it returns at once; the request may have been handled.
func (c *Conn) Request(ctx context.Context, name string, m *driver.Message) (*driver.Message, error) {
	msg, err := c.encode(name, name, m)
	if err != nil {
		return nil, err
	}
	if err := c.fits(msg); err != nil {
		return nil, err
	}
	setNATSHeader(msg, harkRequest, c.ids.next())
	if c.js != nil {
		setNATSHeader(msg, natsExpectedStream, noStream)
	}
	var answer *nats.Msg
	up := c.state.connected()
	if up {
		answer, err = c.ask(ctx, msg)
	}
	if !up || err != nil && ctx.Err() == nil && c.state.passes(err) {
		err = c.state.do(ctx, func(context.Context) (err error) { // an answer may take longer than an attempt
			answer, err = c.ask(ctx, msg)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	return &c.decode(answer, name).Message, nil
}

// errUnanswered says that the connection was lost before the answer came.
var errUnanswered = errors.New("the connection was lost before the answer came; the request may have been handled")

func (c *Conn) ask(ctx context.Context, msg *nats.Msg) (*nats.Msg, error) {
	asking, w := c.state.watchRefusals(ctx)
	watchSubject(asking, msg.Subject)
	answer, err := c.askOnce(asking, msg)
	err = w.end(err)
	switch {
	case err == nil:
		return answer, nil
	case errors.Is(err, nats.ErrNoResponders):
		return nil, driver.ErrNoResponders
	case errors.Is(err, ErrNotAllowed):
		return nil, err
	case ctx.Err() != nil:
		_ = c.nc.Publish(cancelPrefix+msg.Subject, []byte(msg.Header.Get(harkRequest))) // it only saves work
		return nil, context.Cause(ctx)
	}
	return nil, err
}

// Respond implements driver.Requester.
func (c *Conn) Respond(ctx context.Context, name string, window int) (driver.Responder, error) {
	r := &responder{inlet: newInlet(c, window), name: name, open: map[string]context.CancelFunc{}}
	sub, err := c.nc.Subscribe(cancelPrefix+name, r.cancelled)
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", kind(err))
	}
	r.cancels = sub
	if err := r.begin(ctx, []string{name}, responders); err != nil {
		_ = sub.Unsubscribe() // the error is reported
		return nil, err
	}
	if err := c.add(r); err != nil {
		r.end()
		_ = sub.Unsubscribe()
		return nil, err
	}
	return r, nil
}

// responder receives requests by name.
type responder struct {
	inlet
	name    string
	cancels *nats.Subscription

	mu   sync.Mutex                    // guards open
	open map[string]context.CancelFunc // cancel unanswered calls, by the IDs of their requests
}

// Receive implements driver.Responder.
func (r *responder) Receive(ctx context.Context, most int) ([]*driver.Call, error) {
	for {
		ms, err := r.next(ctx, most)
		if err != nil {
			return nil, err
		}
		calls := make([]*driver.Call, 0, len(ms))
		for _, m := range ms {
			if m.Reply != "" && !isAckSubject(m.Reply) { // otherwise it was published to a topic
				calls = append(calls, r.call(m))
			}
		}
		if len(calls) > 0 {
			return calls, nil
		}
	}
}

func (r *responder) call(m *nats.Msg) *driver.Call {
	id := m.Header.Get(harkRequest)
	delete(m.Header, harkRequest)
	call := &driver.Call{Message: r.conn.decode(m, r.name).Message}
	if id != "" {
		var cancel context.CancelFunc
		call.Context, cancel = context.WithCancel(context.Background())
		r.mu.Lock()
		r.open[id] = cancel
		r.mu.Unlock()
	}
	call.Answer = func(ctx context.Context, answer *driver.Message) error {
		r.mu.Lock()
		delete(r.open, id)
		r.mu.Unlock()
		c := r.conn
		msg, err := c.encode(m.Reply, r.name, answer)
		if err != nil {
			return err
		}
		if err := c.fits(msg); err != nil {
			return err
		}
		if c.state.connected() && c.nc.PublishMsg(msg) == nil {
			return nil
		}
		return c.state.do(ctx, func(context.Context) error { return c.nc.PublishMsg(msg) })
	}
	return call
}

// cancelled handles the news that a requester no longer waits.
func (r *responder) cancelled(m *nats.Msg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if cancel, ok := r.open[string(m.Data)]; ok {
		delete(r.open, string(m.Data))
		cancel()
	}
}

// Close implements driver.Responder.
func (r *responder) Close(ctx context.Context) error {
	r.conn.remove(r)
	var err error
	if r.conn.state.connected() {
		// Nobody else gets the requests that the server has already sent us, so
		// they are still taken.
		for _, sub := range r.subs {
			if e := sub.Drain(); !errors.Is(e, nats.ErrBadSubscription) { // it was already closed
				err = errors.Join(err, e)
			}
		}
		err = errors.Join(err, r.conn.flush(ctx))
	}
	_ = r.cancels.Unsubscribe() // nothing to do if it is gone
	r.end()
	return err
}
