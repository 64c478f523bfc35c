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

// Where a topic is kept is something that a client with few permissions cannot ask the
// server: whoever may see the names of streams sees those of all. A broker answers it,
// for the topics that the client may use.

// wherePrefix is to whom that is asked, with the topic behind it.
const wherePrefix = "$HARK.where."

// wherePatience is how long a broker gets to answer, if there is one.
const wherePatience = 2 * time.Second

// Whereabouts is what a broker says of a topic to a user.
type Whereabouts struct {
	// Stored says that what is published to the topic is stored.
	Stored bool `json:"stored"`
	// Whole says that the user may ask the server for the stream: nothing else is said.
	Whole bool `json:"whole,omitempty"`
	// Store is the pattern of the store that the topic is in.
	Store string `json:"store,omitempty"`
	// Config is the configuration of its stream.
	Config *jetstream.StreamConfig `json:"config,omitempty"`
}

// anyOf makes the name of a topic that matches a pattern: where one store keeps all that
// match, that is where it is.
var anyOf = strings.NewReplacer("*", "_", ">", "_")

// whereabouts asks a broker where a topic is, if the server knows who this client is, who
// may then not be permitted to ask the server. Of a pattern that is where one of its topics
// would be. It returns nil if nobody says.
func (c *Conn) whereabouts(ctx context.Context, topic string) (*Whereabouts, error) {
	if c.knowing.Load() || c.lonely.Load() || !c.nc.AuthRequired() {
		return nil, nil
	}
	wait, cancel := context.WithTimeout(ctx, wherePatience)
	defer cancel()
	subject := wherePrefix + anyOf.Replace(topic)
	asking, q := c.state.question(wait)
	asks(asking, subject)
	m, err := c.nc.RequestWithContext(asking, subject, nil)
	err = q.end(err)
	switch {
	case errors.Is(err, nats.ErrNoResponders): // there is no broker, or not yet
		return nil, nil
	case errors.Is(err, ErrNotAllowed): // the client has its rights by hand
		if !isPattern(topic) {
			c.knowing.Store(true)
		}
		return nil, nil
	case err != nil && wait.Err() != nil && ctx.Err() == nil:
		return nil, nil
	case err != nil:
		return nil, err
	}
	at := &Whereabouts{}
	if err := json.Unmarshal(m.Data, at); err != nil {
		return nil, fmt.Errorf("where topic %s is: %w", topic, err)
	}
	return at, nil
}

// served takes notice of what the server has said when no broker had answered: if it was
// an answer, no broker need be asked.
func (c *Conn) served(err error) {
	if err == nil || errors.Is(err, jetstream.ErrStreamNotFound) {
		c.lonely.Store(true)
	}
}

// again reports whether a topic is to be opened once more that the server has refused,
// because a broker may answer now: one that starts takes connections before it answers.
func (t *stored) again(refused error) bool {
	if !t.unanswered || !errors.Is(refused, nats.ErrPermissionViolation) || t.conn.knowing.Load() {
		return false
	}
	t.conn.lonely.Store(false)
	return true
}

// ask asks a broker where the topic is. It reports whether the topic is open by that.
func (t *stored) ask(ctx context.Context) (done bool, err error) {
	if t.config.Load() != nil {
		return false, nil
	}
	at, err := t.conn.whereabouts(ctx, t.topic)
	t.unanswered = at == nil
	switch {
	case at == nil:
		return false, err
	case at.Store != "":
		t.home = storeHome(at.Store)
	}
	switch {
	case at.Whole:
		return false, nil
	case !at.Stored || at.Config == nil:
		return false, fmt.Errorf("%w: topic %s: the user may use as stored topics those that the configuration of the broker declares, and this is none of them", driver.ErrUnsupported, t.topic)
	}
	t.partly = true
	t.config.Store(at.Config)
	return true, t.agrees(at.Config)
}

// whole returns an error for a user who may use only some topics of a store.
func (t *stored) whole() error {
	if !t.partly {
		return nil
	}
	return fmt.Errorf("%w: topic %s is kept in the store of %s, which the user may not read as a whole, and the server cannot let anybody read a part of it: read the topic over HTTP, or subscribe to it without Stored, to what is published from then on",
		driver.ErrUnsupported, t.topic, t.store)
}

// AnswerWhere answers what clients ask of where topics are kept, until the connection is
// closed. What answer returns for a user and a topic is what the client is told; nil for
// nothing. Answer must not trust in the user's name: clients say it themselves.
func (c *Conn) AnswerWhere(answer func(user, topic string) *Whereabouts) error {
	c.knowing.Store(true)
	_, err := c.nc.Subscribe(wherePrefix+">", func(m *nats.Msg) {
		// It answers where the user may subscribe, and nowhere else: clients say where.
		inbox, ok := strings.CutPrefix(m.Reply, InboxPrefix(""))
		user, _, _ := strings.Cut(inbox, ".")
		if !ok {
			return
		}
		at := answer(user, strings.TrimPrefix(m.Subject, wherePrefix))
		if at == nil {
			return
		}
		if data, err := json.Marshal(at); err == nil {
			_ = m.Respond(data) // who does not get it asks again
		}
	})
	return kind(err)
}

// StoreWhereabouts returns what to tell a user who may use some topics of a store.
func (c *Conn) StoreWhereabouts(ctx context.Context, pattern string) (at *Whereabouts, err error) {
	err = c.find(ctx, "store "+pattern, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, storeStream(pattern))
		if err == nil {
			at = &Whereabouts{Stored: true, Store: pattern, Config: &stream.CachedInfo().Config}
		}
		return err
	})
	return at, err
}
