package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// maxClientMessage is how long a message of a client may be, in bytes.
const maxClientMessage = 16 << 10

// webSocket sends events as texts over a WebSocket, and reads what the client
// acknowledges, until one of both ends it.
func (c *call) webSocket(s source) error {
	up := &upgradeWriter{ResponseWriter: c.rw}
	if w, ok := s.(*follower); ok && w.hub.mark != "" {
		c.rw.Header().Set(topicMarkHeader, w.hub.mark)
		if w.seq > 0 {
			c.rw.Header().Set(nextHeader, string(appendEventID(nil, w.seq, w.hub.mark)))
		}
	}
	// Origins are checked before this, for all requests: see guard.
	conn, err := websocket.Accept(up, c.req, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return refused(max(up.status, http.StatusBadRequest), "%s", err)
	}
	c.rw.status = http.StatusSwitchingProtocols
	c.forgetHeaders()
	conn.SetReadLimit(maxClientMessage)
	ctx, cancel := context.WithCancelCause(c.ctx)
	var all sync.WaitGroup
	all.Go(func() { cancel(c.listen(ctx, conn, s)) })
	if m, ok := s.(*ackedMember); ok {
		all.Go(func() {
			if err := m.watch(ctx); err != nil {
				cancel(err)
			}
		})
	}
	err = c.speak(ctx, conn, s)
	cause := context.Cause(ctx)
	cancel(err)
	var refusal *clientFault
	switch {
	case errors.As(cause, &refusal):
		_ = conn.Close(websocket.StatusPolicyViolation, refusal.text)
	case errors.Is(context.Cause(c.ctx), ErrStopped):
		_ = conn.Close(websocket.StatusGoingAway, "the broker is stopping")
	default:
		_ = conn.CloseNow() // the client has gone, or takes nothing
	}
	all.Wait()
	if cause == nil {
		return c.ended(err)
	}
	return nil
}

// upgradeWriter lets the upgrade through, and keeps refusals from the client, which
// gets them in another form.
type upgradeWriter struct {
	http.ResponseWriter
	status int // of the refusal
}

// WriteHeader implements http.ResponseWriter.
func (w *upgradeWriter) WriteHeader(status int) {
	if status == http.StatusSwitchingProtocols {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.status = status
}

// Write implements http.ResponseWriter.
func (w *upgradeWriter) Write(text []byte) (int, error) { return len(text), nil }

// Unwrap is for http.ResponseController.
func (w *upgradeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// speak sends events. It asks now and then whether the client is there.
func (c *call) speak(ctx context.Context, conn *websocket.Conn, s source) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		p, err := s.next(ctx, beat.C)
		if err != nil {
			return err
		}
		if p.empty() {
			if err := c.within(conn.Ping); err != nil {
				return err
			}
			continue
		}
		send := func(text []byte) {
			if err == nil {
				err = c.within(func(ctx context.Context) error { return conn.Write(ctx, websocket.MessageText, text) })
			}
		}
		if p.reset {
			send(resetLine)
		}
		if p.lost > 0 {
			send(droppedLine(p.lost))
		}
		for _, f := range p.frames {
			send(f.line)
		}
		if err == nil {
			err = s.written(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// within gives a client its time to take something. It does not end with what the
// client has said: a write whose context ends closes the connection, before the
// client is told why.
func (c *call) within(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(c.ctx, c.broker.gateway.timeout)
	defer cancel()
	return f(ctx)
}

// clientFault is what a client has sent that it may not.
type clientFault struct{ text string }

// Error implements error.
func (f *clientFault) Error() string { return f.text }

// fault returns a clientFault whose text fits into a closing frame.
func fault(format string, args ...any) *clientFault {
	text := fmt.Sprintf(format, args...)
	return &clientFault{text[:min(len(text), 120)]}
}

// clientMessage is what a client says of messages, by their seq.
type clientMessage struct {
	Ack  sequences `json:"ack"`
	Nack sequences `json:"nack"`
}

// sequences is one sequence, or a list.
type sequences []uint64

// UnmarshalJSON implements json.Unmarshaler.
func (s *sequences) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '[' {
		return json.Unmarshal(text, (*[]uint64)(s))
	}
	var one uint64
	err := json.Unmarshal(text, &one)
	*s = sequences{one}
	return err
}

// listen reads what the client says.
func (c *call) listen(ctx context.Context, conn *websocket.Conn, s source) error {
	m, acks := s.(*ackedMember)
	// A read whose context ends closes the connection before the client is told
	// why, so this one ends with the connection.
	reading := context.WithoutCancel(ctx)
	for {
		kind, text, err := conn.Read(reading)
		if err != nil {
			return err
		}
		if !acks {
			return fault("nothing is to be acknowledged here")
		}
		var said clientMessage
		if err := json.Unmarshal(text, &said); kind != websocket.MessageText || err != nil {
			return fault(`want {"ack": SEQ} or {"nack": SEQ}`)
		}
		if len(said.Ack)+len(said.Nack) == 0 {
			return fault(`want {"ack": SEQ} or {"nack": SEQ}`)
		}
		if err := m.settle(ctx, said); err != nil {
			return err
		}
	}
}
