package natsdriver

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

// The default ports of servers.
const (
	natsPort = "4222"
	harkPort = "7422"
)

// target is the parsed form of a URL.
type target struct {
	servers []string // in the form that nats.go takes, with credentials
	options []Option
	// anonymous says that there are no credentials other than perhaps a
	// certificate; certified says that there is a certificate.
	anonymous, certified bool
}

// parseURL parses a URL as described in the package comment. Its errors do not show
// credentials.
func parseURL(raw string) (target, error) {
	var t target
	scheme, rest, ok := strings.Cut(raw, "://")
	port := natsPort
	switch scheme {
	case "nats", "tls":
	case "hark":
		scheme, port = "nats", harkPort
		t.options = append(t.options, SyncAlways()) // as the server in a broker does
	default:
		ok = false
	}
	if !ok {
		return t, fmt.Errorf("want nats://HOST:PORT, tls://HOST:PORT or hark://HOST:PORT")
	}
	hosts, query, _ := strings.Cut(rest, "?")
	userinfo := ""
	for i, host := range strings.Split(hosts, ",") {
		host = strings.TrimSpace(host)
		if _, after, repeated := strings.Cut(host, "://"); repeated {
			host = after
		}
		host = strings.TrimSuffix(host, "/")
		u, err := url.Parse(scheme + "://" + host)
		if err != nil || u.Hostname() == "" || u.Path != "" || u.Fragment != "" {
			return t, fmt.Errorf("server %d in the URL is not HOST or HOST:PORT", i+1)
		}
		if u.Port() == "" {
			u.Host = strings.TrimSuffix(u.Host, ":") + ":" + port
		}
		switch { // the first server's credentials may serve for all
		case u.User != nil && userinfo == "":
			userinfo = u.User.String()
		case u.User == nil && userinfo != "":
			u.User = t.user()
		}
		t.servers = append(t.servers, u.String())
	}
	if u := t.user(); u != nil && isToken(u.Username()) {
		// Servers with users keep the replies of each apart by name, see Access.
		if _, ok := u.Password(); ok {
			t.options = append(t.options, NATS(nats.CustomInboxPrefix(InboxPrefix(u.Username()))))
		}
	}
	if scheme == "tls" {
		t.options = append(t.options, NATS(nats.Secure()))
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return t, fmt.Errorf("the parameters of the URL: %w", err)
	}
	t.anonymous = t.user() == nil && !values.Has("creds") && !values.Has("nkey") && !values.Has("token")
	t.certified = values.Has("tlscert")
	return t, t.take(values)
}

// CheckURL returns what is wrong with a URL, without showing its secrets.
func CheckURL(url string) error {
	_, err := urlOptions(url)
	return err
}

// URLSyncsAlways reports whether a URL says, as the option SyncAlways does, that the
// servers have each stored message on disk before they acknowledge it.
func URLSyncsAlways(url string) bool {
	o, err := urlOptions(url)
	return err == nil && o.syncAlways
}

func urlOptions(url string) (options, error) {
	t, err := parseURL(url)
	if err != nil {
		return options{}, err
	}
	return makeOptions(t.options)
}

// isToken reports whether a name can be a token of a subject.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '.' || c == '*' || c == '>' {
			return false
		}
	}
	return s != ""
}

// user returns the credentials of the first server that has some.
func (t *target) user() *url.Userinfo {
	for _, s := range t.servers {
		if u, err := url.Parse(s); err == nil && u.User != nil {
			return u.User
		}
	}
	return nil
}

// parameters are the parameters that may follow the question mark of a URL.
var parameters = map[string]func(value string, all url.Values) (Option, error){
	"creds": func(v string, _ url.Values) (Option, error) { return credentials(v) },
	"nkey": func(v string, _ url.Values) (Option, error) {
		opt, err := nats.NkeyOptionFromSeed(v)
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", v, err)
		}
		return NATS(opt), nil
	},
	"token":  func(v string, _ url.Values) (Option, error) { return NATS(nats.Token(v)), nil },
	"tlsca":  func(v string, _ url.Values) (Option, error) { return NATS(nats.RootCAs(v)), nil },
	"tlskey": needs("tlscert"),
	"tlscert": func(v string, all url.Values) (Option, error) {
		if !all.Has("tlskey") {
			return nil, fmt.Errorf("tlskey is missing")
		}
		return NATS(nats.ClientCert(v, all.Get("tlskey"))), nil
	},
	"tlsfirst": func(v string, _ url.Values) (Option, error) {
		first, err := strconv.ParseBool(v)
		if err != nil || !first {
			return nil, err
		}
		return NATS(nats.TLSHandshakeFirst()), nil
	},
	"name":   func(v string, _ url.Values) (Option, error) { return NATS(nats.Name(v)), nil },
	"domain": func(v string, _ url.Values) (Option, error) { return Domain(v), nil },
	"lease": func(v string, _ url.Values) (Option, error) {
		d, err := time.ParseDuration(v)
		return Lease(d), err
	},
	"replicas": func(v string, _ url.Values) (Option, error) {
		n, err := strconv.Atoi(v)
		return Replicas(n), err
	},
	"sync": func(v string, _ url.Values) (Option, error) {
		if v != "always" {
			return nil, fmt.Errorf("got %q, want always", v)
		}
		return SyncAlways(), nil
	},
}

// credentials returns the option for a .creds file. The client reads the file at
// each login, and says little about what is wrong with it, so credentials checks it
// first.
func credentials(path string) (Option, error) {
	opt := nats.UserCredentials(path)
	var o nats.Options
	if err := opt(&o); err != nil {
		return nil, err
	}
	token, err := o.UserJWT()
	if err == nil && token == "" {
		err = fmt.Errorf("file %s is empty; it must contain the JWT of a user and its seed", path)
	}
	if err == nil {
		_, err = o.SignatureCB([]byte("nonce"))
	}
	return NATS(opt), err
}

// advice returns a hint on how to fix a connection error, beginning with a
// semicolon, or "" if the error says enough.
func (t *target) advice(err error) string {
	var stranger x509.UnknownAuthorityError
	var name x509.HostnameError
	var network *net.OpError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "; nobody listens there"
	case errors.As(err, &network) && network.Timeout() && network.Op == "dial":
		return "; nothing answers there: look at the address, and for a firewall on the way"
	case errors.As(err, &network) && network.Timeout():
		return silent
	case errors.Is(err, nats.ErrNoInfoReceived), strings.HasPrefix(err.Error(), "nats: Parse Error"):
		return "; what listens there is no NATS server"
	case errors.Is(err, nats.ErrAuthorization) && t.anonymous:
		return "; the URL has no credentials: USER:PASSWORD@ or TOKEN@ before the host, or ?creds= or ?nkey="
	case errors.Is(err, nats.ErrAuthorization):
		return "; the server does not know the credentials of the URL"
	case strings.Contains(err.Error(), "expected 'PONG', got 'PING'"): // the server pings a client that has waited for two seconds
		return "; the server takes very long to check the credentials of the URL: try again when it has less to do"
	case errors.As(err, &stranger):
		return "; ?tlsca=FILE says whose certificates to trust"
	case errors.As(err, &name):
		return "; the URL must have a name that the server's certificate is for"
	case errors.Is(err, nats.ErrSecureConnWanted):
		return "; the server has no TLS: want nats:// instead of tls://"
	case isTLS(err) && !t.certified:
		return "; a server that asks clients for certificates needs ?tlscert= and tlskey="
	case isTLS(err):
		return "; the server may not trust the certificate of tlscert"
	case errors.Is(err, io.EOF):
		return silent
	}
	return ""
}

// silent is the hint for a server that says nothing until it gives up, or the client does.
const silent = "; what listens there does not speak first, as NATS servers do: want the port for messages, not one for HTTP; a server that wants TLS first needs ?tlsfirst=true"

// isTLS reports whether a handshake failed, or what came right after it. A server
// that refuses a certificate says so, or closes the connection.
func isTLS(err error) bool {
	return strings.Contains(err.Error(), "tls error") || strings.Contains(err.Error(), "remote error: tls")
}

// needs checks that another parameter is present.
func needs(other string) func(string, url.Values) (Option, error) {
	return func(_ string, all url.Values) (Option, error) {
		if !all.Has(other) {
			return nil, fmt.Errorf("%s is missing", other)
		}
		return nil, nil
	}
}

func (t *target) take(values url.Values) error {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		read := parameters[name]
		if read == nil {
			return fmt.Errorf("parameter %s of the URL is unknown; the known ones are %s", name, strings.Join(slices.Sorted(maps.Keys(parameters)), ", "))
		}
		if n := len(values[name]); n > 1 {
			return fmt.Errorf("parameter %s of the URL is given %d times; give it once", name, n)
		}
		opt, err := read(values.Get(name), values)
		if err != nil {
			return fmt.Errorf("parameter %s of the URL: %w", name, err)
		}
		if opt != nil {
			t.options = append(t.options, opt)
		}
	}
	return nil
}
