package broker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"strings"
	"sync/atomic"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"golang.org/x/crypto/bcrypt"
)

// authenticator lets users in. It implements the server's Authentication.
type authenticator struct {
	secret   string // of the broker's own client
	users    atomic.Pointer[userList]
	checking *passwordQueue
	verified *verified
	proxy    *proxy // is told who comes; nil without a server in this process
}

// userList is the users of a configuration.
type userList struct{ byName, byToken map[string]*user }

// user is somebody who may connect.
type user struct {
	UserConfig
	permissions *natsserver.Permissions
}

// nobody has the hash of no password, so that a name that is not there takes as
// long to refuse as one that is.
var nobody = []byte("$2a$10$7EqJtq98hPqEX7fNZaFWoO5rwVt1X4JYv8QJ3r0L6m3v9yN1bX4aG")

func newAuthenticator(c *Config) *authenticator {
	a := &authenticator{secret: rand.Text(), checking: newPasswordQueue(), verified: newVerified()}
	a.set(c)
	return a
}

// set takes the users of a configuration. Those who are connected keep their
// permissions until they connect again; see Broker.Reload.
func (a *authenticator) set(c *Config) {
	all := &userList{map[string]*user{}, map[string]*user{}}
	for _, u := range c.Users {
		allowed, err := permissions(&u, c.Topics)
		if err != nil { // Validate has found it
			allowed = &natsserver.Permissions{Publish: &natsserver.SubjectPermission{Deny: []string{">"}}, Subscribe: &natsserver.SubjectPermission{Deny: []string{">"}}}
		}
		known := &user{u, allowed}
		all.byName[u.Name] = known
		if u.Token != "" {
			all.byToken[tokenHash(u.Token)] = known
		}
	}
	a.users.Store(all)
}

// Check implements the server's Authentication.
func (a *authenticator) Check(c natsserver.ClientAuthentication) bool {
	opts := c.GetOpts()
	if opts.Username == internalUser {
		if subtle.ConstantTimeCompare([]byte(opts.Password), []byte(a.secret)) != 1 {
			return false
		}
		c.RegisterUser(&natsserver.User{Username: internalUser})
		return true
	}
	address := a.proxy.addressOf(c.GetID())
	if at := c.RemoteAddress(); address == "" && at != nil { // it speaks MQTT, and has not gone
		address = at.String()
	}
	u, err := a.verify(context.Background(), address, opts.Username, opts.Password)
	if err != nil {
		a.proxy.turnAway(c.GetID())
	}
	if u == nil {
		return false
	}
	c.RegisterUser(&natsserver.User{Username: u.Name, Permissions: u.permissions})
	a.proxy.admit(c.GetID(), u)
	return true
}

// recall returns the user whose token it is, or whose password was right a while ago;
// nil if there is none, or if that has to be proven.
func (a *authenticator) recall(name, password string) *user {
	u := a.users.Load().byName[name]
	if u != nil && (a.byToken(password) == u || a.verified.has(name, password, u)) {
		return u
	}
	return nil
}

// prove returns the user with a name and a password or token, nil if there is none.
// It takes some 50 ms, and is for those whose turn it is in checking. Of many clients
// of one user that come at once only the first few are kept so long.
func (a *authenticator) prove(name, password string) *user {
	if u := a.recall(name, password); u != nil {
		return u
	}
	u := a.users.Load().byName[name]
	if !hasPassword(u, password) {
		return nil
	}
	a.verified.add(name, password, u)
	return u
}

// hasPassword reports whether a password is that of a user, who may be nil. It takes
// the same time for all.
func hasPassword(u *user, password string) bool {
	hash := nobody
	if u != nil && u.Password != "" {
		hash = []byte(u.Password)
	}
	return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil && u != nil && u.Password != ""
}

// tokenHash returns the hexadecimal digits in the Token of a UserConfig.
func tokenHash(token string) string { return strings.ToLower(strings.TrimPrefix(token, tokenPrefix)) }

// HashPassword returns what Password of a UserConfig is for a password, of at most
// 72 bytes.
func HashPassword(password []byte) (string, error) {
	hash, err := bcrypt.GenerateFromPassword(password, bcrypt.DefaultCost)
	return string(hash), err
}

// HashToken returns what Token of a UserConfig is for a token, which must be hard
// to guess: made by a machine.
func HashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return tokenPrefix + hex.EncodeToString(sum[:])
}
