package natsdriver

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/internal/certs"
)

// identity is a NATS key pair: its public key and its seed.
type identity struct {
	nkeys.KeyPair
	public string
	seed   []byte
}

func newIdentity(t *testing.T, create func() (nkeys.KeyPair, error)) identity {
	t.Helper()
	pair, err := create()
	if err != nil {
		t.Fatal(err)
	}
	public, err1 := pair.PublicKey()
	seed, err2 := pair.Seed()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return identity{pair, public, seed}
}

// claims are the contents of a JWT.
type claims interface {
	Encode(pair nkeys.KeyPair) (string, error)
}

func encode(t *testing.T, c claims, by identity) string {
	t.Helper()
	text, err := c.Encode(by.KeyPair)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// withOperator makes a server trust an operator that has an account with JetStream.
// It returns the contents of a .creds file for a user of that account.
func withOperator(t *testing.T) (opt serverOption, creds []byte) {
	t.Helper()
	operator, system, account, user := newIdentity(t, nkeys.CreateOperator), newIdentity(t, nkeys.CreateAccount), newIdentity(t, nkeys.CreateAccount), newIdentity(t, nkeys.CreateUser)
	oc := jwt.NewOperatorClaims(operator.public)
	oc.SystemAccount = system.public
	encode(t, oc, operator)
	ac := jwt.NewAccountClaims(account.public)
	ac.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	uc := jwt.NewUserClaims(user.public)
	creds, err := jwt.FormatUserConfig(encode(t, uc, account), user.seed)
	if err != nil {
		t.Fatal(err)
	}
	resolver := &server.MemAccResolver{}
	for of, text := range map[string]string{
		system.public:  encode(t, jwt.NewAccountClaims(system.public), operator),
		account.public: encode(t, ac, operator),
	} {
		if err := resolver.Store(of, text); err != nil {
			t.Fatal(err)
		}
	}
	return func(o *server.Options) {
		o.TrustedOperators, o.SystemAccount, o.AccountResolver = []*jwt.OperatorClaims{oc}, system.public, resolver
	}, creds
}

// withTLS gives a server a certificate. If clients is not nil, the server asks
// clients for a certificate of that authority.
func withTLS(t *testing.T, a, clients *certs.Authority) serverOption {
	t.Helper()
	cert, key := a.Server(t)
	c := server.TLSConfigOpts{CertFile: cert, KeyFile: key}
	if clients != nil {
		c.CaFile, c.Verify = clients.File, true
	}
	config, err := server.GenTLSConfig(&c)
	if err != nil {
		t.Fatal(err)
	}
	return func(o *server.Options) { o.TLSConfig, o.TLSVerify, o.TLSTimeout = config, c.Verify, patience.Seconds() }
}

// TestLogin connects in every way in which NATS identifies clients.
func TestLogin(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	trusting, creds := withOperator(t)
	_, strangeCreds := withOperator(t)
	user, stranger := newIdentity(t, nkeys.CreateUser), newIdentity(t, nkeys.CreateUser)
	ours, theirs := certs.New(t), certs.New(t)
	clientCert, clientKey := ours.Client(t)
	strangeCert, strangeKey := theirs.Client(t)
	type try struct {
		what, url string // without the address
		want      string // part of the error; empty if it connects
	}
	const unknown, anonymous = "does not know the credentials", "the URL has no credentials"
	servers := []struct {
		name string
		opt  serverOption
		try  []try
	}{
		{"password", func(o *server.Options) { o.Username, o.Password = "ada", "s3cret" }, []try{
			{"right", "nats://ada:s3cret@", ""},
			{"wrong", "nats://ada:guess@", unknown},
			{"none", "nats://", anonymous},
		}},
		{"token", func(o *server.Options) { o.Authorization = "t0ken" }, []try{
			{"right", "nats://t0ken@", ""},
			{"as a parameter", "nats://?token=t0ken", ""},
			{"wrong", "nats://guess@", unknown},
			{"wrong parameter", "nats://?token=guess", unknown},
		}},
		{"nkey", func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: user.public}} }, []try{
			{"right", "nats://?nkey=" + file("user.nk", user.seed), ""},
			{"of somebody else", "nats://?nkey=" + file("stranger.nk", stranger.seed), unknown},
			{"none", "nats://", anonymous},
			{"no file", "nats://?nkey=" + dir + "/missing.nk", "missing.nk: no such file"},
			{"not a seed", "nats://?nkey=" + file("not.nk", []byte("hello")), "not.nk: nkeys: no nkey seed found"},
		}},
		{"creds", trusting, []try{
			{"right", "nats://?creds=" + file("user.creds", creds), ""},
			{"of somebody else", "nats://?creds=" + file("stranger.creds", strangeCreds), unknown},
			{"none", "nats://", anonymous},
			{"no file", "nats://?creds=" + dir + "/missing.creds", "missing.creds: no such file"},
			{"empty", "nats://?creds=" + file("empty.creds", nil), "empty.creds is empty"},
			{"not credentials", "nats://?creds=" + file("not.creds", []byte("hello\n")), `not.creds": nkeys: no nkey seed found`},
			{"without a seed", "nats://?creds=" + file("half.creds", creds[:len(creds)/2]), `half.creds": nkeys: no nkey seed found`},
		}},
		{"TLS", withTLS(t, ours, nil), []try{
			{"right", "tls://?tlsca=" + ours.File, ""},
			{"nats, with an authority", "nats://?tlsca=" + ours.File, ""},
			{"of an unknown authority", "tls://", "?tlsca=FILE says whose certificates to trust"},
			{"of another authority", "tls://?tlsca=" + theirs.File, "?tlsca=FILE says whose certificates to trust"},
			{"no file", "tls://?tlsca=" + dir + "/missing.pem", "missing.pem: no such file"},
			{"not a certificate", "tls://?tlsca=" + file("not.pem", []byte("hello")), "not.pem"},
		}},
		{"client certificate", withTLS(t, ours, ours), []try{
			{"right", "tls://?tlsca=" + ours.File + "&tlscert=" + clientCert + "&tlskey=" + clientKey, ""},
			{"none", "tls://?tlsca=" + ours.File, "connect to 127.0.0.1"}, // the rest varies, see TestAdvice
			{"of a stranger", "tls://?tlsca=" + ours.File + "&tlscert=" + strangeCert + "&tlskey=" + strangeKey, "connect to 127.0.0.1"},
			{"another's key", "tls://?tlsca=" + ours.File + "&tlscert=" + clientCert + "&tlskey=" + strangeKey, "private key does not match"},
			{"no file", "tls://?tlsca=" + ours.File + "&tlscert=" + dir + "/missing.pem&tlskey=" + clientKey, "missing.pem: no such file"},
		}},
		{"TLS first", func(o *server.Options) {
			withTLS(t, ours, nil)(o)
			o.TLSHandshakeFirst = true
		}, []try{
			{"right", "tls://?tlsfirst=true&tlsca=" + ours.File, ""},
		}},
		{"no TLS", func(*server.Options) {}, []try{
			{"but asked for", "tls://", "want nats:// instead of tls://"},
		}},
	}
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			address := strings.TrimPrefix(startServer(t, withJetStream, s.opt).url(), "nats://")
			for _, try := range s.try {
				t.Run(try.what, func(t *testing.T) {
					before, query, _ := strings.Cut(try.url, "?")
					bus, err := hark.Open(testContext(t), before+address+"?"+query)
					if try.want != "" {
						if err == nil {
							err = bus.Close(testContext(t))
							t.Fatalf("it connects, and closes with %v; want an error with %q", err, try.want)
						}
						if !strings.Contains(err.Error(), try.want) || strings.Contains(err.Error(), "guess") {
							t.Errorf("got %v, want %q", err, try.want)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					topic, err := hark.NewTopic[int](bus, "a", hark.Stored(hark.Retention{}))
					if err == nil {
						err = topic.Publish(testContext(t), 1)
					}
					if err := errors.Join(err, bus.Close(testContext(t))); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}

// What a client sees of a server that refuses its certificate depends on which of
// them is faster.
func TestAdvice(t *testing.T) {
	for _, text := range []string{"remote error: tls: certificate required", "nats: tls error: connection closed by remote after TLS handshake: EOF"} {
		if got := (&target{}).advice(errors.New(text)); !strings.Contains(got, "needs ?tlscert=") {
			t.Errorf("%s, without a certificate: got %q", text, got)
		}
		if got := (&target{certified: true}).advice(errors.New(text)); !strings.Contains(got, "trust the certificate of tlscert") {
			t.Errorf("%s, with a certificate: got %q", text, got)
		}
	}
	for want, err := range map[string]error{
		"nobody listens there":          &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)},
		"a firewall on the way":         &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded},
		"does not speak first":          &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded},
		"what listens there is no NATS": nats.ErrNoInfoReceived,
		"takes very long to check":      errors.New("nats: expected 'PONG', got 'PING'"),
	} {
		if got := (&target{}).advice(err); !strings.Contains(got, want) {
			t.Errorf("%v: got %q, want %q", err, got, want)
		}
	}
	if got := (&target{}).advice(errors.New("connection refused")); got != "" {
		t.Errorf("got %q, want no advice", got)
	}
}
