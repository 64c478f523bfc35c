package broker

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/harkbus/hark/filter"
	"github.com/harkbus/hark/internal/names"
)

// WebhookConfig is a receiver to which messages are sent, each in an HTTP
// request.
type WebhookConfig struct {
	// Name is what the group, counters and logs call it, unique.
	Name string
	// From is a topic, or a pattern.
	From string
	// Where is a filter; empty for all messages.
	Where string
	// URL is where requests go.
	URL string
	// Secret are what requests are signed with: whsec_ and 24 to 64 bytes in
	// base64, or file: and the path of a file that holds that.
	Secret []string
	// Header are lines NAME: VALUE that each request has.
	Header []string
	// Workers is how many requests are under way at once; with more than one
	// messages are not in order.
	Workers int64
	// Attempts is how often a message is sent before it is given up.
	Attempts int64
	// BackoffMin and BackoffMax bound the wait between attempts, which doubles
	// from one to the other and is a random part of that.
	BackoffMin, BackoffMax time.Duration
	// Timeout is how long one request may take.
	Timeout time.Duration
	// DeadLetter is the topic for messages that are given up, or off. Empty is that of
	// the message and .dead, and if From is a pattern webhook-NAME.dead.
	DeadLetter string
	// Position is where a stored topic, or the store of a pattern, is begun with: now or
	// start.
	Position string
	// Durable refuses a webhook of which Topics keeps not all messages.
	Durable bool
	// Private allows targets in private networks and on this machine, and http.
	Private bool
}

// newWebhookConfig returns what is not said of a webhook.
func newWebhookConfig() WebhookConfig {
	return WebhookConfig{
		Workers: 1, Attempts: 10, BackoffMin: 100 * time.Millisecond, BackoffMax: 30 * time.Second, Timeout: 10 * time.Second, Position: positionNow,
	}
}

// The places to begin with a stored topic.
const (
	positionNow   = "now"
	positionStart = "start"
)

var webhookFields = []field[WebhookConfig]{
	text("name", "token without dots", "", "the name in the group (`webhook-NAME`), counters and logs", func(w *WebhookConfig) *string { return &w.Name }),
	text("from", "topic or pattern", "", "the source of the messages; durable for a stored topic, and for a pattern that one store keeps", func(w *WebhookConfig) *string { return &w.From }),
	text("where", "filter", "", "which of them to send (docs/filters.md); all by default", func(w *WebhookConfig) *string { return &w.Where }),
	text("url", "URL", "", "where to send them", func(w *WebhookConfig) *string { return &w.URL }),
	words("secret", "whsec_BASE64 or file:PATH", "the secret that signs requests; a second one while receivers change over", func(w *WebhookConfig) *[]string { return &w.Secret }),
	words("header", "NAME: VALUE", "headers of each request", func(w *WebhookConfig) *[]string { return &w.Header }),
	count("workers", "1", "maximum number of concurrent requests; with more than one, messages are not in order", func(w *WebhookConfig) *int64 { return &w.Workers }),
	count("attempts", "10", "how often to send a message before giving up", func(w *WebhookConfig) *int64 { return &w.Attempts }),
	duration("backoff_min", "100ms", "maximum wait before the second attempt; it doubles for each one after that", func(w *WebhookConfig) *time.Duration { return &w.BackoffMin }),
	duration("backoff_max", "30s", "maximum wait between attempts", func(w *WebhookConfig) *time.Duration { return &w.BackoffMax }),
	duration("timeout", "10s", "how long one request may take", func(w *WebhookConfig) *time.Duration { return &w.Timeout }),
	text("dead_letter", "topic or off", "", "where messages go that are given up; by default the topic of the message with `.dead` appended, and from a pattern `webhook-NAME.dead`: one topic, however many names there are", func(w *WebhookConfig) *string { return &w.DeadLetter }),
	choice("position", positionNow, "where a new webhook starts on a stored topic, or on the store of a pattern", func(w *WebhookConfig) *string { return &w.Position }, positionNow, positionStart),
	boolean("durable", "false", "refuse to start unless `topics` keeps all messages to send, in one topic or pattern, so that none is missed while the broker is down", func(w *WebhookConfig) *bool { return &w.Durable }),
	boolean("private", "false", "allow a target on this machine or in a private network, and http instead of https", func(w *WebhookConfig) *bool { return &w.Private }),
}

func (c *Config) validateWebhooks(bad report) (ps Problems) {
	seen := map[string]bool{}
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		key := fmt.Sprintf("webhooks[%d]", i)
		switch {
		case w.Name == "":
			bad(key+".name", "is missing")
		case !isPlain(w.Name):
			bad(key+".name", "%q cannot be the name of a webhook: want letters, digits, - and _", w.Name)
		case seen[w.Name]:
			bad(key+".name", "there are two webhooks with the name %s", w.Name)
		}
		seen[w.Name] = true
		w.validateTopics(key, bad)
		if w.Where != "" {
			if _, err := filter.Compile(w.Where); err != nil {
				ps = append(ps, c.filterProblems(key+".where", err)...)
			}
		}
		w.validateTarget(key, bad)
		w.validateLimits(key, bad)
		c.validatePosition(key, w, bad)
		for _, backoff := range []string{".backoff_min", ".backoff_max"} {
			if _, said := c.places[key+backoff]; said && w.Attempts == 1 {
				bad(key+backoff, "sets the wait before the second attempt, and attempts: 1 has no second attempt; remove one of the two")
			}
		}
	}
	return ps
}

// validateTopics checks the topics that messages come from, and to which they go if
// they are given up.
func (w *WebhookConfig) validateTopics(key string, bad report) {
	switch err := names.CheckPattern(w.From); {
	case w.From == "":
		bad(key+".from", "is missing")
	case err != nil:
		bad(key+".from", "%s", nameFault(err))
	case isReply(w.From):
		bad(key+".from", "names that begin with _INBOX are reserved for replies")
	}
	if w.DeadLetter == "" || w.DeadLetter == off {
		return
	}
	if err := names.Check(w.DeadLetter); err != nil {
		bad(key+".dead_letter", "%s; or off", nameFault(err))
	} else if names.CheckPattern(w.From) == nil && names.Match(w.From, w.DeadLetter) && takes(w.From, w.DeadLetter) {
		bad(key+".dead_letter", "%s is among the topics of the webhook, so failed messages would be sent for ever; name another topic", w.DeadLetter)
	}
}

// validateTarget checks where requests go, and what is in them.
func (w *WebhookConfig) validateTarget(key string, bad report) {
	if _, err := w.target(); err != nil {
		bad(key+".url", "%s", err)
	}
	if len(w.Secret) == 0 {
		bad(key+".secret", "is missing; receivers check with it that requests come from this broker; make one with: echo whsec_$(openssl rand -base64 32)")
	}
	if _, err := w.secrets(); err != nil {
		bad(key+".secret", "%s", err)
	}
	if _, err := w.headers(); err != nil {
		bad(key+".header", "%s", err)
	}
}

// validateLimits checks the numbers.
func (w *WebhookConfig) validateLimits(key string, bad report) {
	switch {
	case w.Workers < 1 || w.Workers > 256:
		bad(key+".workers", "must be between 1 and 256")
	case w.Attempts < 1 || w.Attempts > 1000:
		bad(key+".attempts", "must be between 1 and 1000")
	case w.BackoffMin <= 0 || w.BackoffMax < w.BackoffMin || w.BackoffMax > 24*time.Hour:
		bad(key+".backoff_min", "must be above 0 and at most backoff_max, which is at most 24h")
	case w.Timeout < 10*time.Millisecond || w.Timeout > 5*time.Minute:
		bad(key+".timeout", "must be between 10ms and 5m")
	}
}

// validatePosition checks that the messages are stored, where that is needed.
func (c *Config) validatePosition(key string, w *WebhookConfig, bad report) {
	why := c.keptInPart(w.From)
	if w.Durable && why != "" {
		bad(key+".durable", "%s", why)
	}
	switch {
	case w.Position != positionNow && w.Position != positionStart:
		bad(key+".position", "got %q, want now or start", w.Position)
	case w.Position == positionStart && why != "":
		bad(key+".position", "start is not possible: %s", why)
	}
}

// deadLetter returns the topic for messages that are given up, or off; empty for that of
// the message and .dead. Of a pattern that would be a stored topic for each name that
// anybody publishes to.
func (w *WebhookConfig) deadLetter() string {
	if w.DeadLetter == "" && names.IsPattern(w.From) {
		return webhookGroup(w.Name) + deadSuffix
	}
	return w.DeadLetter
}

// target returns where requests go.
func (w *WebhookConfig) target() (*url.URL, error) {
	u, err := url.Parse(w.URL)
	switch {
	case err != nil:
		return nil, errors.New("it is not a URL: " + strings.TrimPrefix(err.Error(), "parse "))
	case w.URL == "":
		return nil, errors.New("is missing")
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return nil, fmt.Errorf("got %q, want https://HOST/PATH", u.Redacted())
	case u.User != nil:
		return nil, errors.New("it contains a user name or password, which logs would show; use the key header")
	case u.Scheme == "http" && !w.Private:
		return nil, errors.New("http is not encrypted; want https, or private: true for a target on this machine or in a private network")
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !w.Private && !isPublic(ip) {
		return nil, errors.New(targetFault(ip))
	}
	return u, nil
}

const (
	secretPrefix = "whsec_"
	filePrefix   = "file:"
)

// secrets returns the keys with which requests are signed.
func (w *WebhookConfig) secrets() (keys [][]byte, err error) {
	for _, s := range w.Secret {
		if path, ok := strings.CutPrefix(s, filePrefix); ok {
			text, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			s = strings.TrimSpace(string(text))
		}
		encoded, ok := strings.CutPrefix(s, secretPrefix)
		key, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || len(key) < 24 || len(key) > 64 {
			return nil, errors.New("want whsec_ and 24 to 64 bytes in base64; make one with: echo whsec_$(openssl rand -base64 32)")
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// headers returns the headers that each request has.
func (w *WebhookConfig) headers() (http.Header, error) {
	h := http.Header{}
	for _, line := range w.Header {
		name, value, ok := strings.Cut(line, ":")
		name, value = textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch lower := strings.ToLower(name); {
		case !ok || name == "" || strings.ContainsAny(line, "\r\n") || strings.ContainsAny(name, " \t"):
			return nil, errors.New("want lines such as Authorization: Bearer TOKEN")
		case strings.HasPrefix(lower, cePrefix) || strings.HasPrefix(lower, "hark-") || strings.HasPrefix(lower, "webhook-") ||
			lower == "host" || lower == "content-type" || lower == "content-length" || lower == "connection" || lower == "transfer-encoding":
			return nil, fmt.Errorf("the header %s is set by the broker", name)
		}
		h.Add(name, value)
	}
	return h, nil
}

// isPublic reports whether an address belongs to the Internet at large.
func isPublic(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if !ip.IsGlobalUnicast() || ip.IsPrivate() {
		return false
	}
	for _, p := range special {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

// special are networks that are global by their form and lead to hosts that are not
// for everybody: shared by carriers, for protocols, for tests, reserved, and those in
// which an address of another kind is hidden.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2001::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("fec0::/10"),
}

func targetFault(ip netip.Addr) string {
	return fmt.Sprintf("%s is on this machine or in a private network, and the webhook does not say private: true", ip)
}

// summary shows a webhook in a line.
func (w *WebhookConfig) summary() string {
	text := w.Name + ": " + w.From
	if w.Where != "" {
		text += " where " + strings.Join(strings.Fields(w.Where), " ")
	}
	if u, err := w.target(); err == nil { // paths and queries of webhooks are often secret
		text += " → " + u.Scheme + "://" + u.Host
	}
	return text
}
