package natsdriver

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"

	"github.com/nats-io/nats.go"
)

// answers takes answers to requests to who waits for them: one subscription for all of
// a connection. The client could do that, but takes the first answer that comes: where a
// stream keeps what is published to the subject, it is the stream's.
type answers struct {
	mu      sync.Mutex // guards what follows
	sub     *nats.Subscription
	inbox   string // what all subjects of answers begin with
	waiting map[string]chan *nats.Msg
}

const (
	// natsExpectedStream names the stream in which a message is to be stored.
	natsExpectedStream = "Nats-Expected-Stream"
	// noStream is the name of no stream: a request is to be stored nowhere.
	noStream = "hark-none"
)

// expect returns the subject to which the answer to a request is to go, and where it comes.
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

// close ends the subscription, if the client is the caller's.
func (a *answers) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sub != nil {
		_ = a.sub.Unsubscribe() // the client may be closed by now
	}
}

// ofStream reports whether a stream says that it has not stored a request.
func ofStream(m *nats.Msg) bool {
	const otherStream = 10060
	if len(m.Header) > 0 || !bytes.HasPrefix(m.Data, []byte(`{"error":{`)) {
		return false
	}
	var said ack
	return json.Unmarshal(m.Data, &said) == nil && said.Error != nil && said.Error.ErrorCode == otherStream
}

// askOnce sends a request and waits for the answer.
func (c *Conn) askOnce(ctx context.Context, msg *nats.Msg) (*nats.Msg, error) {
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
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
