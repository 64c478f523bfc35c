package broker

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/certs"
)

// syncBuffer is a buffer that is safe for concurrent use.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newTestLogger logs at all levels.
func newTestLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// authority issues certificates.
type authority struct{ *certs.Authority }

func newAuthority(t *testing.T) *authority {
	t.Helper()
	return &authority{certs.New(t)}
}

// ask requests /healthz over TLS, by a host name.
func (a *authority) ask(t *testing.T, b *Broker, host string, certs ...tls.Certificate) (int, error) {
	t.Helper()
	pem, err := os.ReadFile(a.File)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	r, err := http.NewRequestWithContext(testContext(t), "GET", "https://"+b.HTTPAddr().String()+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		r.Host = host
	}
	res, err := (&http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs}}).RoundTrip(r)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// TestTLS uses TLS for messages and for HTTP.
func TestTLS(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.Server(t)
	dir := t.TempDir()
	text := fmt.Sprintf("tls: {cert: %q, key: %q}\n%s", cert, key, users(t))
	b := start(t, configIn(t, dir, text))
	open := func(who string) *natsdriver.Conn {
		c, err := natsdriver.Open(testContext(t), "tls://"+who+"@"+b.Addr().String()+"?tlsca="+a.File)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(testContext(t)) }) // the broker may have cut it off
		return c
	}
	ada, bob := open("ada:secret-ada"), open("bob:secret-bob")
	sub := listen(t, bob, "orders.>")
	publishTo(t, storedTopic(t, ada, "orders.stored"), &driver.Message{Data: []byte(`{}`)})
	receive(t, sub, 1)

	// A client that does not trust the authority, and one without TLS.
	if c, err := natsdriver.Open(testContext(t), "tls://bob:secret-bob@"+b.Addr().String()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown authority: got %v, %v", c, err)
	}
	plain, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := io.WriteString(plain, "CONNECT {\"user\":\"bob\",\"pass\":\"secret-bob\"}\r\nPING\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = plain.SetReadDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(plain); isTimeout(err) || bytes.Contains(got, []byte("PONG")) {
		t.Errorf("without TLS: got %q, %v", got, err)
	}
	for _, tt := range []struct {
		host string
		code int
	}{{"", 200}, {"broker.example", 200}, {"evil.example", http.StatusMisdirectedRequest}} {
		if code, err := a.ask(t, b, tt.host); code != tt.code || err != nil {
			t.Errorf("HTTP as %q: got %d, %v, want %d", tt.host, code, err, tt.code)
		}
	}
	if res, err := http.Get("http://" + b.HTTPAddr().String() + "/healthz"); err == nil {
		if res.StatusCode == http.StatusOK {
			t.Error("HTTP without TLS is answered")
		}
		_ = res.Body.Close()
	}

	// Users change while they are connected.
	if err := b.Reload(testContext(t), configIn(t, dir, strings.Replace(text, "name: bob", "name: eve", 1))); err != nil {
		t.Fatal(err)
	}
	if c, err := natsdriver.Open(testContext(t), "tls://bob:secret-bob@"+b.Addr().String()+"?tlsca="+a.File); err == nil {
		t.Error("bob is let in")
		_ = c.Close(testContext(t))
	}
	open("eve:secret-bob")
}

// TestClientCertificates refuses clients without a certificate of the authority.
func TestClientCertificates(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	cert, key := a.Server(t)
	b := start(t, config(t, fmt.Sprintf("tls: {cert: %q, key: %q, client_ca: %q}", cert, key, a.File)))
	for _, tt := range []struct {
		name string
		from *authority
		ok   bool
	}{{"none", nil, false}, {"of another authority", stranger, false}, {"its own", a, true}} {
		opts := []nats.Option{nats.RootCAs(a.File), nats.Timeout(patience)}
		var certs []tls.Certificate
		if tt.from != nil {
			certFile, keyFile := tt.from.Client(t)
			opts = append(opts, nats.ClientCert(certFile, keyFile))
			pair, err := tls.LoadX509KeyPair(certFile, keyFile)
			if err != nil {
				t.Fatal(err)
			}
			certs = append(certs, pair)
		}
		nc, err := nats.Connect("tls://"+b.Addr().String(), opts...)
		if err == nil {
			err = nc.Flush()
			nc.Close()
		}
		if (err == nil) != tt.ok {
			t.Errorf("certificate %s: got %v", tt.name, err)
		}
		if code, err := a.ask(t, b, "", certs...); (err == nil && code == http.StatusOK) != tt.ok {
			t.Errorf("certificate %s, HTTP: got %d, %v", tt.name, code, err)
		}
	}
}
