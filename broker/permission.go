package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/names"
)

// permissions returns what the server lets a user do: only what is listed.
func permissions(u *UserConfig, topics []TopicConfig) (*natsserver.Permissions, error) {
	access := natsdriver.Access{User: u.Name, Publish: u.Publish, Subscribe: u.Subscribe}
	for _, t := range topics {
		// What a store says about itself names its topics, so it is for readers
		// only.
		if coversAny(u.Publish, t.Name) && !t.isStore() {
			access.Writes = append(access.Writes, t.Name)
		}
		if coversAny(u.Subscribe, t.Name) {
			access.Reads = append(access.Reads, t.Name)
		}
	}
	publish, subscribe := access.Subjects()
	deny, err := widened(subscribe)
	return &natsserver.Permissions{
		Publish:   &natsserver.SubjectPermission{Allow: publish},
		Subscribe: &natsserver.SubjectPermission{Allow: subscribe, Deny: deny},
		Response:  &natsserver.ResponsePermission{MaxMsgs: 1, Expires: 5 * time.Minute},
	}, err
}

// widened returns what must be denied to a user who may subscribe to some patterns:
// the server takes a subscription to a.> as allowed by a.*, which it is not. It
// fails if that would deny what another pattern allows.
func widened(allowed []string) (deny []string, err error) {
next:
	for _, p := range allowed {
		if p != "*" && !strings.HasSuffix(p, ".*") {
			continue
		}
		below := p + ".>"
		for _, q := range allowed {
			if names.Covers(q, below) {
				continue next
			}
		}
		for _, q := range allowed {
			if overlap(q, below) {
				return nil, fmt.Errorf("%s and %s: the server cannot permit both and nothing else below %s; use %s, or name the topics", p, q, p, strings.TrimSuffix(p, "*")+">")
			}
		}
		deny = append(deny, below)
	}
	return deny, nil
}

// coversAny reports whether one of some patterns covers a name or pattern.
func coversAny(patterns []string, narrow string) bool {
	return slices.ContainsFunc(patterns, func(wide string) bool { return names.Covers(wide, narrow) })
}

// topicLocation tells a user where a topic is kept, as far as the user may use it.
func (b *Broker) topicLocation(name, topic string) *natsdriver.TopicLocation {
	u := b.auth.users.Load().byName[name]
	if u == nil {
		return nil
	}
	everything := coversAny(u.Publish, ">")
	t := keeper(b.config.Load().Topics, topic)
	switch {
	case t == nil:
		return &natsdriver.TopicLocation{Whole: everything}
	case !t.isStore():
		return &natsdriver.TopicLocation{Whole: true}
	case everything || coversAny(u.Subscribe, t.Name):
		return &natsdriver.TopicLocation{Whole: true, Store: t.Name}
	}
	ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
	defer cancel()
	at, err := b.conn.StoreLocation(ctx, t.Name)
	if err != nil {
		b.log.Warn("a client could not be told where a topic is stored", "user", name, "topic", topic, "err", err)
		return nil
	}
	return at
}
