package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A server that does not permit something answers nothing to who asked; it tells the
// connection which subject it was. Who waits for an answer says first which subjects it
// asks, and hears of it by that.

// ErrNotAllowed says that the server does not permit something to the user with whose
// name the connection was made. The text names the subject.
var ErrNotAllowed = errors.New("the user may not do this")

// refusals takes what the server does not permit to who waits for that.
type refusals struct {
	// known has subjects to which the server does not let the user publish, by what it
	// said; nil if there are none.
	known atomic.Pointer[map[string]error]

	mu      sync.Mutex // guards waiting, and the change of known
	waiting map[string]map[*question]struct{}
}

// maxRefused bounds what is known.
const maxRefused = 1024

// of returns what the server has said to what was published to a subject over this
// connection, if it has refused it.
func (r *refusals) of(subject string) error {
	known := r.known.Load()
	if known == nil {
		return nil
	}
	return (*known)[subject]
}

func (r *refusals) forget() { r.known.Store(nil) }

// question is something that is waited for.
type question struct {
	of     *refusals
	cancel context.CancelFunc // ends the wait

	mu       sync.Mutex // guards what follows
	subjects []string
	js       jetstream.JetStream
	refused  error
	over     bool
}

// questionKey is how the context of an attempt has its question.
type questionKey struct{}

// question returns a context that ends when the server refuses something that is asked
// in it. It is nil where nobody would say so.
func (s *state) question(ctx context.Context) (context.Context, *question) {
	if !s.guarded {
		return ctx, nil
	}
	q := &question{of: &s.owned.refusals}
	ctx, q.cancel = context.WithCancel(context.WithValue(ctx, questionKey{}, q))
	return ctx, q
}

// asks says that the answer to what is published to a subject is waited for next.
func asks(ctx context.Context, subject string) {
	if q, ok := ctx.Value(questionKey{}).(*question); ok {
		q.asks(subject)
	}
}

func (q *question) asks(subject string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.over {
		return
	}
	q.subjects = append(q.subjects, subject)
	q.of.mu.Lock()
	defer q.of.mu.Unlock()
	if q.of.waiting == nil {
		q.of.waiting = map[string]map[*question]struct{}{}
	}
	if q.of.waiting[subject] == nil {
		q.of.waiting[subject] = map[*question]struct{}{}
	}
	q.of.waiting[subject][q] = struct{}{}
}

// end ends the wait, which ended with err, and returns why it did.
func (q *question) end(err error) error {
	if q == nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over = true
	q.cancel()
	q.of.mu.Lock()
	defer q.of.mu.Unlock()
	for _, subject := range q.subjects {
		if delete(q.of.waiting[subject], q); len(q.of.waiting[subject]) == 0 {
			delete(q.of.waiting, subject)
		}
	}
	if err != nil && q.refused != nil {
		return fmt.Errorf("%w: %w", ErrNotAllowed, q.refused)
	}
	return err
}

// tell tells who waits for a subject that the server has refused it.
func (r *refusals) tell(err error) {
	subject, ok := refusedSubject(err, "Publish to ")
	if !ok {
		return
	}
	r.mu.Lock()
	asked := make([]*question, 0, len(r.waiting[subject]))
	for q := range r.waiting[subject] {
		asked = append(asked, q)
	}
	known := map[string]error{}
	if before := r.known.Load(); before != nil && len(*before) < maxRefused {
		maps.Copy(known, *before)
	}
	known[subject] = err
	r.known.Store(&known)
	r.mu.Unlock()
	for _, q := range asked {
		q.mu.Lock()
		q.refused = err
		q.cancel()
		q.mu.Unlock()
	}
}

// refusedSubject returns the subject of what the server did not permit, if it is of that
// kind: Permissions Violation for Publish to "orders".
func refusedSubject(err error, kind string) (subject string, ok bool) {
	_, rest, ok := strings.Cut(err.Error(), kind)
	if !ok {
		return "", false
	}
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return "", false
	}
	subject, err = strconv.Unquote(quoted)
	return subject, err == nil
}

// refused returns the error for what is published to a subject without waiting for an
// answer, if the server has refused that before.
func (c *Conn) refused(subject string) error {
	if c.owned == nil {
		return nil
	}
	if said := c.owned.refusals.of(subject); said != nil {
		return fmt.Errorf("%w: %w", ErrNotAllowed, said)
	}
	return nil
}

// api returns JetStream for a call with that context: if the server refuses what is
// asked, the attempt ends.
func (c *Conn) api(ctx context.Context) jetstream.JetStream {
	q, ok := ctx.Value(questionKey{}).(*question)
	if !ok {
		return c.js
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.js == nil {
		var err error
		if q.js, err = c.jetStream(jetstream.WithClientTrace(&jetstream.ClientTrace{
			RequestSent: func(subject string, _ []byte) { q.asks(subject) }, // that is, before it is sent
		})); err != nil {
			q.js = c.js
		}
	}
	return q.js
}

// jetStream makes a client of JetStream.
func (c *Conn) jetStream(opts ...jetstream.JetStreamOpt) (jetstream.JetStream, error) {
	if c.opts.domain != "" {
		return jetstream.NewWithDomain(c.nc, c.opts.domain, opts...)
	}
	return jetstream.New(c.nc, opts...)
}

// permitted calls try, which subscribes to subjects, and returns an error if the server
// does not permit it. That says so before it answers to a flush, and the client keeps the
// last thing that was said: if that is about something else, it is tried again.
func (c *Conn) permitted(ctx context.Context, subjects []string, try func() error, undo func()) error {
	const attempts = 10
	for i := 1; ; i++ {
		var before, said error
		if c.state.guarded {
			before = c.nc.LastError()
		}
		err := try()
		if err == nil {
			err = c.Flush(ctx)
		}
		if c.state.guarded && err == nil {
			said = c.nc.LastError()
		}
		if err == nil && (said == nil || said == before || !errors.Is(said, nats.ErrPermissionViolation)) {
			return nil
		}
		if err == nil {
			if subject, ok := refusedSubject(said, "Subscription to "); ok && slices.Contains(subjects, subject) {
				err = fmt.Errorf("%w (subscribe to %s): %w", ErrNotAllowed, subjects[0], said)
			} else if i == attempts {
				return nil
			}
		}
		undo()
		if err != nil {
			return err
		}
	}
}
