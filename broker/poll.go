package broker

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// nextHeader says where on a stored topic the next poll goes on.
const nextHeader = "Hark-Next"

// topicMarkHeader says what a client of a WebSocket puts behind the sequence that it has had, and
// a dot, to resume on that topic and none that is created again.
const topicMarkHeader = "Hark-Mark"

// poll waits for events, and answers with those that are there then, one a line.
func (c *call) poll(s source) error {
	wait := time.NewTimer(c.duration("wait"))
	defer wait.Stop()
	p, err := s.next(c.ctx, wait.C)
	if errors.Is(err, errTopicReplaced) { // the next poll finds that
		p, err = frameBatch{}, nil
	}
	if err != nil {
		if errors.Is(context.Cause(c.ctx), ErrStopped) {
			return refused(http.StatusServiceUnavailable, "the broker is stopping")
		}
		return err
	}
	w := newDeadlineWriter(c)
	defer w.close()
	h := c.rw.Header()
	h.Set("Content-Type", ndjsonType)
	h.Set("Cache-Control", "no-store")
	if p.next > 0 {
		h.Set(nextHeader, string(appendEventID(nil, p.next, p.mark)))
	}
	if p.reset {
		w.write(resetLine)
		w.write(newline)
	}
	if p.lost > 0 {
		w.write(append(droppedLine(p.lost), '\n'))
	}
	for _, f := range p.frames {
		w.write(f.line)
		w.write(newline)
	}
	if w.flush(); w.err != nil {
		return nil // what was not written is not acknowledged
	}
	if err := s.written(c.ctx); err != nil {
		return c.ended(err)
	}
	return nil
}

var newline = []byte("\n")
