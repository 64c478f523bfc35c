package broker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// sse sends events as server-sent events, until the client or the broker ends it.
func (c *call) sse(s source) error {
	w := newDeadlineWriter(c)
	defer w.close()
	h := c.rw.Header()
	h.Set("Content-Type", sseType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies are not to gather them
	c.rw.WriteHeader(http.StatusOK)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	// The client knows by this that it has begun, and how soon to come again.
	w.write([]byte("retry: 1000\n: it begins\n\n"))
	for {
		if w.flush(); w.err != nil {
			return nil // the client has gone, or is too slow
		}
		p, err := s.next(c.ctx, beat.C)
		if err != nil {
			return c.ended(err)
		}
		if p.empty() {
			w.write([]byte(":\n\n"))
			continue
		}
		if p.reset {
			w.write(fmt.Appendf(nil, "event: reset\ndata: %s\n\n", resetLine))
		}
		if p.lost > 0 {
			w.write(fmt.Appendf(nil, "event: dropped\ndata: %s\n\n", droppedLine(p.lost)))
		}
		for _, f := range p.frames {
			w.write(f.event)
		}
		if w.flush(); w.err != nil {
			return nil
		}
		if err := s.written(c.ctx); err != nil {
			return c.ended(err)
		}
	}
}

// ended says why a stream has ended, if that is worth saying: an answer has begun,
// so that nobody can be told but the log.
func (c *call) ended(err error) error {
	if c.ctx.Err() == nil && !errors.Is(err, errTopicReplaced) {
		c.broker.log.Warn("a stream ended with an error", "part", "gateway", "topic", c.text("topic"), "err", err)
	}
	return nil
}

// resetLine tells a client that what comes is of a topic that was created again.
var resetLine = []byte(`{"reset":true}`)

// droppedLine tells a client how many events it has missed.
func droppedLine(n uint64) []byte { return fmt.Appendf(nil, `{"dropped":%d}`, n) }

// deadlineWriter writes an answer to a client that has to take it in time, and at
// most until the call ends.
type deadlineWriter struct {
	rw      http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	dirty   bool // something has been written since flush
	err     error
	stop    func() bool

	mu    sync.Mutex // held while deadlines are set
	over  bool
	until time.Time // the deadline
}

func newDeadlineWriter(c *call) *deadlineWriter {
	w := &deadlineWriter{rw: c.rw, control: http.NewResponseController(c.rw), timeout: c.broker.gateway.timeout}
	w.stop = context.AfterFunc(c.ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.over = true
		_ = w.control.SetWriteDeadline(time.Now()) // so that a write that waits ends
	})
	return w
}

// close leaves the connection to others.
func (w *deadlineWriter) close() { w.stop() }

func (w *deadlineWriter) write(text []byte) {
	if w.err == nil && !w.dirty {
		w.dirty, w.err = true, w.begin()
	}
	if w.err == nil {
		_, w.err = w.rw.Write(text)
	}
}

// begin gives the client its time for what is written now, or up to a quarter more, so
// that not every write has to set a deadline.
func (w *deadlineWriter) begin() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return ErrStopped
	}
	now := time.Now()
	if w.until.Sub(now) >= w.timeout {
		return nil
	}
	w.until = now.Add(w.timeout + w.timeout/4)
	return w.control.SetWriteDeadline(w.until)
}

func (w *deadlineWriter) flush() {
	if w.err == nil && w.dirty {
		w.err = w.control.Flush()
	}
	w.dirty = false
}
