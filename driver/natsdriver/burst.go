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

// A burst is what a flight is called whose messages the server acknowledges
// together, once the last is stored ("fast batches" of NATS 2.14). It stores them
// one by one as they come, as if they had been sent each by itself, and says which
// it refuses; what it is spared is an answer for each, and what we are is reading
// them.

const (
	// From so many messages on a burst is quicker than sending each by itself: it
	// has two answers.
	minBurst = 4
	// burstSuffix ends the subjects to which the server answers.
	burstSuffix = ".$FI"
	// burstSettings ask for word of how far the server is no more often than every
	// 500 messages, which is the most, and to go on behind a message that it
	// refuses.
	burstSettings = ".500.ok."
)

// The operations that end those subjects.
const (
	burstStart  = ".0" + burstSuffix
	burstAppend = ".1" + burstSuffix
	burstCommit = ".2" + burstSuffix // with this message, the last
	burstEnd    = ".3" + burstSuffix // with the message before; this is none
)

// The server's errors about bursts: then the message is not stored.
const (
	codeBurstDisabled = 10205
	codeBurstPattern  = 10206 // it does not like our subjects
	codeBurstID       = 10207
	codeBurstUnknown  = 10208 // the first message was refused, or the burst took too long
	codeBurstTooMany  = 10211 // too many bursts are on their way
)

// isBurstError reports whether a message is to be sent by itself.
func isBurstError(err error) bool {
	switch apiCode(err) {
	case codeBurstDisabled, codeBurstPattern, codeBurstID, codeBurstUnknown, codeBurstTooMany:
		return true
	}
	return false
}

// bursts reports whether messages are sent in bursts if there are several. With
// replicas each has an ID instead, so that it can be sent again when the leader
// dies.
func (t *stored) bursts() bool {
	cfg := t.config.Load()
	return cfg.AllowBatchPublish && cfg.Replicas <= 1
}

// refuseBursts takes notice that the stream has been changed.
func (t *stored) refuseBursts() {
	cfg := *t.config.Load()
	cfg.AllowBatchPublish = false
	t.config.Store(&cfg)
}

// isBurst reports whether parcels make a burst. Those that may be repeats and those
// of which somebody wants to know where they are do not: of them the server says
// nothing.
func (t *stored) isBurst(ps []*parcel) bool {
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
func (c *Conn) launchBurst(f *flight, ps []*parcel) error {
	last := ps[len(ps)-1].msg
	f.end = burstEnding{subject: last.Subject}
	token, prefix := c.acks.expectBurst(burstSeat{f})
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
			return err // those before it are sent again
		}
		p.sent++
	}
	return nil
}

// burstEnding is how to end a burst whose last message the server did not take, and
// ended nothing with.
type burstEnding struct {
	subject string
	sent    bool
}

// burstSeat is told what became of a burst.
type burstSeat struct{ *flight }

// acked implements waiter: the server has said all that it says, or nothing more
// will come.
func (s burstSeat) acked(_ uint64, a ack, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.errs {
		if s.errs[i] == nil && (err != nil || i >= a.Count) {
			s.errs[i] = err
			if err == nil {
				s.errs[i] = errNoAnswer // it never came
			}
		}
	}
	s.left = 0
	s.done <- struct{}{}
}

// note takes down what became of the n-th message, counted from 1, unless more is
// known.
func (s burstSeat) note(n uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n >= 1 && n <= uint64(len(s.errs)) && s.errs[n-1] == nil {
		s.errs[n-1] = err
	}
}

// burstAnswer is what the server says of a burst: its acknowledgement, that of one
// message which it did not take ("err", with its number in Seq), that messages from
// After up to Seq did not come ("gap"), or how far it is ("ack").
type burstAnswer struct {
	Type  string              `json:"type"`
	After uint64              `json:"last_seq"`
	Seq   uint64              `json:"seq"`
	Batch string              `json:"batch"`
	Count int                 `json:"count"`
	Error *jetstream.APIError `json:"error"`
}

// expectBurst is expect for a burst. The subjects to which the server is to answer
// begin with the prefix.
func (a *acks) expectBurst(w burstSeat) (token uint64, prefix string) {
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

// receiveBurst takes an answer to a burst to who waits for it.
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
	// Who waits can give up, and use the flight again, only while a is not locked.
	var end burstEnding
	a.mu.Lock()
	w, over := a.waiting[token].(burstSeat)
	if over {
		switch over = w.told(n, &said, err); {
		case over:
			delete(a.waiting, token)
		case n == uint64(len(w.errs)) && said.Type == "" && !w.end.sent:
			// What it says of those before may still be to come.
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
		_ = a.conn.nc.PublishRequest(end.subject, reply, nil) // or no answer comes
	}
}

// told takes down what the server says in answer to the n-th message. It reports
// whether that is the last that it says of the burst.
func (s burstSeat) told(n uint64, said *burstAnswer, err error) (over bool) {
	last := n == uint64(len(s.errs))
	switch {
	case err != nil:
		if !errors.Is(err, nats.ErrNoResponders) {
			err = fmt.Errorf("the server's answer: %w", err)
		}
		s.note(n, err)
		return last
	case said.Type == "err":
		if said.Error != nil {
			s.note(said.Seq, said.Error)
		}
		return false
	case said.Type == "gap":
		for i := max(said.After, 1); i < said.Seq && i <= uint64(len(s.errs)); i++ {
			s.note(i, errNoAnswer)
		}
		return false
	case said.Error != nil:
		s.note(n, said.Error)
		return last && s.end.sent
	}
	return said.Batch != ""
}
