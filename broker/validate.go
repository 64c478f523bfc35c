package broker

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/harkbus/hark/internal/names"
)

// maxMessage is the size of the largest message that the server accepts.
const maxMessage = 64 << 20

// Validate returns everything that is wrong with a configuration as Problems, or
// nil. It looks up host names and reads the TLS files.
func (c *Config) Validate() error { return c.validate().asError() }

// validate checks everything.
func (c *Config) validate() (ps Problems) {
	bad := func(key, format string, args ...any) { ps = append(ps, c.problem(key, format, args...)) }
	c.validateSettings(bad)
	c.validateCluster(bad)
	c.validateExposure(bad)
	c.validateUsers(bad)
	c.validateTopics(bad)
	_, problems := newRouter(c)
	ps = append(ps, c.validateWebhooks(bad)...)
	return append(ps, problems...)
}

// report records what is wrong with a key.
type report func(key, format string, args ...any)

func (c *Config) validateSettings(bad report) {
	switch {
	case c.Data == "":
		bad("data", "want a directory")
	case strings.HasPrefix(c.Data, "~"):
		bad("data", "got %q; only shells expand ~, so write the whole path", c.Data)
	}
	if _, _, err := splitAddress(c.Listen); err != nil {
		bad("listen", "%s", err)
	}
	if c.HTTP != off {
		if _, _, err := splitAddress(c.HTTP); err != nil {
			bad("http", "%s; or off", err)
		}
	}
	for key, address := range map[string]string{"mqtt.listen": c.MQTT.Listen, "websocket.listen": c.WebSocket.Listen} {
		if _, _, err := splitAddress(address); err != nil && address != off {
			bad(key, "%s; or off", err)
		}
	}
	if c.Name == "" || strings.ContainsAny(c.Name, " \t\r\n") {
		bad("name", "want text without white space")
	}
	if c.StopTimeout <= 0 {
		bad("stop_timeout", "must be above 0")
	}
	if c.MaxHops < 1 {
		bad("max_hops", "must be at least 1")
	}
	if c.Limits.Message < 1024 || c.Limits.Message > maxMessage {
		bad("limits.message", "must be between 1KiB and 64MiB")
	}
	if c.Limits.Connections < 1 {
		bad("limits.connections", "must be at least 1")
	}
	if c.Limits.Subscriptions < 1 {
		bad("limits.subscriptions", "must be at least 1")
	}
	if c.Limits.HTTPConnections < 1 {
		bad("limits.http_connections", "must be at least 1")
	}
	if c.Limits.Rate > 0 && c.MQTT.Listen != off {
		bad("limits.rate", "does not apply to MQTT clients; remove limits.rate or mqtt.listen")
	}
	for _, h := range c.Web.Hosts {
		if h != "*" && (h != strings.ToLower(h) || strings.ContainsAny(h, "/:* ")) {
			bad("web.hosts", "got %q, want a name such as broker.example in lower case, without a port, or *", h)
		}
	}
	for _, o := range c.Web.Origins {
		if o != "*" && !isOrigin(o) {
			bad("web.origins", "got %q, want an origin such as https://app.example in lower case, without a path, or *", o)
		}
	}
	if c.Limits.Pending < c.Limits.Message {
		bad("limits.pending", "must be at least limits.message")
	}
	switch {
	case c.TLS.Cert == "" && (c.TLS.Key != "" || c.TLS.ClientCA != ""):
		bad("tls.cert", "is missing")
	case c.TLS.Cert != "" && c.TLS.Key == "":
		bad("tls.key", "is missing")
	case c.TLS.Cert != "":
		if _, err := c.TLS.load(); err != nil {
			bad("tls", "%s", err)
		}
	}
}

// splitAddress parses HOST:PORT.
func splitAddress(address string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		if _, portErr := net.LookupPort("tcp", address); portErr == nil && address != "" {
			return "", "", fmt.Errorf("got %q, want HOST:PORT; did you mean 127.0.0.1:%s?", address, address)
		}
		return "", "", fmt.Errorf("got %q, want HOST:PORT such as 127.0.0.1:7422", address)
	}
	return host, port, nil
}

// exposed begins the errors about unprotected addresses.
const exposed = "other machines reach"

// validateExposure refuses unprotected addresses that other machines can reach.
func (c *Config) validateExposure(bad report) {
	if c.Insecure {
		return
	}
	for key, address := range map[string]string{"listen": c.Listen, "http": c.HTTP, "mqtt.listen": c.MQTT.Listen, "websocket.listen": c.WebSocket.Listen} {
		host, _, err := net.SplitHostPort(address)
		if err != nil || loopback(host) || key == "listen" && c.Engine != "" {
			continue
		}
		var missing []string
		if len(c.Users) == 0 {
			missing = append(missing, "users")
		}
		if c.TLS.Cert == "" {
			missing = append(missing, "tls")
		}
		if len(missing) > 0 {
			bad(key, exposed+" %s, and %s missing; add %s, or listen on 127.0.0.1, or say --insecure",
				address, isAre(missing), strings.Join(missing, " and "))
		}
	}
}

func isAre(what []string) string {
	if len(what) == 1 {
		return what[0] + " is"
	}
	return strings.Join(what, " and ") + " are"
}

// loopback reports whether only this machine can reach a host.
func loopback(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	if host == "" {
		return false
	}
	addresses, err := net.LookupIP(host)
	if err != nil || len(addresses) == 0 {
		return false
	}
	for _, ip := range addresses {
		if !ip.IsLoopback() {
			return false
		}
	}
	return true
}

func (c *Config) validateUsers(bad report) {
	seen, tokens := map[string]bool{}, map[string]string{}
	for i, u := range c.Users {
		key := fmt.Sprintf("users[%d]", i)
		called := cmp.Or(u.Name, "NAME")
		switch {
		case u.Name == "":
			bad(key+".name", "is missing")
		case CheckUserName(u.Name) != nil:
			bad(key+".name", "%s", CheckUserName(u.Name))
		case seen[u.Name]:
			bad(key+".name", "there are two users with the name %s", u.Name)
		}
		seen[u.Name] = true
		if u.Password == "" && u.Token == "" {
			bad(key, "password or token is missing; hark user %s makes one", called)
		}
		if u.Password != "" {
			if _, err := bcrypt.Cost([]byte(u.Password)); err != nil {
				bad(key+".password", "want the bcrypt hash of a password, such as hark user %s --password makes", called)
			}
		}
		if u.Token != "" {
			if sum, ok := strings.CutPrefix(u.Token, tokenPrefix); !ok || !isSHA256(sum) {
				bad(key+".token", "want sha256: and 64 hexadecimal digits, such as hark user %s makes", called)
			}
			if other := tokens[tokenHash(u.Token)]; other != "" {
				bad(key+".token", "is also the token of user %s; each user needs its own token", other)
			}
			tokens[tokenHash(u.Token)] = u.Name
		}
		if _, err := permissions(&u, c.Topics); err != nil {
			bad(key+".subscribe", "%s", err)
		}
		for _, list := range []struct {
			key      string
			patterns []string
		}{{".publish", u.Publish}, {".subscribe", u.Subscribe}, {".admin", u.Admin}} {
			for j, p := range list.patterns {
				at := fmt.Sprintf("%s%s[%d]", key, list.key, j)
				first, _, more := strings.Cut(p, ".")
				if err := names.CheckPattern(p); err != nil {
					bad(at, "%s", nameFault(err))
				} else if first == "*" || first == ">" && more || isReply(p) {
					bad(at, "%q: want a pattern that begins with a name, or > alone for everything", p)
				}
			}
		}
	}
}

// CheckUserName returns what is wrong with the name of a user, which becomes part
// of subjects and URLs; nil if nothing is.
func CheckUserName(s string) error {
	if s == "" || s == internalUser || !isPlain(s) {
		return fmt.Errorf("%q cannot be the name of a user: want letters, digits, - and _", s)
	}
	return nil
}

// isPlain reports whether a name can be part of subjects and URLs unchanged.
func isPlain(s string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}

func isSHA256(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32
}

func (c *Config) validateTopics(bad report) {
	seen := map[string]bool{}
	var stores []int
	for i := range c.Topics {
		if c.Topics[i].isStore() {
			stores = append(stores, i)
		}
	}
	for i, t := range c.Topics {
		key := fmt.Sprintf("topics[%d]", i)
		switch {
		case t.Name == "":
			bad(key+".name", "is missing")
		case names.CheckPattern(t.Name) != nil:
			bad(key+".name", "%s", nameFault(names.CheckPattern(t.Name)))
		case t.Name[0] == '*' || t.Name[0] == '>':
			bad(key+".name", "%q: want a pattern that begins with a name, such as orders.>", t.Name)
		case isReply(t.Name):
			bad(key+".name", "names that begin with _INBOX are reserved for replies")
		case seen[t.Name]:
			bad(key+".name", "there are two topics with the name %s", t.Name)
		default:
			c.validateStore(i, stores, bad)
		}
		seen[t.Name] = true
		for _, limit := range []struct {
			name string
			n    int64
		}{
			{"age", int64(t.Age)}, {"bytes", t.Bytes}, {"count", t.Count}, {"per_key", t.PerKey}, {"per_topic", t.PerTopic}, {"dedup", int64(t.Dedup)},
		} {
			if limit.n < 0 {
				bad(key+"."+limit.name, "must not be negative")
			}
		}
		if t.Age > 0 && t.Dedup > t.Age {
			bad(key+".dedup", "an ID cannot be remembered longer (%s) than its message is kept (%s)", short(t.Dedup), short(t.Age))
		}
		if _, ok := durabilities[t.Durability]; !ok {
			bad(key+".durability", "got %q, want strict, relaxed or memory", t.Durability)
		}
	}
}

// validateStore checks stores, which must not share a topic with another store or
// topic.
func (c *Config) validateStore(i int, stores []int, bad report) {
	t, key := &c.Topics[i], fmt.Sprintf("topics[%d]", i)
	for _, j := range stores {
		other := &c.Topics[j]
		// Of two stores the later one is to blame, and of a topic and a store the
		// topic.
		if j == i || !overlap(t.Name, other.Name) || t.isStore() && j > i {
			continue
		}
		at := ""
		if p, ok := c.places[fmt.Sprintf("topics[%d].name", j)]; ok {
			at = fmt.Sprintf(" (line %d, column %d)", p.line, p.column)
		}
		bad(key+".name", "%s and %s%s have topics in common, and a message is stored in only one store; declare patterns that do not overlap, such as orders.eu.> and orders.us.>, or remove one of the two", t.Name, other.Name, at)
	}
	switch {
	case t.isStore() && t.DeadLetters:
		bad(key+".dead_letters", "does not apply to a pattern, whose topics are listed as topics for dead letters if their names end in .dead")
	case !t.isStore() && t.PerTopic > 0:
		bad(key+".per_topic", "applies only to patterns; %s is one topic, for which count does the same", t.Name)
	}
}

// isReply reports whether a name is one for replies.
func isReply(name string) bool { return name == "_INBOX" || strings.HasPrefix(name, "_INBOX.") }

// nameFault says what is wrong with a name.
func nameFault(err error) string {
	var fault *names.Error
	if errors.As(err, &fault) {
		return fmt.Sprintf("%q: %s at byte %d", fault.Name, fault.Reason, fault.Offset)
	}
	return err.Error()
}
