package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/percent"
)

const (
	// responders is the queue group of those that answer requests.
	responders = "hark"
	// A requester that no longer waits publishes the last token of the subject for
	// the answer to cancelPrefix followed by the name.
	cancelPrefix = "$HARK.cancel."
	// octetStream is the media type of data of which nothing is known.
	octetStream = "application/octet-stream"
)

// Request implements driver.Requester. If the connection is lost while it waits for
// the answer it returns at once; the request may have been handled.
func (c *Conn) Request(ctx context.Context, name string, m *driver.Message) (*driver.Message, error) {
	l := msgBuilders.Get().(*msgBuilder)
	defer msgBuilders.Put(l)
	msg, err := l.writeNoEvent(c, name, m)
	if err != nil {
		return nil, err
	}
	if c.js != nil {
		l.set(natsExpectedStream, noStream)
	}
	if err := c.fits(msg); err != nil {
		return nil, err
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
		_ = c.nc.Publish(cancelPrefix+msg.Subject, []byte(lastToken(msg.Reply))) // it only saves work
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
	r.urgent = true
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
	open map[string]context.CancelFunc // cancel unanswered calls, by the last tokens of the subjects for their answers
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
	var request driver.Received
	r.conn.decodeInto(&request, m, r.name)
	ctx, cancel := context.WithCancel(context.Background())
	id := lastToken(m.Reply)
	r.mu.Lock()
	r.open[id] = cancel
	r.mu.Unlock()
	return &driver.Call{Message: request.Message, Context: ctx, Answer: func(ctx context.Context, answer *driver.Message) error {
		r.mu.Lock()
		delete(r.open, id)
		r.mu.Unlock()
		return r.conn.answer(ctx, m.Reply, answer)
	}}
}

// writeNoEvent is write for a request or an answer, which of the envelope has the media
// type only, if that says anything.
func (l *msgBuilder) writeNoEvent(c *Conn, subject string, m *driver.Message) (*nats.Msg, error) {
	msg, err := l.write(c, subject, "", &driver.Message{Bare: true, Headers: m.Headers, Data: m.Data})
	if err == nil && m.ContentType != "" && m.ContentType != octetStream {
		l.set(ceData, percent.Encode(m.ContentType))
	}
	return msg, err
}

// answer sends an answer.
func (c *Conn) answer(ctx context.Context, subject string, m *driver.Message) error {
	l := msgBuilders.Get().(*msgBuilder)
	defer msgBuilders.Put(l)
	msg, err := l.writeNoEvent(c, subject, m)
	if err != nil {
		return err
	}
	if ofStream(msg) { // a header shows that it is an answer
		l.set(ceData, percent.Encode(m.ContentType))
	}
	if err := c.fits(msg); err != nil {
		return err
	}
	if c.state.connected() && c.nc.PublishMsg(msg) == nil {
		return nil
	}
	return c.state.do(ctx, func(context.Context) error { return c.nc.PublishMsg(msg) })
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
