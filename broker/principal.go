package broker

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/harkbus/hark/internal/names"
)

// principal is the sender of an HTTP request. The nil principal belongs to a broker
// without users, and may do everything.
type principal struct{ user *user }

// who returns the name of the user, or "" without users.
func (p *principal) who() string {
	if p == nil {
		return ""
	}
	return p.user.Name
}

// mayPublish reports whether the principal may publish to a topic, and send
// requests to it.
func (p *principal) mayPublish(topic string) bool {
	return p == nil || coveredBy(p.user.Publish, topic)
}

// maySubscribe reports whether the principal may subscribe to a topic, or to all
// topics that match a pattern.
func (p *principal) maySubscribe(topicOrPattern string) bool {
	return p == nil || coveredBy(p.user.Subscribe, topicOrPattern)
}

// mayAdminister reports whether the principal may change a topic, or all topics
// that match a pattern; > is the broker as a whole.
func (p *principal) mayAdminister(topicOrPattern string) bool {
	return p == nil || coveredBy(p.user.Admin, topicOrPattern)
}

// coveredBy reports whether one of the patterns covers a topic or a pattern. No
// pattern covers names for replies.
func coveredBy(patterns []string, topicOrPattern string) bool {
	if isReply(topicOrPattern) {
		return false
	}
	for _, p := range patterns {
		if names.Covers(p, topicOrPattern) {
			return true
		}
	}
	return false
}

// challenge asks for credentials. It does not offer Basic, although that is
// accepted: a browser would remember the password, and send it along with requests
// of foreign pages.
const challenge = `Bearer realm="hark"`

// identify returns the sender of a request: the nil principal on a broker without
// users, otherwise the user in the header Authorization, with a name and a password
// or token (Basic), or with a token alone (Bearer).
func (a *authenticator) identify(r *http.Request) (*principal, error) {
	if a == nil {
		return nil, nil
	}
	scheme, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		if u := a.byToken(strings.TrimSpace(credentials)); u != nil {
			return &principal{u}, nil
		}
	case strings.EqualFold(scheme, "Basic"):
		name, password, ok := r.BasicAuth()
		if !ok {
			break
		}
		u, err := a.verify(r.Context(), r.RemoteAddr, name, password)
		if err != nil {
			return nil, err
		}
		if u != nil {
			return &principal{u}, nil
		}
	default:
		return nil, refused(http.StatusUnauthorized, "this broker has users, and the request has no credentials").
			but("send Authorization: Bearer TOKEN, or Basic with name and password or token; hark user makes a token")
	}
	return nil, refused(http.StatusUnauthorized, "the broker knows no user with these credentials")
}

// byToken returns the user with a token, or nil if there is none. Tokens are looked
// up by hash, so that the time this takes reveals nothing about them.
func (a *authenticator) byToken(token string) *user {
	sum := sha256.Sum256([]byte(token))
	return a.users.Load().byToken[hex.EncodeToString(sum[:])]
}

const (
	// verifiedFor is how long a verified password need not be checked again, and
	// maxVerified how many are remembered.
	verifiedFor = time.Minute
	maxVerified = 4096
)

// verify returns the user with a name and a password or token, or nil if there is
// none, or errBusyChecking. The address is that of the client.
func (a *authenticator) verify(ctx context.Context, address, name, password string) (*user, error) {
	if u := a.recall(name, password); u != nil {
		return u, nil
	}
	key := passwordKey{hostOf(address), a.verified.mark(name, password)}
	return a.checking.do(ctx, key, func() *user { return a.prove(name, password) })
}

func errBusyChecking() error {
	return refused(http.StatusServiceUnavailable, "too many passwords are waiting to be checked").but("try again in a moment; tokens are checked at once")
}

// verified remembers verified passwords, as hashes with a key of this process.
type verified struct {
	key []byte

	mu   sync.Mutex // guards seen
	seen map[[sha256.Size]byte]verification
}

type verification struct {
	user  *user // as configured then: a later configuration has another one
	until time.Time
}

func newVerified() *verified {
	return &verified{key: []byte(rand.Text()), seen: map[[sha256.Size]byte]verification{}}
}

// mark returns the hash by which a password is remembered.
func (v *verified) mark(name, password string) (mark [sha256.Size]byte) {
	h := hmac.New(sha256.New, v.key)
	h.Write([]byte(name + ":" + password)) // a name contains no colon
	h.Sum(mark[:0])
	return mark
}

func (v *verified) has(name, password string, u *user) bool {
	mark := v.mark(name, password)
	v.mu.Lock()
	defer v.mu.Unlock()
	found, ok := v.seen[mark]
	return ok && found.user == u && time.Now().Before(found.until)
}

func (v *verified) add(name, password string, u *user) {
	mark := v.mark(name, password)
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.seen) >= maxVerified {
		clear(v.seen) // they will be checked again
	}
	v.seen[mark] = verification{u, time.Now().Add(verifiedFor)}
}
