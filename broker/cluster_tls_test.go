package broker

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// node issues the certificate of a server in a cluster, which is also a client of
// the others.
func (a *authority) node(t *testing.T, name string) string {
	t.Helper()
	cert, key := a.Issue(t, name, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return fmt.Sprintf("cert: %s, key: %s, ca: %s", cert, key, a.File)
}

// TestClusterTLS lets two brokers recognise each other by certificates, and keeps
// others out of their cluster: one with certificates of another authority, one with
// none, and one that trusts the right authority but has a certificate of another.
func TestClusterTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	addresses := []string{freeAddress(t), freeAddress(t)}
	node := func(i int, listen, tls string) string {
		return fmt.Sprintf("name: hark-%d\nlisten: 127.0.0.1:0\ndata: DIR\ncluster: {listen: %s, routes: ['%s'], user: node, password: secret-node%s}\ntopics: [{name: orders}]",
			i, listen, strings.Join(addresses, "','"), tls)
	}
	bs := startAll(t, node(0, addresses[0], ", "+ours.node(t, "n0")), node(1, addresses[1], ", "+ours.node(t, "n1")))
	sub := listen(t, dial(t, bs[1], ""), "over.*")
	c, until := dial(t, bs[0], ""), testContext(t)
	for heard := false; !heard; { // wait until the servers have exchanged subscriptions
		publish(t, c, "over.there", keyed(1, "", `{}`))
		ctx, cancel := context.WithTimeout(until, 50*time.Millisecond)
		ms, err := sub.Receive(ctx, 1)
		if cancel(); until.Err() != nil {
			t.Fatal(err)
		}
		if heard = err == nil; heard && ms[0].ID != "id-1" {
			t.Errorf("got %+v", ms[0])
		}
	}

	strange := theirs.node(t, "n2")
	mixed := strange[:strings.LastIndex(strange, "ca: ")] + "ca: " + ours.File
	var all sync.WaitGroup
	for what, tls := range map[string]string{"certificates of another authority": ", " + strange, "a certificate of another authority": ", " + mixed, "no certificate": ""} {
		c, err := Load(Source{File: write(t, strings.ReplaceAll(node(2, "127.0.0.1:0", tls), "DIR", t.TempDir())+"\nhttp: 'off'\nlog: {level: error}\nstop_timeout: 2s")})
		if err != nil {
			t.Fatal(err)
		}
		b, err := New(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if err := b.Start(ctx); err == nil || !strings.Contains(err.Error(), "too few of its servers are running") {
				t.Errorf("%s: got %v, want it to find nobody", what, err)
			}
		})
	}
	all.Wait()
	for i, b := range bs {
		routes, err := b.store.Server().Routez(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes.Routes {
			if r.RemoteName != "hark-0" && r.RemoteName != "hark-1" {
				t.Errorf("broker %d has a route to %s", i, r.RemoteName)
			}
		}
	}
	// One of two servers is not more than half of them.
	if reason := bs[0].unready(); reason != "" {
		t.Errorf("not ready: %s", reason)
	}
	stop(t, bs[1])
	for ctx := testContext(t); !strings.Contains(bs[0].unready(), "no leader"); {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("ready without a leader: %q", bs[0].unready())
		}
	}
}
