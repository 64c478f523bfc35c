package natsdriver

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A burst is a flight of messages that the server acknowledges together, once the
// last one is stored ("fast batches" of NATS 2.14). The server stores them one by
// one as they come, as if each had been sent by itself, and reports those it
// refuses. It is spared sending an answer for each message, and we are spared
// reading them.

const (
	// From this many messages on, a burst is faster than sending each by itself: it
	// has two answers.
	minBurst = 4
	// burstSuffix ends the subjects on which the server answers.
	burstSuffix = ".$FI"
	// burstSettings ask the server to report progress at most every 500 messages,
	// the largest interval it allows, and to go on after a message that it refuses.
	burstSettings = ".500.ok."
)

// The operations at the end of those subjects.
const (
	burstStart  = ".0" + burstSuffix
	burstAppend = ".1" + burstSuffix
	burstCommit = ".2" + burstSuffix // stores this message as the last one
	burstEnd    = ".3" + burstSuffix // ends with the message before; this is none
)

// The server's errors about bursts. The message is then not stored.
const (
	codeBurstDisabled = 10205
	codeBurstPattern  = 10206 // it does not accept our subjects
	codeBurstID       = 10207
	codeBurstUnknown  = 10208 // the first message was refused, or the burst took too long
	codeBurstTooMany  = 10211 // too many bursts are in progress
)

// isBurstError reports whether a message should be sent again by itself.
func isBurstError(err error) bool {
	switch apiCode(err) {
	case codeBurstDisabled, codeBurstPattern, codeBurstID, codeBurstUnknown, codeBurstTooMany:
		return true
	}
	return false
}

// bursts reports whether several messages are sent in a burst. With replicas each
// message has an ID instead, so that it can be sent again when the leader dies.
func (t *stored) bursts() bool {
	cfg := t.config.Load()
	return cfg.AllowBatchPublish && cfg.Replicas <= 1
}

// refuseBursts notes that the stream has been changed.
func (t *stored) refuseBursts() {
	cfg := *t.config.Load()
	cfg.AllowBatchPublish = false
	t.config.Store(&cfg)
}

// isBurst reports whether messages can be sent as a burst. Parcels that may be
// repeats cannot, nor can those whose place somebody wants to know: in a burst the
// server reports neither.
func (t *stored) isBurst(ps []*outMsg) bool {
	if len(ps) < minBurst || !t.bursts() {
		return false
	}
	for _, p := range ps {
		if p.placed || p.msg.Header[natsMsgID] != nil {
			return false
		}
	}
	return true
}

// launchBurst hands the messages of a burst to the client.
func (c *Conn) launchBurst(f *flight, ps []*outMsg) error {
	last := ps[len(ps)-1].msg
	f.end = burstEnding{subject: last.Subject}
	token, prefix := c.acks.expectBurst(burstWaiter{f})
	f.tokens[0] = token
	var replies strings.Builder
	replies.Grow(len(ps) * (len(prefix) + len("1000") + len(burstStart)))
	var digits [8]byte
	for i, p := range ps {
		begin := replies.Len()
		replies.WriteString(prefix)
		replies.Write(strconv.AppendInt(digits[:0], int64(i+1), 10))
		switch i {
		case 0:
			replies.WriteString(burstStart)
		case len(ps) - 1:
			replies.WriteString(burstCommit)
		default:
			replies.WriteString(burstAppend)
		}
		p.msg.Reply = replies.String()[begin:]
		if err := c.nc.PublishMsg(p.msg); err != nil {
			c.acks.forget(token)
			return err // the messages before it are sent again
		}
		p.sent++
	}
	return nil
}

// burstEnding says how to end a burst whose last message the server refused, and so
// did not end it.
type burstEnding struct {
	subject string
	sent    bool
}

// burstWaiter is told the outcome of a burst.
type burstWaiter struct{ *flight }

// acked implements waiter: the burst is over, or no more answers will come.
func (w burstWaiter) acked(_ uint64, a ack, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.errs {
		if w.errs[i] == nil && (err != nil || i >= a.Count) {
			w.errs[i] = err
			if err == nil {
				w.errs[i] = errNoAnswer // it never came
			}
		}
	}
	w.left = 0
	w.done <- struct{}{}
}

// note records the outcome of the n-th message, counted from 1, unless more is
// already known.
func (w burstWaiter) note(n uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n >= 1 && n <= uint64(len(w.errs)) && w.errs[n-1] == nil {
		w.errs[n-1] = err
	}
}

// burstAnswer is an answer of the server about a burst: the final acknowledgement,
// the refusal of one message ("err", with its number in Seq), the report that
// messages from After up to Seq did not arrive ("gap"), or progress ("ack").
type burstAnswer struct {
	Type  string              `json:"type"`
	After uint64              `json:"last_seq"`
	Seq   uint64              `json:"seq"`
	Batch string              `json:"batch"`
	Count int                 `json:"count"`
	Error *jetstream.APIError `json:"error"`
}

// expectBurst is expect for a burst. The server answers on subjects that begin with
// the prefix.
func (a *acks) expectBurst(w burstWaiter) (token uint64, prefix string) {
	token, inbox := a.enlist(w)
	return token, inbox + a.conn.ids.prefix + strconv.FormatUint(token, 36) + burstSettings
}

// readBurstSubject reads the subject of an answer to the n-th message of a burst:
// INBOX.UNIQUE-TOKEN.500.ok.N.OPERATION.$FI.
func readBurstSubject(subject string) (token, n uint64, ok bool) {
	rest := subject[:max(len(subject)-len(burstStart), 0)]
	i := strings.LastIndexByte(rest, '.')
	if i < 0 {
		return 0, 0, false
	}
	n, ok = readNumber(rest[i+1:])
	id, isBurst := strings.CutSuffix(rest[:i+1], burstSettings)
	token, err := strconv.ParseUint(id[strings.LastIndexByte(id, '-')+1:], 36, 64)
	return token, n, ok && isBurst && err == nil
}

// receiveBurst passes an answer about a burst to its waiter.
func (a *acks) receiveBurst(m *nats.Msg) {
	token, n, ok := readBurstSubject(m.Subject)
	if !ok {
		return
	}
	var said burstAnswer
	var err error
	switch {
	case len(m.Data) > 0:
		err = json.Unmarshal(m.Data, &said)
	case m.Header.Get("Status") == noResponders:
		err = nats.ErrNoResponders
	}
	if said.Type == "ack" {
		return
	}
	// The waiter can give up, and reuse the flight, only while a is unlocked.
	var end burstEnding
	a.mu.Lock()
	w, over := a.waiting[token].(burstWaiter)
	if over {
		switch over = w.told(n, &said, err); {
		case over:
			delete(a.waiting, token)
		case n == uint64(len(w.errs)) && said.Type == "" && !w.end.sent:
			// Answers about earlier messages may still be on their way.
			w.end.sent = true
			end = w.end
		}
	}
	a.mu.Unlock()
	if over {
		w.acked(token, ack{Count: said.Count}, nil)
	}
	if end.sent {
		reply := m.Subject[:len(m.Subject)-len(burstEnd)] + burstEnd
		_ = a.conn.nc.PublishRequest(end.subject, reply, nil) // if it fails, no answer comes
	}
}

// told records the server's answer to the n-th message. It reports whether that is
// the server's last answer about the burst.
func (w burstWaiter) told(n uint64, said *burstAnswer, err error) (over bool) {
	last := n == uint64(len(w.errs))
	switch {
	case err != nil:
		if !errors.Is(err, nats.ErrNoResponders) {
			err = fmt.Errorf("the server's answer: %w", err)
		}
		w.note(n, err)
		return last
	case said.Type == "err":
		if said.Error != nil {
			w.note(said.Seq, said.Error)
		}
		return false
	case said.Type == "gap":
		for i := max(said.After, 1); i < said.Seq && i <= uint64(len(w.errs)); i++ {
			w.note(i, errNoAnswer)
		}
		return false
	case said.Error != nil:
		w.note(n, said.Error)
		return last && w.end.sent
	}
	return said.Batch != ""
}
