package natsdriver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// A client with few permissions cannot ask the server where a topic is kept:
// whoever may see names of streams sees those of all. A broker answers instead, for
// the topics that the client may use.

// locatePrefix begins the subject on which clients ask; the topic follows.
const locatePrefix = "$HARK.where."

// locateTimeout is how long a broker has to answer, if there is one.
const locateTimeout = 2 * time.Second

// TopicLocation is what a broker tells a user about a topic.
type TopicLocation struct {
	// Stored says that messages published to the topic are stored.
	Stored bool `json:"stored"`
	// Whole says that the user may ask the server for the stream; the other fields
	// are then empty.
	Whole bool `json:"whole,omitempty"`
	// Store is the pattern of the store that holds the topic.
	Store string `json:"store,omitempty"`
	// Config is the configuration of its stream.
	Config *jetstream.StreamConfig `json:"config,omitempty"`
}

// anyOf turns a pattern into the name of a topic that matches it. Where one store
// keeps all topics that match, it keeps that one too.
var anyOf = strings.NewReplacer("*", "_", ">", "_")

// locate asks a broker where a topic is, if the server knows who this client
// is and so may not let it ask the server. For a pattern it asks where one of its
// topics would be. It returns nil if nobody answers.
func (c *Conn) locate(ctx context.Context, topic string) (*TopicLocation, error) {
	if c.locatesItself.Load() || c.noBroker.Load() || !c.nc.AuthRequired() {
		return nil, nil
	}
	wait, cancel := context.WithTimeout(ctx, locateTimeout)
	defer cancel()
	subject := locatePrefix + anyOf.Replace(topic)
	asking, w := c.state.watchRefusals(wait)
	watchSubject(asking, subject)
	m, err := c.nc.RequestWithContext(asking, subject, nil)
	err = w.end(err)
	switch {
	case errors.Is(err, nats.ErrNoResponders): // there is no broker, or none yet
		return nil, nil
	case errors.Is(err, ErrNotAllowed): // the client's permissions were written by hand
		if !isPattern(topic) {
			c.locatesItself.Store(true)
		}
		return nil, nil
	case err != nil && wait.Err() != nil && ctx.Err() == nil:
		return nil, nil
	case err != nil:
		return nil, err
	}
	at := &TopicLocation{}
	if err := json.Unmarshal(m.Data, at); err != nil {
		return nil, fmt.Errorf("where topic %s is: %w", topic, err)
	}
	return at, nil
}

// served notes the server's own answer after no broker had replied: if it was an
// answer, no broker need be asked.
func (c *Conn) served(err error) {
	if err == nil || errors.Is(err, jetstream.ErrStreamNotFound) {
		c.noBroker.Store(true)
	}
}

// again reports whether to try again to open a topic that the server refused,
// because a broker may answer by then: a starting broker accepts connections before
// it answers.
func (t *stored) again(refused error) bool {
	if !t.unanswered || !errors.Is(refused, nats.ErrPermissionViolation) || t.conn.locatesItself.Load() {
		return false
	}
	t.conn.noBroker.Store(false)
	return true
}

// ask asks a broker where the topic is. It reports whether that was enough to open
// the topic.
func (t *stored) ask(ctx context.Context) (done bool, err error) {
	if t.config.Load() != nil {
		return false, nil
	}
	at, err := t.conn.locate(ctx, t.topic)
	t.unanswered = at == nil
	switch {
	case at == nil:
		return false, err
	case at.Store != "":
		t.backing = storeBacking(at.Store)
	}
	switch {
	case at.Whole:
		return false, nil
	case !at.Stored || at.Config == nil:
		return false, fmt.Errorf("%w: topic %s: the configuration of the broker does not declare this topic, and the user may use only declared topics as stored topics", driver.ErrUnsupported, t.topic)
	}
	t.partly = true
	t.config.Store(at.Config)
	return true, t.agrees(at.Config)
}

// whole returns an error if the user may use only some topics of a store.
func (t *stored) whole() error {
	if !t.partly {
		return nil
	}
	return fmt.Errorf("%w: topic %s is in the store of %s, which the user may not read as a whole, and the server cannot permit reading a part of it; read the topic over HTTP, or subscribe without Stored to get what is published from now on",
		driver.ErrUnsupported, t.topic, t.store)
}

// ServeLocations answers clients that ask where topics are kept, until the connection
// is closed. Answer returns what to tell a user about a topic; nil for nothing. It
// must not trust the user's name, which the client itself supplies.
func (c *Conn) ServeLocations(answer func(user, topic string) *TopicLocation) error {
	c.locatesItself.Store(true)
	_, err := c.nc.Subscribe(locatePrefix+">", func(m *nats.Msg) {
		// Answer only on subjects that the user may subscribe to: the client
		// chooses the reply subject.
		inbox, ok := strings.CutPrefix(m.Reply, InboxPrefix(""))
		user, _, _ := strings.Cut(inbox, ".")
		if !ok {
			return
		}
		at := answer(user, strings.TrimPrefix(m.Subject, locatePrefix))
		if at == nil {
			return
		}
		if data, err := json.Marshal(at); err == nil {
			_ = m.Respond(data) // if it is lost, the client asks again
		}
	})
	return kind(err)
}

// StoreLocation returns what to tell a user who may use some topics of a store.
func (c *Conn) StoreLocation(ctx context.Context, pattern string) (at *TopicLocation, err error) {
	err = c.find(ctx, "store "+pattern, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, storeStream(pattern))
		if err == nil {
			at = &TopicLocation{Stored: true, Store: pattern, Config: &stream.CachedInfo().Config}
		}
		return err
	})
	return at, err
}
