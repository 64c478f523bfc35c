package broker

import (
	"fmt"
	"strings"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/names"
)

// permissions returns what the server lets a user do: nothing but what is listed.
func permissions(u *UserConfig, topics []TopicConfig) (*natsserver.Permissions, error) {
	access := natsdriver.Access{User: u.Name, Publish: u.Publish, Subscribe: u.Subscribe}
	for _, t := range topics {
		if matchesAny(u.Publish, t.Name) {
			access.Writes = append(access.Writes, t.Name)
		}
		if matchesAny(u.Subscribe, t.Name) {
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

// widened returns what must be denied to somebody who may subscribe to some
// patterns, because the server takes a subscription to a.> for one that a.*
// allows, which it is not. It fails where that would deny what another pattern
// allows.
func widened(allowed []string) (deny []string, err error) {
next:
	for _, p := range allowed {
		if p != "*" && !strings.HasSuffix(p, ".*") {
			continue
		}
		below := p + ".>"
		for _, q := range allowed {
			if covers(q, below) {
				continue next
			}
		}
		for _, q := range allowed {
			if overlap(q, below) {
				return nil, fmt.Errorf("%s and %s: the server cannot allow both and nothing else below %s; say %s, or name the topics", p, q, p, strings.TrimSuffix(p, "*")+">")
			}
		}
		deny = append(deny, below)
	}
	return deny, nil
}

// covers reports whether a pattern matches all names that another one matches.
func covers(wide, narrow string) bool {
	for {
		w, restW, moreW := strings.Cut(wide, ".")
		n, restN, moreN := strings.Cut(narrow, ".")
		if w == ">" {
			return true
		}
		if n == ">" || w != "*" && w != n {
			return false
		}
		if !moreW || !moreN {
			return moreW == moreN
		}
		wide, narrow = restW, restN
	}
}

func matchesAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if names.Match(p, name) {
			return true
		}
	}
	return false
}
