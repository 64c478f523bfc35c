package broker

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
)

// TestProtocolsOverTLS connects the mosquitto clients, and the NATS client over
// WebSockets, with TLS: with client certificates where the broker requires them,
// and not at all without TLS.
func TestProtocolsOverTLS(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	cert, key := a.Server(t)
	clientCert, clientKey := a.Client(t)
	strangeCert, strangeKey := stranger.Client(t)
	users := fmt.Sprintf("users:\n  - {name: shop, token: %q, publish: orders.>, subscribe: orders.>}\n", HashToken("s"))
	for _, tt := range []struct {
		name, clientCA string
		mine           bool // whether a client certificate is required
	}{{"of the broker", "", false}, {"of both", a.File, true}} {
		t.Run(tt.name, func(t *testing.T) {
			b := start(t, config(t, fmt.Sprintf("tls: {cert: %q, key: %q, client_ca: %q}\n", cert, key, tt.clientCA)+allProtocols+users))
			connect := func(url string, opts ...nats.Option) (*nats.Conn, error) {
				opts = append(opts, nats.UserInfo("shop", "s"), nats.CustomInboxPrefix("_INBOX.shop"), nats.Timeout(patience))
				return nats.Connect(url+b.WebSocketAddr(), opts...)
			}
			nc, err := connect("wss://", nats.RootCAs(a.File), nats.ClientCert(clientCert, clientKey))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			sub, err := nc.SubscribeSync("orders.*")
			if err != nil {
				t.Fatal(err)
			}
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				name, url string
				opts      []nats.Option
				ok        bool
			}{
				{"an authority that the client does not know", "wss://", []nats.Option{nats.ClientCert(clientCert, clientKey)}, false},
				{"no TLS", "ws://", nil, false},
				{"no certificate", "wss://", []nats.Option{nats.RootCAs(a.File)}, !tt.mine},
				{"a certificate of another authority", "wss://", []nats.Option{nats.RootCAs(a.File), nats.ClientCert(strangeCert, strangeKey)}, !tt.mine},
			} {
				nc, err := connect(c.url, c.opts...)
				if err == nil {
					err = nc.Flush()
					nc.Close()
				}
				if (err == nil) != c.ok {
					t.Errorf("over WebSockets, %s: got %v, want ok=%v", c.name, err, c.ok)
				}
			}
			for _, c := range []struct {
				name string
				args []string
				ok   bool
			}{
				{"its certificate", []string{"--cafile", a.File, "--cert", clientCert, "--key", clientKey}, true},
				{"an authority that the client does not know", []string{"--cafile", stranger.File, "--cert", clientCert, "--key", clientKey}, false},
				{"no TLS", nil, false},
				{"no certificate", []string{"--cafile", a.File}, !tt.mine},
				{"a certificate of another authority", []string{"--cafile", a.File, "--cert", strangeCert, "--key", strangeKey}, !tt.mine},
			} {
				args := append([]string{"-u", "shop", "-P", "s", "-q", "1", "-t", "orders/placed", "-m", c.name}, c.args...)
				text, err := mosquitto(t, b, "mosquitto_pub", args...).CombinedOutput()
				if (err == nil) != c.ok {
					t.Errorf("MQTT, %s: got %v, %s, want ok=%v", c.name, err, text, c.ok)
				}
				if !c.ok {
					continue
				}
				if m, err := sub.NextMsgWithContext(testContext(t)); err != nil || string(m.Data) != c.name {
					t.Errorf("MQTT, %s: got %+v, %v", c.name, m, err)
				}
			}
		})
	}
}
