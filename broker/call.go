package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// callTimeout is how long a call that is no stream may take, including its
	// body and its answer.
	callTimeout = 30 * time.Second
	// writeTimeout is how much longer writing its answer may take.
	writeTimeout = 30 * time.Second
)

// call is a request to an endpoint. Its parameters have been validated, and the
// caller is permitted to make it.
type call struct {
	arguments
	broker   *Broker
	endpoint *endpoint
	who      *principal
	ctx      context.Context // ends with the context of the request, or after callTimeout
	end      func(error)     // ends ctx; nil unless it is a stream
	rw       *responseWriter
	req      *http.Request
	last     string      // see endpointHandler
	given    [2]argument // room for the arguments of most calls
	room     [192]byte   // for a short answer
}

// responseWriter records whether an answer has begun.
type responseWriter struct {
	http.ResponseWriter
	status int // 0 until then
}

// WriteHeader implements http.ResponseWriter.
func (w *responseWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *responseWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets a handler flush, change deadlines or take over the connection through
// http.ResponseController.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// served is a call with its parts, in one allocation.
type served struct {
	call call
	rw   responseWriter
	ctx  callContext
}

// serveEndpoint returns the handler of an endpoint.
func (w *webServer) serveEndpoint(e *endpoint) endpointHandler {
	counts := &endpointMetrics{all: w.metrics, name: e.name}
	return func(rw http.ResponseWriter, r *http.Request, last string) {
		began := time.Now()
		s := &served{rw: responseWriter{ResponseWriter: rw}, ctx: callContext{request: r.Context(), deadline: began.Add(callTimeout)}}
		defer func() { counts.observe(s.rw.status, time.Since(began)) }()
		c := &s.call
		*c = call{broker: w.broker, endpoint: e, ctx: &s.ctx, rw: &s.rw, req: r, last: last}
		if e.stream {
			defer w.stream(c)()
		} else {
			defer s.ctx.end()
		}
		c.limitBody()
		defer c.recover()
		if err := c.run(); err != nil {
			c.fail(err)
		}
	}
}

// stream lifts the deadlines of a call that goes on until somebody ends it: for
// reading not before its body is there. It sets the context of the call, which ends
// when the broker stops, and returns what is to be called at the end.
func (w *webServer) stream(c *call) func() {
	_ = http.NewResponseController(c.rw).SetWriteDeadline(time.Time{}) // where deadlines are supported
	if c.endpoint.body == nil {
		c.readToEnd()
	}
	ctx, cancel := context.WithCancelCause(c.req.Context())
	w.streaming.Add(1)
	stop := context.AfterFunc(w.streams, func() { cancel(ErrStopped) })
	c.ctx, c.end = ctx, cancel
	return func() { stop(); cancel(nil); w.streaming.Done() }
}

// readToEnd lifts the deadline for reading: all of the request is there.
func (c *call) readToEnd() {
	_ = http.NewResponseController(c.rw).SetReadDeadline(time.Time{}) // where deadlines are supported
}

// limitBody limits how much of the body the handler can read. net/http reads no
// more than the request announces.
func (c *call) limitBody() {
	most := int64(0)
	if c.endpoint.body != nil {
		most = c.endpoint.body.limit
	}
	if n := c.req.ContentLength; n < 0 || n > most {
		c.req.Body = http.MaxBytesReader(c.rw, c.req.Body, most)
	}
}

// run authenticates the caller, reads the parameters, and calls the handler.
func (c *call) run() (err error) {
	e := c.endpoint
	if !e.access.public {
		if c.who, err = c.broker.auth.identify(c.req); err != nil {
			return err
		}
	}
	if err := c.checkRate(); err != nil {
		return err
	}
	if c.arguments, err = e.read(c.req, c.last, c.given[:0]); err != nil {
		return err
	}
	if !e.access.allowed(c) {
		return refused(http.StatusForbidden, "user %s may not do this", c.who.who()).
			but("this needs %s: see the keys publish, subscribe and admin of the user in the configuration", e.access.doc)
	}
	if err := c.checkEncoding(); err != nil {
		return err
	}
	if e.stream && c.who != nil {
		if err := c.broker.web.admit(c); err != nil {
			return err
		}
		defer c.broker.web.leave(c)
	}
	return e.handle(c)
}

// checkEncoding refuses a body that would have to be decompressed: as it is it is not
// what the client means, and some kilobytes can become any size.
func (c *call) checkEncoding() error {
	encoding := strings.Join(c.req.Header["Content-Encoding"], ", ")
	if c.endpoint.body == nil || encoding == "" || strings.EqualFold(encoding, "identity") {
		return nil
	}
	c.rw.Header().Set("Accept-Encoding", "identity")
	return refused(http.StatusUnsupportedMediaType, "the body has the encoding %q, which the broker does not decode", encoding).but("send it without Content-Encoding")
}

// checkRate counts the call, and refuses it if the caller sends too many.
func (c *call) checkRate() error {
	rates := c.broker.web.rates
	if rates.most == 0 {
		return nil
	}
	who := sender(c.who, c.req)
	wait, ok := rates.take(who)
	if ok {
		return nil
	}
	c.rw.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
	return refused(http.StatusTooManyRequests, "too many requests of %s", who).but("the broker takes %d a second (limits.http_rate)", int64(rates.most))
}

// fail answers with an error. If an answer has begun it cuts the connection
// instead, so that the client does not take the answer for complete.
func (c *call) fail(err error) {
	r, known := refusalOf(err)
	log := c.broker.log.With("part", "http", "method", c.req.Method, "path", c.req.URL.Path)
	if !known {
		log.Error("a request failed", "err", err)
	}
	if c.rw.status != 0 {
		log.Warn("an answer was interrupted", "err", err)
		panic(http.ErrAbortHandler)
	}
	if r.Status == http.StatusUnauthorized {
		c.rw.Header().Set("WWW-Authenticate", challenge)
	}
	if r.Status == http.StatusServiceUnavailable {
		c.rw.Header().Set("Retry-After", "1")
	}
	r.write(c.rw)
}

// recover answers for a handler that has panicked.
func (c *call) recover() {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler { //nolint:errorlint // it is that very value
		panic(p)
	}
	c.broker.log.Error("an HTTP handler panicked", "part", "http", "method", c.req.Method, "path", c.req.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	c.fail(refused(http.StatusInternalServerError, "the broker has failed").but("its log says why"))
}

// decode decodes a JSON body into a value. It refuses unknown members.
func (c *call) decode(into any) error {
	if err := c.checkMedia("application/json"); err != nil {
		return err
	}
	text, err := io.ReadAll(c.req.Body)
	if err != nil {
		return bodyError(err)
	}
	if c.endpoint.stream {
		c.readToEnd()
	}
	if len(bytes.TrimSpace(text)) == 0 {
		if c.endpoint.body.optional {
			return nil
		}
		return refused(http.StatusBadRequest, "the body is missing: want JSON")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return refused(http.StatusBadRequest, "the body: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if dec.More() {
		return refused(http.StatusBadRequest, "the body has further text after the JSON")
	}
	return nil
}

// checkMedia refuses a body of another media type. A body without a type is
// accepted.
func (c *call) checkMedia(want ...string) error {
	given := c.req.Header.Get("Content-Type")
	media, _, err := mime.ParseMediaType(given)
	if given == "" || err == nil && slices.Contains(want, media) {
		return nil
	}
	return refused(http.StatusUnsupportedMediaType, "the body has type %q, want %s", given, strings.Join(want, " or "))
}

// The values of headers that most answers have. net/http copies them.
var (
	noStore    = []string{"no-store"}
	noSniff    = []string{"nosniff"}
	isJSONType = []string{jsonType}
)

// reply answers with the endpoint's success status and v as JSON, unless v is nil.
func (c *call) reply(v any) error { return c.replyWith(c.endpoint.success(), v) }

// replyWith is reply with another success status.
func (c *call) replyWith(status int, v any) error {
	if v == nil {
		c.answer(status, nil)
		return nil
	}
	text, err := appendJSONLine(nil, v)
	if err != nil {
		return err
	}
	c.answer(status, text)
	return nil
}

// appendJSONLine appends v as JSON, and the end of the line. Unlike json.Marshal it
// leaves the characters <, > and & as they are: people read patterns such as
// orders.>, and no browser takes the answer for HTML, because of its media type and
// nosniff.
func appendJSONLine(dst []byte, v any) ([]byte, error) {
	text := bytes.NewBuffer(dst)
	enc := json.NewEncoder(text)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return text.Bytes(), err
}

// answer answers with JSON text, if there is any.
func (c *call) answer(status int, text []byte) {
	h := c.rw.Header()
	h["Cache-Control"], h["X-Content-Type-Options"] = noStore, noSniff
	if text != nil {
		h["Content-Type"] = isJSONType
	}
	c.rw.WriteHeader(status)
	if text != nil {
		_, _ = c.rw.Write(text) // the client may have gone
	}
}
