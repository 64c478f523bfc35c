package natsdriver

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"

	"github.com/nats-io/nats.go"
)

// answers passes answers to the requests that wait for them, over one subscription
// for the whole connection. The NATS client offers that too, but takes the first
// answer that comes; where a stream keeps what is published to the subject, that
// one is the stream's.
type answers struct {
	mu      sync.Mutex // guards the fields below
	sub     *nats.Subscription
	inbox   string // prefix of all answer subjects
	waiting map[string]chan *nats.Msg
}

const (
	// natsExpectedStream names the stream that is to store a message.
	natsExpectedStream = "Nats-Expected-Stream"
	// noStream is the name of no stream, so that no stream stores a request.
	noStream = "hark-none"
)

// expect returns the subject for the answer to a request, and the channel on which
// it arrives.
func (a *answers) expect(c *Conn, token string) (reply string, answer chan *nats.Msg, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sub == nil {
		inbox := c.nc.NewInbox() + "."
		sub, err := c.nc.Subscribe(inbox+"*", a.receive)
		if err != nil {
			return "", nil, err
		}
		a.sub, a.inbox, a.waiting = sub, inbox, map[string]chan *nats.Msg{}
	}
	answer = make(chan *nats.Msg, 1)
	reply = a.inbox + token
	a.waiting[reply] = answer
	return reply, answer, nil
}

func (a *answers) forget(reply string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, reply)
}

func (a *answers) receive(m *nats.Msg) {
	if ofStream(m) {
		return
	}
	a.mu.Lock()
	answer := a.waiting[m.Subject]
	delete(a.waiting, m.Subject)
	a.mu.Unlock()
	if answer != nil {
		answer <- m
	}
}

// close ends the subscription, which matters if the client belongs to the caller.
func (a *answers) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sub != nil {
		_ = a.sub.Unsubscribe() // the client may be closed by now
	}
}

// ofStream reports whether an answer is a stream's refusal to store a request.
func ofStream(m *nats.Msg) bool {
	const otherStream = 10060
	if len(m.Header) > 0 || !bytes.HasPrefix(m.Data, []byte(`{"error":{`)) {
		return false
	}
	var said ack
	return json.Unmarshal(m.Data, &said) == nil && said.Error != nil && said.Error.ErrorCode == otherStream
}

// askOnce sends a request and waits for the answer, at most until the connection is
// lost.
func (c *Conn) askOnce(ctx context.Context, msg *nats.Msg) (*nats.Msg, error) {
	live := c.state.present()
	reply, answer, err := c.answers.expect(c, c.ids.next())
	if err != nil {
		return nil, err
	}
	defer c.answers.forget(reply)
	msg.Reply = reply
	if err := c.nc.PublishMsg(msg); err != nil {
		return nil, err
	}
	select {
	case m := <-answer:
		if len(m.Data) == 0 && m.Header.Get("Status") == noResponders {
			return nil, nats.ErrNoResponders
		}
		return m, nil
	case <-live.Done():
		return nil, errUnanswered
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
