package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/harkbus/hark/driver"
	_ "github.com/harkbus/hark/driver/filedriver" // for file: URLs
	_ "github.com/harkbus/hark/driver/natsdriver" // for nats:, tls: and hark: URLs
)

const (
	// defaultURL is where hark serve listens by default.
	defaultPort = "7422"
	defaultURL  = "hark://127.0.0.1:" + defaultPort
	// defaultHTTPPort is where it serves HTTP by default.
	defaultHTTPPort = "7480"
)

const (
	// connectTimeout is how long connecting, or closing, may take.
	connectTimeout = 10 * time.Second
	// askTimeout is how long to wait for the answer whether a topic is stored. A
	// user without permission to ask gets none.
	askTimeout = time.Second
)

// brokerFlags are the flags that say where the broker is.
type brokerFlags struct{ url, http, context string }

// urlFlags declares --url and --context, for commands that send or receive
// messages.
func urlFlags(fs *flag.FlagSet) *brokerFlags {
	f := &brokerFlags{}
	fs.StringVar(&f.url, "url", "", "`URL` of the broker (HARK_URL, or the context; otherwise "+defaultURL+")")
	fs.StringVar(&f.context, "context", "", "`name` of the context to use (HARK_CONTEXT; see hark context)")
	return f
}

// httpFlags declares --http in addition to the flags of urlFlags, for commands that
// use the HTTP API.
func httpFlags(fs *flag.FlagSet) *brokerFlags {
	f := urlFlags(fs)
	fs.StringVar(&f.http, "http", "", "`URL` of the HTTP API of the broker (HARK_HTTP_URL, or the context; otherwise port "+defaultHTTPPort+" beside port "+defaultPort+"). HARK_TOKEN is the token if no URL has one")
	return f
}

// place is where a broker is, with the user's credentials.
type place struct {
	URL  string // for messages, with credentials: must not be printed
	HTTP string // of the HTTP API, without credentials or trailing slash; empty if there is none
	// Host and Port are those of the first server in the URL; Port is empty if the
	// URL has none, and both are for file:.
	Host, Port string
	// Web says how the HTTP API was determined.
	Web certainty
	// User and Password are the credentials, also for HTTP; a Password without a
	// User is a token.
	User, Password string
	// Said is where the place was given: --url, HARK_URL, a context or the default.
	Said string
}

// certainty says how sure it is that the HTTP API belongs to the broker at the URL.
type certainty uint8

const (
	unknown certainty = iota // there is none, or it could be anywhere
	paired                   // the default ports on one host
	told                     // it was given explicitly
)

// place determines where the broker is. A flag overrides the environment, which
// overrides the context, which overrides the default. The source of the URL for
// messages also determines the one for HTTP, unless a source of higher precedence
// does: with --url, a context's HTTP API is not used.
func (f *brokerFlags) place() (place, error) {
	if f.url != "" && f.context != "" {
		return place{}, usageError{errors.New("--url and --context exclude each other: each says where the broker is")}
	}
	var p place
	web, webSaid := f.http, "--http"
	fromEnv := func() {
		if web == "" {
			web, webSaid = os.Getenv("HARK_HTTP_URL"), "HARK_HTTP_URL"
		}
	}
	name := f.context
	switch {
	case f.url != "":
		p.URL, p.Said = f.url, "--url"
	case name != "":
	case os.Getenv("HARK_URL") != "":
		fromEnv()
		p.URL, p.Said = os.Getenv("HARK_URL"), "HARK_URL"
	default:
		fromEnv()
		name = os.Getenv("HARK_CONTEXT")
	}
	if p.URL == "" {
		contexts, err := loadContexts()
		if err != nil {
			return place{}, err
		}
		if name == "" {
			name = contexts.Current
		}
		p.URL, p.Said = defaultURL, "the default"
		if name != "" {
			c, ok := contexts.Contexts[name]
			if !ok {
				return place{}, usageError{fmt.Errorf("unknown context %q%s; hark context list shows the known ones", name, suggestion(name, contexts.names()))}
			}
			p.URL, p.Said = c.URL, "context "+name
			if web == "" {
				web, webSaid = c.HTTP, p.Said
			}
		}
	}
	if err := p.readURL(web == ""); err != nil {
		return place{}, usageError{&callError{p.Said, err}}
	}
	if err := p.readWeb(web); err != nil {
		return place{}, usageError{&callError{webSaid, err}}
	}
	if p.Password == "" {
		p.Password = os.Getenv("HARK_TOKEN")
	}
	return p, nil
}

// readURL parses the URL. web says that the URL for HTTP is not known otherwise.
func (p *place) readURL(web bool) error {
	scheme, rest, _ := strings.Cut(p.URL, ":")
	if driver.Lookup(scheme) == nil {
		return fmt.Errorf("%q is not the URL of a broker; %s", redacted(p.URL), likeURL(p.URL, defaultURL))
	}
	if strings.HasPrefix(rest, "//") {
		return p.readHost(scheme, rest[2:], web)
	}
	return nil
}

// likeURL says what to write instead of text, which is no URL such as the example.
func likeURL(text, example string) string {
	scheme, _, _ := strings.Cut(example, "://")
	if _, port, err := net.SplitHostPort(text); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err == nil {
			return "did you mean " + scheme + "://" + text + "?"
		}
	}
	return "use one such as " + example
}

// readWeb parses the URL for HTTP, which may be empty.
func (p *place) readWeb(web string) error {
	if web == "" {
		return nil
	}
	u, err := url.Parse(web)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is not the URL of an HTTP API; %s", redacted(web), likeURL(web, "http://127.0.0.1:"+defaultHTTPPort))
	}
	if u.User != nil {
		p.User, p.Password = credentials(u.User)
		u.User = nil
	}
	p.HTTP, p.Web = strings.TrimSuffix(u.String(), "/"), told
	return nil
}

// readHost takes the credentials from a URL, of which rest is the part after the
// slashes. Unless the HTTP API is known otherwise, it is taken to be on its default port
// if that for messages is its default one. On another port it could be that of another
// broker.
func (p *place) readHost(scheme, rest string, web bool) error {
	hosts, query, _ := strings.Cut(rest, "?")
	first, _, _ := strings.Cut(hosts, ",")
	u, err := url.Parse("//" + first)
	if err != nil {
		return fmt.Errorf("%q is not the URL of a broker; use one such as %s", redacted(p.URL), defaultURL)
	}
	p.Host, p.Port = u.Hostname(), u.Port()
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("the parameters of the URL: %w", err)
	}
	if u.User != nil {
		p.User, p.Password = credentials(u.User)
	} else {
		p.Password = values.Get("token")
	}
	if web && p.Host != "" && (p.Port == defaultPort || p.Port == "" && scheme == "hark") {
		secure := scheme == "tls" || values.Has("tlsca") || values.Has("tlscert") || values.Has("tlsfirst")
		p.HTTP = map[bool]string{true: "https://", false: "http://"}[secure] + net.JoinHostPort(p.Host, defaultHTTPPort)
		p.Web = paired
	}
	return nil
}

// credentials returns the user and password; a lone name is a token.
func credentials(u *url.Userinfo) (user, password string) {
	password, ok := u.Password()
	if !ok {
		return "", u.Username()
	}
	return u.Username(), password
}

// redacted returns a URL without its secrets.
func redacted(raw string) string {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return raw
	}
	hosts, query, hasQuery := strings.Cut(rest, "?")
	parts := strings.Split(hosts, ",")
	for i, host := range parts {
		at := strings.LastIndex(host, "@")
		if at < 0 {
			continue
		}
		shown := "xxxxx"
		if user, _, ok := strings.Cut(host[:at], ":"); ok {
			shown = user + ":xxxxx"
		}
		parts[i] = shown + host[at:]
	}
	out := scheme + "://" + strings.Join(parts, ",")
	if hasQuery {
		params := strings.Split(query, "&")
		for i, param := range params {
			if name, _, _ := strings.Cut(param, "="); name == "token" {
				params[i] = "token=xxxxx"
			}
		}
		out += "?" + strings.Join(params, "&")
	}
	return out
}

// request builds a request to the HTTP API with the credentials of the place. path
// begins with a slash.
func (p *place) request(ctx context.Context, method, path string) (*http.Request, error) {
	switch {
	case p.HTTP == "" && p.Host == "":
		return nil, fmt.Errorf("%s (%s) has no HTTP API; give its URL with --http", p.Said, redacted(p.URL))
	case p.HTTP == "":
		return nil, fmt.Errorf("%s does not tell where the HTTP API of the broker is, because its port is not %s (%s); give the URL with --http, or with hark context add --http", redacted(p.URL), defaultPort, p.Said)
	}
	r, err := http.NewRequestWithContext(ctx, method, p.HTTP+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	switch {
	case p.User != "":
		r.SetBasicAuth(p.User, p.Password)
	case p.Password != "":
		r.Header.Set("Authorization", "Bearer "+p.Password)
	}
	return r, nil
}

// client returns a client for the HTTP API that uses the certificates named by the
// URL for messages.
func (p *place) client() (*http.Client, error) {
	_, query, _ := strings.Cut(p.URL, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("the parameters of the URL: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if file := values.Get("tlsca"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("parameter tlsca of the URL: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("parameter tlsca of the URL: %s contains no certificate in PEM", file)
		}
	}
	if file := values.Get("tlscert"); file != "" {
		pair, err := tls.LoadX509KeyPair(file, values.Get("tlskey"))
		if err != nil {
			return nil, fmt.Errorf("parameters tlscert and tlskey of the URL: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &webConn{Conn: conn}, nil
	}
	transport.TLSClientConfig = config
	return &http.Client{Transport: transport}, nil
}

// webConn is a connection for HTTP.
type webConn struct {
	net.Conn
	begun bool // data has arrived
}

// errMessagesPort says that a URL for HTTP leads to the port for messages.
var errMessagesPort = errors.New("a NATS server answers there: that is the port for messages, not the one for HTTP")

// Read implements net.Conn. It is not called concurrently. A NATS server speaks
// first, perhaps before the request is sent; package net/http has no error for
// that.
func (c *webConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.begun && n > 0 {
		c.begun = true
		if bytes.HasPrefix(p[:n], []byte("INFO ")) {
			return 0, errMessagesPort
		}
	}
	return n, err
}

// connect opens a connection to the broker. If waiting takes long it says so on
// notes, both while connecting and whenever the connection is lost, until ctx ends.
func (f *brokerFlags) connect(ctx context.Context, notes io.Writer) (driver.Conn, error) {
	p, err := f.place()
	if err != nil {
		return nil, err
	}
	return p.connect(ctx, notes)
}

// connect opens a connection to the broker, see brokerFlags.connect.
func (p *place) connect(ctx context.Context, notes io.Writer) (conn driver.Conn, err error) {
	scheme, _, _ := strings.Cut(p.URL, ":")
	limited, cancel := context.WithTimeoutCause(ctx, connectTimeout, errSilent)
	defer cancel()
	w := waitFor(limited, notes, p.shown())
	err = w.attempts(limited, func() error {
		conn, err = driver.Lookup(scheme)(limited, p.URL)
		return err
	})
	w.end()
	switch {
	case err == nil:
		tellLost(ctx, notes, conn, redacted(p.URL))
		return conn, nil
	case errors.Is(context.Cause(ctx), errTimeout):
		return nil, noConnection(p.shown(), err)
	case scheme == "file", ctx.Err() != nil:
		return nil, err
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w (%s); hark serve starts a broker; --url, HARK_URL or a context says where one is", err, p.Said)
	}
	return nil, fmt.Errorf("%w (%s)%s", err, p.Said, askDoctor)
}

// askDoctor is what to do about a connection that failed.
const askDoctor = "; run hark doctor to find out more"

// noConnection returns the error of a command whose --timeout is over before it has a
// connection. It is not errTimeout: whoever waits for something wants to know that
// nobody could have said it.
func noConnection(where string, err error) error {
	return fmt.Errorf("no connection to %s within --timeout (%v)%s", where, err, askDoctor)
}

// shown returns the URL without secrets, and where it was given.
func (p *place) shown() string { return redacted(p.URL) + " (" + p.Said + ")" }

// with connects, runs work with the connection, and closes it. It writes to notes
// what connect does.
func (f *brokerFlags) with(ctx context.Context, notes io.Writer, work func(conn driver.Conn) error) error {
	conn, err := f.connect(ctx, notes)
	if err != nil {
		return err
	}
	return errors.Join(work(conn), closed(ctx, conn))
}

// closed closes a connection, even when ctx has ended.
func closed(ctx context.Context, conn driver.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
	defer cancel()
	return conn.Close(ctx)
}

// openStore opens the topics that match a pattern, if one store keeps all of them;
// otherwise it returns nil.
func openStore(ctx context.Context, conn driver.Conn, pattern string) (driver.Topic, error) {
	if !has(conn, driver.StoredPatterns) {
		return nil, nil
	}
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	topic, err := conn.OpenTopic(ask, driver.TopicConfig{Name: pattern, Stored: &driver.StoredConfig{Existing: true}})
	if errors.Is(err, driver.ErrUnsupported) { // no single store keeps all of them
		return nil, nil
	}
	return topic, err
}

// openTopic opens a topic as the broker has it, stored or not.
func openTopic(ctx context.Context, conn driver.Conn, name string) (topic driver.Topic, stored bool, err error) {
	cfg := driver.TopicConfig{Name: name}
	if c, ok := conn.(interface {
		HasTopic(ctx context.Context, name string) (bool, error)
	}); ok && has(conn, driver.Stored) {
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		stored, err = c.HasTopic(ask, name)
		cancel()
		if err != nil && (ctx.Err() != nil || ask.Err() == nil) {
			return nil, false, err
		}
	}
	if stored {
		cfg.Stored = &driver.StoredConfig{Existing: true, Dedup: time.Minute} // IDs are passed on; the broker decides how long they are remembered
	}
	topic, err = conn.OpenTopic(ctx, cfg)
	return topic, stored, err
}

func has(conn driver.Conn, c driver.Capability) bool {
	info := conn.Info()
	return info.Has(c)
}
