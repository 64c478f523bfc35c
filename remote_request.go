package hark

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/exec"
	"github.com/harkbus/hark/internal/feed"
)

// The headers of requests and answers over an engine.
const (
	deadlineHeader = "hark-deadline" // deadline of the requester's context, in Unix nanoseconds
	errorHeader    = "hark-error"    // the text of the responder's error
	panicHeader    = "hark-panic"    // the stack, if the responder panicked
	kindHeader     = "hark-kind"     // the text of the kind of hark's error
)

// wireKinds are the kinds of errors that an answer can carry.
var wireKinds = []error{
	ErrNoResponders, ErrClosed, ErrTimeout, ErrFull, ErrWouldDeadlock, ErrTypeMismatch, ErrInvalidName, ErrInvalidOption, ErrUnsupported,
}

func (e *engine) requester() (driver.Requester, error) {
	r, ok := e.conn.(driver.Requester)
	if !ok {
		return nil, e.refuse("requests")
	}
	return r, nil
}

// requestRemote is request over an engine.
func requestRemote[Q, R any](ctx context.Context, b *Bus, name string, q Q) (r R, err error) {
	conn, err := b.engine.requester()
	if err != nil {
		return r, err
	}
	if _, err := attached[*Topic[call[Q, R]]](b, KindRequest, name); err != nil {
		return r, err // it has another type, or the bus is closing
	}
	m, err := encoded(b, &q)
	if err != nil {
		return r, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		m.Headers = map[string]string{deadlineHeader: strconv.FormatInt(deadline.UnixNano(), 10)}
	}
	a, err := conn.Request(ctx, name, m)
	if err != nil {
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		return r, engineError(err)
	}
	if text, ok := a.Headers[errorHeader]; ok {
		if stack, panicked := a.Headers[panicHeader]; panicked {
			return r, &PanicError{Value: text, Stack: []byte(stack)}
		}
		for _, kind := range wireKinds {
			if a.Headers[kindHeader] == kind.Error() {
				return r, kindError{kind, errors.New(text)}
			}
		}
		return r, errors.New(text)
	}
	if err := decodeWith(b.codecFor(reflect.TypeFor[R]()), a.Data, &r); err != nil {
		return r, fmt.Errorf("the answer: %w", err)
	}
	return r, nil
}

// encoded returns a message with the encoding of what v points to.
func encoded[V any](b *Bus, v *V) (*driver.Message, error) {
	codec := b.codecFor(reflect.TypeFor[V]())
	data, err := encodeWith(codec, v)
	if err != nil {
		return nil, err
	}
	return &driver.Message{ContentType: codec.ContentType(), Data: data}, nil
}

// respondent takes requests from an engine to the responders of this process.
type respondent[Q, R any] struct {
	*responder[Q, R]
	calls  driver.Responder
	engine *engine
	open   *openCalls
	life   context.Context // ends when no more requests are taken
	end    context.CancelFunc
	feeder exec.Feeder   // runs the pump
	feeds  bool          // the pump may run the worker
	pumped chan struct{} // closed when the pump has returned
}

// openCalls are the requests that were given to one consumer and that this
// process has not answered yet.
type openCalls struct {
	mu  sync.Mutex // guards all
	all map[*driver.Call]struct{}
}

func (o *openCalls) add(c *driver.Call) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all[c] = struct{}{}
}

// claim reports whether c is still unanswered. If so, the caller must answer
// it.
func (o *openCalls) claim(c *driver.Call) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, open := o.all[c]
	delete(o.all, c)
	return open
}

func (o *openCalls) claimAll() []*driver.Call {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := slices.Collect(maps.Keys(o.all))
	clear(o.all)
	return all
}

// replyWindow is how many requests wait between the engine and the responders
// of a process.
const replyWindow = 1024

// replyRemote starts taking requests for r.
func replyRemote[Q, R any](b *Bus, name string, r *responder[Q, R]) error {
	conn, err := b.engine.requester()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	calls, err := conn.Respond(ctx, name, replyWindow)
	if err != nil {
		return engineError(err)
	}
	p := &respondent[Q, R]{responder: r, calls: calls, engine: b.engine, open: b.engine.openCalls(&r.consumer.core), pumped: make(chan struct{})}
	p.life, p.end = context.WithCancel(context.Background())
	r.member.Subscription.impl = p
	b.engine.enlist(p)
	p.feeds = r.member.cfg.workers == 1
	p.feeder.Start(&r.member.worker.Task, p.pump)
	return nil
}

// pump takes requests until no more come. It runs the responder itself if there is only
// one worker and that sleeps; when a handler takes long, another goroutine becomes the
// pump.
func (p *respondent[Q, R]) pump() {
	mine := true
	defer func() {
		if mine {
			p.feeder.Release()
			close(p.pumped)
		}
	}()
	for {
		calls, err := p.calls.Receive(context.Background(), 64)
		if err != nil {
			return
		}
		if p.feeds {
			p.feeder.Claim()
		}
		for _, c := range calls {
			p.take(c)
		}
		mine = false // unless the handlers return
		if mine = p.feeder.Serve(); !mine {
			return
		}
	}
}

// take passes a request to the responders.
func (p *respondent[Q, R]) take(c *driver.Call) {
	q := call[Q, R]{ctx: c.Context, answer: func(a answer[R]) { p.answer(c, a) }}
	if q.ctx == nil {
		q.ctx = context.Background()
	}
	if text, ok := c.Headers[deadlineHeader]; ok {
		if at, err := strconv.ParseInt(text, 10, 64); err == nil {
			q.deadline = time.Unix(0, at)
		}
	}
	p.open.add(c)
	err := decodeWith(p.topic.core.bus.codecFor(reflect.TypeFor[Q]()), c.Data, &q.query)
	if err == nil {
		err = p.admit(q)
	}
	if err != nil {
		q.answer(answer[R]{err: err})
	}
}

// admit waits for room for a request until its requester no longer waits. Once no more
// requests are taken it does not wait, because those who would make room may be waiting
// for that.
func (p *respondent[Q, R]) admit(q call[Q, R]) error {
	e := entry[call[Q, R]]{value: q}
	for room := feed.Open; room == feed.Open; room, _ = p.topic.log.Grow() {
		if p.topic.log.TryAppend(e) {
			return nil
		}
	}
	p.feeder.Release() // somebody has to make room
	asked := q.context(context.Background())
	defer asked.end()
	wait, cancel := context.WithCancel(asked)
	defer cancel()
	defer context.AfterFunc(p.life, cancel)()
	err := p.topic.admit(wait, e, time.Time{}, &p.topic.log)
	if err != nil && wait.Err() != nil && asked.Err() == nil && p.topic.log.Force(e) {
		return nil
	}
	return err
}

// answer answers a request, unless it has already been answered.
func (p *respondent[Q, R]) answer(c *driver.Call, a answer[R]) {
	if p.open.claim(c) {
		ctx := &lazyContext{make: func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), engineTimeout)
		}}
		defer ctx.end()
		send(ctx, p.topic.core.bus, c, a)
	}
}

// send sends an answer. If the answer is too large, it sends an error instead,
// because the requester is waiting.
func send[R any](ctx context.Context, b *Bus, c *driver.Call, a answer[R]) {
	m, err := encoded(b, &a.value)
	if a.err == nil {
		a.err = err
	}
	if a.err != nil {
		m = errorAnswer(a.err)
	}
	if err := c.Answer(ctx, m); errors.Is(err, driver.ErrFull) {
		_ = c.Answer(ctx, errorAnswer(fmt.Errorf("the answer: %w", engineError(err)))) // nothing smaller can be sent
	} // after other errors the requester waits until its context ends
}

// errorAnswer returns the answer of a responder that failed.
func errorAnswer(err error) *driver.Message {
	m := &driver.Message{Headers: map[string]string{errorHeader: textOf(err)}}
	if panicked, ok := findIn[*PanicError](err); ok {
		m.Headers[errorHeader] = fmt.Sprint(panicked.Value)
		m.Headers[panicHeader] = string(panicked.Stack)
	}
	for _, kind := range wireKinds {
		if isKind(err, kind) {
			m.Headers[kindHeader] = kind.Error()
			break
		}
	}
	return m
}

// retire stops taking requests. Those that were taken are still answered.
func (p *respondent[Q, R]) retire(ctx context.Context) {
	p.end()
	p.feeder.Relieve() // the handler in which it was called, if the pump runs that
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	_ = p.calls.Close(ctx) // nothing more can be done about it
	<-p.pumped
	p.engine.discharge(p)
}

// leave answers the requests that no one will answer any more, if no other
// responder of the consumer is left. Each responder has taken its last request
// before it leaves.
func (p *respondent[Q, R]) leave() {
	c := &p.consumer.core
	if !c.over.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	p.engine.forgetCalls(c)
	p.open.abandon(ctx, c.bus)
}

// abandon answers the requests that no one will answer any more.
func (o *openCalls) abandon(ctx context.Context, b *Bus) {
	for _, c := range o.claimAll() {
		send(ctx, b, c, answer[struct{}]{err: fmt.Errorf("%w: the last responder has left", ErrNoResponders)})
	}
}

// What a respondent does for its Subscription.

func (p *respondent[Q, R]) drain(ctx context.Context) error {
	p.retire(ctx)
	err := p.responder.drain(ctx)
	p.leave()
	return err
}

func (p *respondent[Q, R]) shut() error {
	p.retire(context.Background())
	err := p.responder.shut()
	p.leave()
	return err
}

// anyRespondent is a respondent of any types.
type anyRespondent interface{ retire(ctx context.Context) }

// respondents are the respondents of a bus.
type respondents struct {
	mu   sync.Mutex // guards all
	all  map[anyRespondent]struct{}
	open map[*core]*openCalls
}

// openCalls returns the open calls of a consumer.
func (r *respondents) openCalls(c *core) *openCalls {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open = map[*core]*openCalls{}
	}
	if r.open[c] == nil {
		r.open[c] = &openCalls{all: map[*driver.Call]struct{}{}}
	}
	return r.open[c]
}

// forgetCalls removes the open calls of a consumer that has ended.
func (r *respondents) forgetCalls(c *core) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
}

func (r *respondents) enlist(p anyRespondent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[anyRespondent]struct{}{}
	}
	r.all[p] = struct{}{}
}

func (r *respondents) discharge(p anyRespondent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, p)
}

// retireAll stops all respondents from taking requests.
func (r *respondents) retireAll(ctx context.Context) {
	r.mu.Lock()
	var all []anyRespondent
	for p := range r.all {
		all = append(all, p)
	}
	r.mu.Unlock()
	for _, p := range all {
		p.retire(ctx)
	}
}

// abandonCalls answers what is left when the bus is closed, because requesters
// may be waiting for it.
func (r *respondents) abandonCalls(ctx context.Context, b *Bus) {
	r.mu.Lock()
	open := slices.Collect(maps.Values(r.open))
	r.mu.Unlock()
	for _, o := range open {
		o.abandon(ctx, b)
	}
}
