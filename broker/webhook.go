package broker

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/filter"
	"github.com/harkbus/hark/internal/names"
	"github.com/harkbus/hark/internal/percent"
)

// webhook sends messages to a receiver. Retries, backoff and dead letters are those
// of a subscription of package hark.
type webhook struct {
	config  WebhookConfig
	log     *slog.Logger
	url     *url.URL
	headers http.Header
	keys    [][]byte
	client  *http.Client
	durable bool // what it sends is stored, and a group keeps its place
	placed  bool // the group was made for it, by a reload
	bus     *hark.Bus
	sub     *hark.Subscription
	source  string // of events that have none

	gone atomic.Bool // the receiver has said that it is not there any more

	mu   sync.Mutex // guards what follows
	busy int        // requests that are under way
	idle chan struct{}
	last string // why the last request failed; empty if it did not
}

// newWebhook returns a webhook that sends nothing yet.
func newWebhook(c WebhookConfig, source string, log *slog.Logger) (w *webhook, err error) {
	w = &webhook{config: c, source: source, log: log.With("webhook", c.Name)}
	if w.url, err = c.target(); err != nil {
		return nil, err
	}
	if w.headers, err = c.headers(); err != nil {
		return nil, err
	}
	if w.keys, err = c.secrets(); err != nil {
		return nil, err
	}
	w.client = newWebhookClient(&c)
	return w, nil
}

// newWebhookClient returns a client that goes to where it is told and nowhere else:
// it follows no redirect, asks no proxy, and looks at the address that a name stands
// for when it connects.
func newWebhookClient(c *WebhookConfig) *http.Client {
	dialer := &net.Dialer{Timeout: c.Timeout}
	if !c.Private {
		dialer.Control = func(_, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			if !isPublic(at.Addr()) {
				return errors.New(targetFault(at.Addr()))
			}
			return nil
		}
	}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: c.Timeout, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: int(c.Workers), MaxConnsPerHost: int(c.Workers), IdleConnTimeout: time.Minute,
			MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
		},
	}
}

// subscribe begins to send. Requests begin when sub is set, which an answer may pause.
func (w *webhook) subscribe() (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &w.config
	opts := []hark.SubscribeOption{
		hark.Group(webhookGroup(c.Name)), hark.Workers(int(c.Workers)), hark.MaxAttempts(int(c.Attempts)),
		hark.Backoff(hark.BackoffPolicy{Min: c.BackoffMin, Max: c.BackoffMax}), hark.Timeout(c.Timeout),
	}
	dead := c.deadLetter()
	switch dead {
	case "":
	case off:
		opts = append(opts, hark.NoDeadLetter())
	default:
		opts = append(opts, hark.DeadLetter(dead))
	}
	if c.Where != "" {
		f, err := filter.Compile(c.Where)
		if err != nil {
			return err
		}
		opts = append(opts, hark.Where(attributeFilter{f}))
	}
	if w.durable && c.Position == positionStart {
		opts = append(opts, hark.FromStart())
	}
	if names.IsPattern(c.From) {
		opts = append(opts, hark.Where(takenFrom{c.From, dead}))
		if w.durable {
			opts = append(opts, hark.Durable())
		}
		w.sub, err = hark.SubscribePattern(w.bus, c.From, w.handle, opts...)
		return err
	}
	var topicOpts []hark.TopicOption
	if w.durable {
		topicOpts = append(topicOpts, hark.Stored(hark.Retention{})) // as it is there
	}
	topic, err := hark.NewTopic[[]byte](w.bus, c.From, topicOpts...)
	if err == nil {
		w.sub, err = topic.Subscribe(w.handle, opts...)
	}
	return err
}

// takenFrom is what a webhook takes of what matches its pattern: not everything, and nothing
// that it has given up itself.
type takenFrom struct{ pattern, dead string }

// Match implements hark.Predicate.
func (t takenFrom) Match(e hark.Envelope) bool {
	return takes(t.pattern, e.Topic()) && e.Topic() != t.dead
}

// attributeFilter is a filter that sees the attributes of CloudEvents, as those of
// routes do.
type attributeFilter struct{ f *filter.Filter }

// Match implements hark.Predicate.
func (a attributeFilter) Match(e hark.Envelope) bool { return a.f.Match(attributeView{e}) }

// attributeView is a message of package hark with the attributes of its CloudEvent.
type attributeView struct{ hark.Envelope }

// Source implements hark.Envelope.
func (v attributeView) Source() string { return v.attribute("source") }

// Type implements hark.Envelope.
func (v attributeView) Type() string { return v.attribute("type") }

// Subject implements hark.Envelope.
func (v attributeView) Subject() string { return v.attribute("subject") }

func (v attributeView) attribute(name string) string {
	if s, ok := v.Header(name); ok {
		return s
	}
	s, _ := v.Header(cePrefix + name)
	return s
}

// handle sends a message once.
func (w *webhook) handle(ctx context.Context, m *hark.Message[[]byte]) error {
	w.begin()
	defer w.end()
	err := w.send(ctx, m)
	text := ""
	if err != nil {
		err = receiverError{err}
		text = err.Error()
	}
	w.mu.Lock()
	w.last = text
	w.mu.Unlock()
	return err
}

func (w *webhook) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy++
}

func (w *webhook) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy--; w.busy == 0 && w.idle != nil {
		close(w.idle)
		w.idle = nil
	}
}

// send makes a request of a message, and reads from the answer what becomes of it.
func (w *webhook) send(ctx context.Context, m *hark.Message[[]byte]) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url.String(), bytes.NewReader(m.Value))
	if err != nil {
		return err
	}
	w.describe(req.Header, m)
	w.sign(req.Header, messageID(m), time.Now(), m.Value)
	res, err := w.client.Do(req)
	if err != nil {
		var at *url.Error
		if errors.As(err, &at) {
			err = at.Err // without the URL, in which there may be a token
		}
		return err
	}
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBody)) // for people
	_ = res.Body.Close()
	return w.verdict(res, body)
}

// maxErrorBody is how much of an answer is read, in bytes.
const maxErrorBody = 512

// describe gives a request the attributes of the event, as the HTTP binding of
// CloudEvents has them, and what hark says of it.
func (w *webhook) describe(h http.Header, m *hark.Message[[]byte]) {
	h.Set("User-Agent", "hark")
	maps.Copy(h, w.headers)
	attributes := map[string]string{"specversion": "1.0", "id": m.ID(), "source": w.source, "type": m.Topic()}
	if m.ID() == "" {
		attributes["id"] = messageID(m)
	}
	if at := m.Time(); !at.IsZero() {
		attributes["time"] = at.UTC().Format(time.RFC3339Nano)
	}
	if key := m.Key(); key != "" {
		attributes["partitionkey"] = key
	}
	for name, value := range m.Headers() {
		if attribute, ok := strings.CutPrefix(name, cePrefix); ok && isAttributeName(attribute) {
			attributes[attribute] = value
		} else if !strings.HasPrefix(strings.ToLower(name), "hark-") && isToken(name) {
			h.Set(headerPrefix+name, percent.Encode(value))
		}
	}
	for name, value := range attributes {
		h.Set(cePrefix+name, percent.Encode(value))
	}
	if typ := m.ContentType(); typ != "" {
		h.Set("Content-Type", percent.Encode(typ))
		if isHeaderValue(typ) {
			h.Set("Content-Type", typ)
		}
	}
	h.Set("Hark-Topic", percent.Encode(m.Topic()))
	if seq := m.Seq(); seq > 0 {
		h.Set("Hark-Seq", strconv.FormatUint(seq, 10))
	}
	h.Set("Hark-Attempt", strconv.Itoa(m.Attempt()))
}

// isToken reports whether a name can be that of a header.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

func isHeaderValue(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f }) < 0
}

// messageID returns what identifies a message to receivers, the same for each attempt. The
// time tells apart messages of a topic that was created again and counts from 1 again.
func messageID(m *hark.Message[[]byte]) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%d\n%s", m.Topic(), m.Seq(), m.ID())
	if m.Seq() > 0 || m.ID() == "" {
		fmt.Fprintf(sum, "\n%d\n", m.Time().UnixNano())
	}
	if m.Seq() == 0 && m.ID() == "" {
		sum.Write(m.Value)
	}
	return "msg_" + hex.EncodeToString(sum.Sum(nil)[:16])
}

// sign signs a request as Standard Webhooks has it: with HMAC-SHA256 over its ID, the
// time and the body, once for each key.
func (w *webhook) sign(h http.Header, id string, at time.Time, body []byte) {
	seconds := strconv.FormatInt(at.Unix(), 10)
	var signatures []string
	for _, key := range w.keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + seconds + "."))
		mac.Write(body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", seconds)
	h.Set("Webhook-Signature", strings.Join(signatures, " "))
}

// maxRetryAfter is how long a receiver may put a message off.
const maxRetryAfter = time.Hour

// verdict says what becomes of a message by the answer: see docs/gateway.md.
func (w *webhook) verdict(res *http.Response, body []byte) error {
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return nil
	}
	err := fmt.Errorf("the receiver answered %s", res.Status)
	if len(bytes.TrimSpace(body)) > 0 {
		err = fmt.Errorf("%w: %s", err, body)
	}
	switch res.StatusCode {
	case http.StatusGone:
		w.disable("the receiver answered 410 Gone")
		return hark.RetryAfter(w.config.BackoffMax, err)
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return hark.Reject(err) // it says so of this message, and would again
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return fmt.Errorf("%w: it redirects to another address, which is not followed; put the new address into the configuration", err)
	}
	if d, ok := retryAfter(res.Header.Get("Retry-After"), time.Now()); ok {
		return hark.RetryAfter(min(d, maxRetryAfter), err)
	}
	return err
}

// retryAfter reads the header: seconds, or a date.
func retryAfter(s string, now time.Time) (time.Duration, bool) {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	at, err := http.ParseTime(s)
	return max(at.Sub(now), 0), err == nil
}

// receiverError is an error in whose text the receiver has a part, which may be anything:
// it becomes one short line, for people to read.
type receiverError struct{ cause error }

// maxReceiverError is how long that line is at most, in bytes.
const maxReceiverError = 1024

func (e receiverError) Error() string {
	text := e.cause.Error()
	text = strings.ToValidUTF8(text[:min(len(text), maxReceiverError)], "?")
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

func (e receiverError) Unwrap() error { return e.cause }

// disable sends nothing more until enable is called, or the broker starts again.
// Messages of a stored topic wait.
func (w *webhook) disable(why string) {
	if !w.gone.Swap(true) {
		w.log.Error("a webhook was disabled; messages of stored topics wait until it is enabled", "why", why)
	}
	w.sub.Pause()
}

func (w *webhook) enable() {
	w.gone.Store(false)
	w.sub.Resume()
}

// stop sends nothing more. Requests that are under way may end until wait does; what
// they carry is sent again otherwise.
func (w *webhook) stop(ctx, wait context.Context) error {
	w.sub.Pause()
	w.mu.Lock()
	idle := w.idle
	if w.busy > 0 && idle == nil {
		idle = make(chan struct{})
		w.idle = idle
	}
	w.mu.Unlock()
	if idle != nil {
		select {
		case <-idle:
		case <-wait.Done():
		}
	}
	err := errors.Join(w.sub.Close(), w.bus.Close(ctx))
	w.client.CloseIdleConnections()
	return err
}

// webhookGroup is the group that keeps the place of a webhook on a stored topic.
func webhookGroup(name string) string { return "webhook-" + name }
