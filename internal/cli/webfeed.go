package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/harkbus/hark/broker"
	"github.com/harkbus/hark/driver"
)

// webFeed follows a topic or pattern over the HTTP API of a broker. The broker
// applies the filter, so messages that do not match are not sent. A connection that
// breaks is restored; on a stored topic it goes on after the last message received.
type webFeed struct {
	admin *admin // for its place and its HTTP client
	path  string
	query url.Values
	acks  bool // messages with a sequence must be acknowledged

	messages chan webMessage
	failed   error // why messages was closed; nil while it is open

	// The fields below belong to the goroutine that dials and reads.
	stored bool   // as far as is known
	last   uint64 // the last sequence received; 0 in a group
	mark   string // mark of the topic it belongs to; empty if the broker sends none

	over   context.Context // ends when Close is called
	finish context.CancelFunc
	done   sync.WaitGroup

	mu   sync.Mutex // guards conn
	conn *websocket.Conn
}

// webMessage is one item sent by a broker.
type webMessage struct {
	*driver.Received
	note string // for the user; there is no message then
}

const (
	// minReconnectPause is the first pause before a lost connection is restored,
	// and maxReconnectPause the longest.
	minReconnectPause = 100 * time.Millisecond
	maxReconnectPause = 5 * time.Second
	// pingInterval is how often the broker is pinged, and pingTimeout how long it has to
	// answer.
	pingInterval = 20 * time.Second
	pingTimeout  = 10 * time.Second
)

var (
	// errNoBroker says that no broker answers at a place.
	errNoBroker = errors.New("no HTTP API of a hark broker found")
	// errUnreadable says that the broker has sent something that is not an event.
	errUnreadable = errors.New("the broker sent something that is not an event")
)

// openWebFeed starts to follow. It takes the pattern, the filter and the start from
// l. An error that wraps errNoBroker says that no broker is there; starting says
// that one may be there soon.
func openWebFeed(ctx context.Context, a *admin, l *listening, starting bool) (*webFeed, error) {
	query, window := url.Values{"where": {l.filter}, "from": {webFrom(&l.config)}}, l.config.Window
	if l.config.Group != "" {
		if l.count > 0 {
			window = min(window, l.count) // leave the others to the group
		}
		query.Set("group", l.config.Group)
		query.Set("window", strconv.Itoa(window))
		query.Set("keyed", strconv.FormatBool(l.config.Keyed))
		query.Set("ack_wait", "1h") // the longest: whoever reads what is printed may be slow
	}
	f := &webFeed{
		admin: a, path: "/v1/topics/" + url.PathEscape(l.pattern) + "/events", query: query, acks: l.config.Group != "",
		messages: make(chan webMessage, window),
	}
	f.over, f.finish = context.WithCancel(context.Background())
	wait, cancel := context.WithTimeoutCause(ctx, connectTimeout, errSilent)
	defer cancel()
	w := waitFor(wait, a.notes, a.place.HTTP)
	var err error
	if starting {
		err = w.attempts(wait, func() error { return f.dial(wait) })
	} else {
		err = f.dial(wait)
	}
	w.end()
	if err != nil {
		f.finish()
		switch {
		case errors.Is(context.Cause(ctx), errTimeout):
			return nil, noConnection(a.place.HTTP, context.Cause(ctx))
		case ctx.Err() != nil:
			return nil, fmt.Errorf("connect to %s: %w", a.place.HTTP, context.Cause(ctx))
		}
		return nil, err
	}
	f.done.Go(func() {
		f.failed = f.run()
		close(f.messages)
	})
	return f, nil
}

// webFrom returns where to begin, in the form of the API.
func webFrom(c *driver.SubscribeConfig) string {
	switch c.From {
	case driver.FromStart:
		return "start"
	case driver.FromSeq:
		return strconv.FormatUint(c.Seq, 10)
	case driver.FromLast:
		return "last:" + strconv.FormatUint(c.Seq, 10)
	case driver.FromTime:
		return c.Time.UTC().Format(time.RFC3339Nano)
	}
	return "now"
}

// dial opens a connection.
func (f *webFeed) dial(ctx context.Context) error {
	r, err := f.admin.place.request(ctx, http.MethodGet, f.path+"?"+f.query.Encode())
	if err != nil {
		return err
	}
	if f.last > 0 {
		last := strconv.FormatUint(f.last, 10)
		if f.mark != "" {
			last += "." + f.mark
		}
		r.Header.Set("Last-Event-ID", last)
	}
	conn, res, err := websocket.Dial(ctx, r.URL.String(), &websocket.DialOptions{HTTPClient: f.admin.http, HTTPHeader: r.Header})
	if err != nil {
		if res == nil || ctx.Err() != nil {
			return fmt.Errorf("%w at %s: %w", errNoBroker, f.admin.place.HTTP, advised(err))
		}
		var r *refusal
		if err := f.admin.refusal(res); errors.As(err, &r) {
			return err
		}
		return fmt.Errorf("%w at %s, which answered %s", errNoBroker, f.admin.place.HTTP, res.Status)
	}
	f.mark = res.Header.Get("Hark-Mark")
	if begins := res.Header.Get("Hark-Next"); begins != "" && !f.stored {
		f.stored = true
		f.query.Set("from", begins) // when it dials again, "now" would be elsewhere
	}
	conn.SetReadLimit(-1) // the broker limits the size of messages
	f.mu.Lock()
	f.conn = conn
	f.mu.Unlock()
	if f.over.Err() != nil { // Close was called meanwhile
		_ = conn.CloseNow()
	}
	return nil
}

// run reads what the broker sends, until Close or a refusal, which it returns.
func (f *webFeed) run() error {
	pause := minReconnectPause
	for {
		received, err := f.read()
		if f.over.Err() != nil {
			return driver.ErrEnded
		}
		switch {
		case errors.Is(err, errUnreadable):
			return err
		case websocket.CloseStatus(err) == websocket.StatusPolicyViolation:
			return fmt.Errorf("the broker closed the connection: %w", err)
		case received:
			pause = minReconnectPause
		}
		var said websocket.CloseError
		if errors.As(err, &said) && said.Reason != "" {
			err = errors.New(said.Reason)
		}
		f.hand(webMessage{note: lost(f.admin.place.HTTP, err, time.Time{})})
		for again := true; again; pause = min(2*pause, maxReconnectPause) {
			select {
			case <-time.After(pause):
			case <-f.over.Done():
				return driver.ErrEnded
			}
			if again, err = f.redial(); err != nil {
				return err
			}
		}
		again := "connected to " + f.admin.place.HTTP + " again"
		if !f.stored {
			again += "; what was published meanwhile is lost"
		}
		f.hand(webMessage{note: again})
	}
}

// hand passes an item to Receive, unless the feed is closed.
func (f *webFeed) hand(m webMessage) {
	select {
	case f.messages <- m:
	case <-f.over.Done():
	}
}

// redial tries once to restore the connection. It returns the error of a refusal
// that would be the same the next time.
func (f *webFeed) redial() (again bool, err error) {
	ctx, cancel := context.WithTimeout(f.over, connectTimeout)
	defer cancel()
	err = f.dial(ctx)
	if err == nil {
		return false, nil
	}
	var r *refusal
	if errors.As(err, &r) && r.Status < 500 && r.Status != http.StatusTooManyRequests {
		return false, err
	}
	return true, nil
}

// read reads messages from the connection until it is lost, while beat pings the
// broker.
func (f *webFeed) read() (received bool, err error) {
	f.mu.Lock()
	conn := f.conn
	f.mu.Unlock()
	reading, cancel := context.WithCancel(context.Background())
	var beat sync.WaitGroup
	beat.Go(func() { f.beat(reading, conn) })
	defer beat.Wait()
	defer cancel()
	// If the context of a read ended, the connection would close before Close has
	// sent the acknowledgements, so reads end only with the connection.
	for {
		_, text, err := conn.Read(context.Background())
		if err != nil {
			return received, err
		}
		received = true
		m, err := webMessageOf(text)
		if err != nil {
			_ = conn.CloseNow()
			return received, err
		}
		f.hand(m)
		if m.Received != nil && m.Seq > 0 {
			if f.stored = true; !f.acks {
				f.last = m.Seq
			}
		}
	}
}

// beat pings the broker, and closes the connection if it does not answer.
func (f *webFeed) beat(ctx context.Context, conn *websocket.Conn) {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		wait, cancel := context.WithTimeout(ctx, pingTimeout)
		err := conn.Ping(wait)
		cancel()
		// While the buffer for messages is full, the answer is not read either.
		if err != nil && len(f.messages) < cap(f.messages) {
			_ = conn.CloseNow()
			return
		}
	}
}

// webMessageOf decodes an item sent by a broker.
func webMessageOf(text []byte) (webMessage, error) {
	var said struct {
		Version string `json:"specversion"`
		Dropped uint64
		Reset   bool
	}
	e := &broker.Event{}
	err := json.Unmarshal(text, &said)
	switch {
	case err == nil && said.Version == "" && said.Dropped > 0:
		return webMessage{note: plural(int(said.Dropped), "message was", "messages were") + " missed, because they came faster than they were taken"}, nil
	case err == nil && said.Version == "" && said.Reset:
		return webMessage{note: "the topic was created again meanwhile: what follows is all that it has"}, nil
	case err == nil:
		err = json.Unmarshal(text, e)
	}
	if err != nil {
		return webMessage{}, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return webMessage{Received: e.Message}, nil
}

// Receive is like that of driver.Subscription.
func (f *webFeed) Receive(ctx context.Context, most int) (ms []*driver.Received, err error) {
	take := func(m webMessage, open bool) {
		switch {
		case !open:
			err = f.failed
		case m.Received != nil:
			ms = append(ms, m.Received)
		default:
			note(f.admin.notes, "%s", m.note)
		}
	}
	for len(ms) == 0 && err == nil {
		select {
		case m, open := <-f.messages:
			take(m, open)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	for len(ms) > 0 && len(ms) < most && err == nil {
		select {
		case m, open := <-f.messages:
			take(m, open)
			continue
		default:
		}
		break
	}
	if len(ms) > 0 {
		return ms, nil // the next call returns why there are no more
	}
	return nil, err
}

// Ack is like that of driver.Subscription. If the connection is lost,
// unacknowledged messages come again.
func (f *webFeed) Ack(ctx context.Context, ms []*driver.Received) error {
	var said struct {
		Ack []uint64 `json:"ack"`
	}
	for _, m := range ms {
		if m.Seq > 0 {
			said.Ack = append(said.Ack, m.Seq)
		}
	}
	if len(said.Ack) == 0 {
		return nil
	}
	text, err := json.Marshal(said)
	if err != nil {
		return err
	}
	f.mu.Lock()
	conn := f.conn
	f.mu.Unlock()
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), pingTimeout)
	defer cancel()
	_ = conn.Write(wait, websocket.MessageText, text)
	return ctx.Err()
}

// Close ends the feed, once the broker has received the acknowledgements.
func (f *webFeed) Close(context.Context) error {
	f.finish()
	f.mu.Lock()
	conn := f.conn
	f.mu.Unlock()
	_ = conn.Close(websocket.StatusNormalClosure, "") // if it was lost, there is nothing to say
	f.done.Wait()
	f.admin.http.CloseIdleConnections()
	return nil
}
