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

// A server that does not permit an operation sends no answer to the request; it
// only tells the connection which subject it refused. So a caller that waits for an
// answer first registers the subjects of its requests, and is told of refusals by
// subject.

// ErrNotAllowed says that the server does not permit an operation to the user of
// the connection. The text names the subject.
var ErrNotAllowed = errors.New("the user may not do this")

// refusals passes the server's refusals to the callers waiting on those subjects.
type refusals struct {
	// known holds the subjects to which the server has refused to let the user
	// publish; nil if there are none.
	known atomic.Pointer[map[string]error]

	mu      sync.Mutex // guards waiting, and changes of known
	waiting map[string]map[*refusalWatch]struct{}
}

// maxRefused limits how many are known.
const maxRefused = 1024

// of returns the server's refusal of messages published to a subject over this
// connection, if there was one.
func (r *refusals) of(subject string) error {
	known := r.known.Load()
	if known == nil {
		return nil
	}
	return (*known)[subject]
}

func (r *refusals) forget() { r.known.Store(nil) }

// refusalWatch watches for refusals of the requests of one attempt.
type refusalWatch struct {
	of     *refusals
	cancel context.CancelFunc // ends the wait

	mu       sync.Mutex // guards the fields below
	subjects []string
	js       jetstream.JetStream
	refused  error
	over     bool
}

// refusalWatchKey is the key of the watch in the context of an attempt.
type refusalWatchKey struct{}

// watchRefusals returns a context that ends when the server refuses a request made
// in it. The watch is nil if the server would not report refusals.
func (s *state) watchRefusals(ctx context.Context) (context.Context, *refusalWatch) {
	if !s.guarded {
		return ctx, nil
	}
	return s.owned.refusals.watch(ctx)
}

func (r *refusals) watch(ctx context.Context) (context.Context, *refusalWatch) {
	w := &refusalWatch{of: r}
	ctx, w.cancel = context.WithCancel(context.WithValue(ctx, refusalWatchKey{}, w))
	return ctx, w
}

// watchSubject registers a subject: the answer to a message published to it is
// awaited next.
func watchSubject(ctx context.Context, subject string) {
	if w, ok := ctx.Value(refusalWatchKey{}).(*refusalWatch); ok {
		w.add(subject)
	}
}

func (w *refusalWatch) add(subject string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	w.subjects = append(w.subjects, subject)
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	if w.of.waiting == nil {
		w.of.waiting = map[string]map[*refusalWatch]struct{}{}
	}
	if w.of.waiting[subject] == nil {
		w.of.waiting[subject] = map[*refusalWatch]struct{}{}
	}
	w.of.waiting[subject][w] = struct{}{}
}

// end ends the wait, which failed with err if that is not nil, and returns the
// actual reason.
func (w *refusalWatch) end(err error) error {
	if w == nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.cancel()
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	for _, subject := range w.subjects {
		if delete(w.of.waiting[subject], w); len(w.of.waiting[subject]) == 0 {
			delete(w.of.waiting, subject)
		}
	}
	if err != nil && w.refused != nil {
		return fmt.Errorf("%w: %w", ErrNotAllowed, w.refused)
	}
	return err
}

// tell passes a refusal to those who wait on its subject.
func (r *refusals) tell(err error) {
	subject, ok := refusedSubject(err, "Publish to ")
	if !ok {
		return
	}
	r.mu.Lock()
	asked := make([]*refusalWatch, 0, len(r.waiting[subject]))
	for w := range r.waiting[subject] {
		asked = append(asked, w)
	}
	known := map[string]error{}
	if before := r.known.Load(); before != nil && len(*before) < maxRefused {
		maps.Copy(known, *before)
	}
	known[subject] = err
	r.known.Store(&known)
	r.mu.Unlock()
	for _, w := range asked {
		w.mu.Lock()
		w.refused = err
		w.cancel()
		w.mu.Unlock()
	}
}

// refusedSubject extracts the subject from a refusal of a given kind: Permissions
// Violation for Publish to "orders".
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

// refused returns the error for publishing to a subject without waiting for an
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

// mayAsk returns an error if the server does not let the user of a client that
// belongs to the caller publish to a subject. Such a client reports refusals to its
// caller only. But it keeps the latest error, which it gets before the answer to a
// flush. The answer to the message that mayAsk publishes is not awaited.
func (c *Conn) mayAsk(ctx context.Context, subject string) error {
	if c.owned != nil || !c.nc.AuthRequired() {
		return nil
	}
	before := c.nc.LastError()
	ctx, cancel := context.WithTimeout(ctx, detectAttempt)
	defer cancel()
	if c.nc.PublishRequest(subject, c.nc.NewInbox(), nil) != nil || c.nc.FlushWithContext(ctx) != nil {
		return nil // what comes next meets the same trouble
	}
	if said := c.nc.LastError(); said != nil && said != before {
		if refused, ok := refusedSubject(said, "Publish to "); ok && refused == subject {
			return fmt.Errorf("%w: %w", ErrNotAllowed, said)
		}
	}
	return nil
}

// Accepted flushes, and returns an error if the server has refused messages that this
// connection published to an ephemeral topic before the call, which are lost.
func (c *Conn) Accepted(ctx context.Context, topic string) error {
	if err := c.Flush(ctx); err != nil {
		return err
	}
	if c.state.guarded { // refusals may be told of after the answer to the flush
		said := c.nc.LastError()
		if said != nil {
			if subject, ok := refusedSubject(said, "Publish to "); ok && subject == topic {
				return fmt.Errorf("%w: %w", ErrNotAllowed, said)
			}
		}
	}
	return c.refused(topic)
}

// api returns JetStream for a call with this context. If the server refuses the
// request, the attempt ends.
func (c *Conn) api(ctx context.Context) jetstream.JetStream {
	w, ok := ctx.Value(refusalWatchKey{}).(*refusalWatch)
	if !ok {
		return c.js
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.js == nil {
		var err error
		if w.js, err = c.jetStream(jetstream.WithClientTrace(&jetstream.ClientTrace{
			RequestSent: func(subject string, _ []byte) { w.add(subject) }, // it is called before the request is sent
		})); err != nil {
			w.js = c.js
		}
	}
	return w.js
}

// jetStream makes a client of JetStream.
func (c *Conn) jetStream(opts ...jetstream.JetStreamOpt) (jetstream.JetStream, error) {
	var js jetstream.JetStream
	var err error
	if c.opts.domain != "" {
		js, err = jetstream.NewWithDomain(c.nc, c.opts.domain, opts...)
	} else {
		js, err = jetstream.New(c.nc, opts...)
	}
	if err != nil {
		return nil, err
	}
	return led{js}, nil
}

// permitted calls try, which subscribes to subjects, and returns an error if the
// server does not permit it, or has no room for more. The server reports that before
// it answers a flush. The client keeps only the latest error; if that is about
// something else, permitted tries again.
func (c *Conn) permitted(ctx context.Context, subjects []string, try func() error, undo func()) error {
	const attempts = 10
	for i := 1; ; i++ {
		before, accepted := c.nc.LastError(), c.limit.enter(c.nc, len(subjects))
		err := try()
		if err == nil {
			err = c.flush(ctx)
		}
		said := c.nc.LastError()
		if full := c.limit.leave(c.nc, len(subjects), accepted, before, said); full && err == nil {
			err = fmt.Errorf("%w: %w", ErrTooManySubscriptions, said)
		}
		if err == nil && (!c.state.guarded || said == nil || said == before || !errors.Is(said, nats.ErrPermissionViolation)) {
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
