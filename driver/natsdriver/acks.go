package natsdriver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// acks passes the server's answers to stored messages to those who wait for them,
// over one subscription for the whole connection.
type acks struct {
	conn *Conn

	mu      sync.Mutex // guards the fields below
	sub     *nats.Subscription
	inbox   string // prefix of all answer subjects
	last    uint64
	waiting map[uint64]waiter
	closed  bool
}

// waiter is told once what became of the messages it sent: an acknowledgement, or
// an error. It must not block.
type waiter interface {
	acked(token uint64, a ack, err error)
}

// ack is an acknowledgement by the server.
type ack struct {
	Seq       uint64              `json:"seq"`
	Duplicate bool                `json:"duplicate"`
	Batch     string              `json:"batch"`
	Count     int                 `json:"count"`
	Error     *jetstream.APIError `json:"error"`
}

// errNoAnswer says that it is not known whether the server has stored a message.
var errNoAnswer = errors.New("the server did not answer")

func (a *acks) init(c *Conn) {
	a.conn, a.waiting = c, map[uint64]waiter{}
	c.state.mu.Lock()
	c.state.lossListeners[a] = struct{}{}
	c.state.mu.Unlock()
}

// start subscribes, unless it already has.
func (a *acks) start(ctx context.Context) error {
	a.mu.Lock()
	started := a.sub != nil
	a.mu.Unlock()
	if started {
		return nil
	}
	inbox := a.conn.nc.NewInbox() + "."
	sub, err := a.conn.nc.Subscribe(inbox+">", a.receive)
	if err != nil {
		return kind(err)
	}
	if err = sub.SetPendingLimits(-1, -1); err != nil {
		return kind(err)
	}
	a.mu.Lock()
	if a.sub != nil {
		a.mu.Unlock()
		return sub.Unsubscribe()
	}
	a.sub, a.inbox = sub, inbox
	a.mu.Unlock()
	return a.conn.flush(ctx)
}

// expect returns the subject on which the server is to answer w.
func (a *acks) expect(w waiter) (token uint64, reply string) {
	token, inbox := a.enlist(w)
	var digits [16]byte
	return token, inbox + ackToken + string(strconv.AppendUint(digits[:0], token, 36))
}

// expectAgain is expect for a message that is sent again; first is the subject with
// which it was sent first.
func (a *acks) expectAgain(w waiter, first string) (token uint64, reply string) {
	token, _ = a.enlist(w)
	return token, first + againMark + strconv.FormatUint(token, 36)
}

// enlist makes a token for w, and returns the prefix of the subjects of its
// answers.
func (a *acks) enlist(w waiter) (token uint64, inbox string) {
	a.mu.Lock()
	a.last++
	token, inbox = a.last, a.inbox
	closed := a.closed
	if !closed {
		a.waiting[token] = w
	}
	a.mu.Unlock()
	if closed {
		w.acked(token, ack{}, errConnClosed)
	}
	return token, inbox
}

// forget stops waiting for an answer. It reports whether none had come; in that
// case the waiter is not told.
func (a *acks) forget(token uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, waits := a.waiting[token]
	delete(a.waiting, token)
	return waits
}

func (a *acks) receive(m *nats.Msg) {
	if strings.HasSuffix(m.Subject, burstSuffix) {
		a.receiveBurst(m)
		return
	}
	digits, ok := strings.CutPrefix(lastToken(m.Subject), ackToken)
	token, err := strconv.ParseUint(digits[strings.Index(digits, againMark)+1:], 36, 64)
	if !ok || err != nil { // somebody else's
		return
	}
	a.mu.Lock()
	w := a.waiting[token]
	delete(a.waiting, token)
	a.mu.Unlock()
	if w != nil {
		got, err := readAck(m)
		w.acked(token, got, err)
	}
}

// noResponders is the status of a message that nobody receives.
const noResponders = "503"

func readAck(m *nats.Msg) (ack, error) {
	var a ack
	if len(m.Data) == 0 {
		if m.Header.Get("Status") == noResponders {
			return a, nats.ErrNoResponders
		}
		return a, nil // the start of a batch
	}
	if seq, ok := plainAck(m.Data); ok {
		return ack{Seq: seq}, nil
	}
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return a, fmt.Errorf("the server's answer: %w", err)
	}
	if a.Error != nil {
		return a, a.Error
	}
	return a, nil
}

// plainAck reads an acknowledgement that holds only where a message is stored, as
// nearly all do, such as {"stream":"orders","seq":7}. It reports whether the text
// is one.
func plainAck(text []byte) (seq uint64, ok bool) {
	const name, number = `{"stream":"`, `","seq":`
	if !bytes.HasPrefix(text, []byte(name)) {
		return 0, false
	}
	_, digits, ok := bytes.Cut(text[len(name):], []byte(number))
	if !ok || len(digits) < 2 || digits[len(digits)-1] != '}' {
		return 0, false
	}
	return readNumber(digits[:len(digits)-1])
}

// readNumber reads a decimal number of at most 19 digits.
func readNumber[S string | []byte](digits S) (n uint64, ok bool) {
	if len(digits) == 0 || len(digits) > 19 {
		return 0, false
	}
	for i := range len(digits) {
		c := digits[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = 10*n + uint64(c)
	}
	return n, true
}

// lost tells all waiters that their answers may be lost.
func (a *acks) lost() { a.end(errNoAnswer) }

func (a *acks) end(err error) {
	a.mu.Lock()
	waiting := a.waiting
	a.waiting = map[uint64]waiter{}
	a.mu.Unlock()
	for token, w := range waiting {
		w.acked(token, ack{}, err)
	}
}

// close ends all waits.
func (a *acks) close() {
	c := a.conn
	c.state.mu.Lock()
	delete(c.state.lossListeners, a)
	c.state.mu.Unlock()
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.end(errConnClosed)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sub != nil && c.owned == nil {
		_ = a.sub.Unsubscribe() // the client may be closed by now
	}
}

// fits returns an error if a message is larger than the server accepts.
func (c *Conn) fits(m *nats.Msg) error {
	size, most := m.Size()-len(m.Subject)-len(m.Reply), int64(c.info.MaxPayload)
	if most > 0 && int64(size) > most {
		return fmt.Errorf("%w: the message has %d bytes with its headers, and the server accepts at most %d (max_payload in its configuration)", driver.ErrTooLarge, size, most)
	}
	return nil
}

// sendable returns an error if a message cannot be sent.
func (c *Conn) sendable(topic string, m *driver.Message) error {
	if c.surelyFits(topic, m) {
		return nil
	}
	l := msgBuilders.Get().(*msgBuilder)
	defer msgBuilders.Put(l)
	_, err := l.writeFitting(c, topic, m)
	return err
}

// surelyFits reports whether a message fits, without building the message that is
// sent. The message must have no headers of its own, since some of them cannot be
// sent.
func (c *Conn) surelyFits(topic string, m *driver.Message) bool {
	const others = 1024 // header names, times and other parts of fixed size
	// Each byte may be encoded as three.
	size := len(m.Data) + 3*(len(topic)+len(m.ID)+len(m.Key)+len(m.ContentType)+len(c.opts.source)) + others
	return len(m.Headers) == 0 && size <= int(c.info.MaxPayload)
}
