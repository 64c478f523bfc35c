package cli

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// noContexts clears everything about brokers from the environment, and returns the
// path of the file of contexts.
func noContexts(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"HARK_URL", "HARK_HTTP_URL", "HARK_CONTEXT"} {
		t.Setenv(name, "")
	}
	file := filepath.Join(t.TempDir(), "hark", "contexts.json")
	t.Setenv("HARK_CONTEXTS", file)
	return file
}

// TestContextKeepsWholePaths adds a context with files of this directory, which are
// found from others too.
func TestContextKeepsWholePaths(t *testing.T) {
	noContexts(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	want := "?tlsca=" + strings.ReplaceAll(url.QueryEscape(filepath.Join(dir, "our ca.pem")), "%2F", "/") + "&creds=/etc/creds&name=a"
	if code, _, errs := call(t, "", "context", "add", "x", "tls://h?tlsca=our%20ca.pem&creds=/etc/creds&name=a"); code != exitOK {
		t.Fatal(errs)
	}
	if _, out, _ := call(t, "", "context", "show", "x"); !strings.Contains(out, "tls://h"+want+"\n") {
		t.Errorf("got %s, want %s", out, want)
	}
}

// TestContextsAtTheSameTime adds contexts with many commands at once, of which none is lost.
func TestContextsAtTheSameTime(t *testing.T) {
	noContexts(t)
	const n = 20
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if code, _, errs := call(t, "", "context", "add", fmt.Sprint("c", i), "hark://h"); code != exitOK {
				t.Error(errs)
			}
		})
	}
	all.Wait()
	if _, out, _ := call(t, "", "context", "list"); strings.Count(out, "\n") != n {
		t.Errorf("got %s, want %d contexts", out, n)
	}
}

// TestContextsAreLocked has another command hold the lock.
func TestContextsAreLocked(t *testing.T) {
	file := noContexts(t)
	if code, _, errs := call(t, "", "context", "add", "a", "hark://h"); code != exitOK {
		t.Fatal(errs)
	}
	release, err := lockContexts(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if release, err := lockContexts(ctx, file); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
		release()
	}
	release()
	if release, err = lockContexts(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	release()
}

func TestContext(t *testing.T) {
	file := noContexts(t)
	steps := []struct {
		in, args string
		code     int
		out, err string // the output, or part of it for errors
	}{
		{"", "context list", exitOK, "", "there are no contexts: hark context add NAME URL"},
		{"", "context show", exitOK, "messages   hark://127.0.0.1:7422\nHTTP       http://127.0.0.1:7480\nfrom       the default\n", ""},
		{"", "context add home nats://127.0.0.1:4222", exitOK, "", ""},
		{"sesame\n", "context add prod tls://ada@a.example,b.example:1?name=x --password --about ours", exitOK, "", ""},
		{"", "context add lab hark://TOKEN@lab.example --http https://web.example/hark/", exitOK, "", ""},
		{"", "context list", exitOK, "* home   nats://127.0.0.1:4222\n  lab    hark://xxxxx@lab.example\n  prod   tls://ada:xxxxx@a.example,b.example:1?name=x   ours\n", ""},
		{"", "context use prod", exitOK, "", ""},
		{"", "context show", exitOK, "messages   tls://ada:xxxxx@a.example,b.example:1?name=x\nuser       ada\nfrom       context prod\n", ""},
		{"", "context show lab --output json", exitOK, `{"url":"hark://xxxxx@lab.example","http":"https://web.example/hark","from":"context lab"}` + "\n", ""},
		{"", "context show --url hark://other", exitOK, "messages   hark://other\nHTTP       http://other:7480\nfrom       --url\n", ""},
		{"", "context show --url hark://other --context lab", exitUsage, "", "--url and --context exclude each other"},
		{"", "context use pord", exitUsage, "", `unknown context "pord", did you mean prod?`},
		{"", "pub x y --context pord", exitUsage, "", "hark context list shows"},
		{"", "context add x ftp://host", exitUsage, "", `"ftp://host" is not the URL of a broker`},
		{"", "context add x hark://u:secret@h --http ftp://u:secret@h", exitUsage, "", `"ftp://u:xxxxx@h" is not the URL of an HTTP API`},
		{"", "context remove prod", exitOK, "", ""},
		{"", "context list --output json", exitOK, `[{"name":"home","url":"nats://127.0.0.1:4222"},{"name":"lab","url":"hark://xxxxx@lab.example","http":"https://web.example/hark/"}]` + "\n", ""},
		{"", "context use -", exitOK, "", ""},
	}
	for _, step := range steps {
		code, out, errs := call(t, step.in, strings.Fields(step.args)...)
		if code != step.code || trimLines(out) != trimLines(step.out) || !strings.Contains(errs, step.err) || strings.Contains(out+errs, "secret") {
			t.Errorf("%s: got %d\n%s%s\nwant %d\n%s%s", step.args, code, out, errs, step.code, step.out, step.err)
		}
	}
	info, err := os.Stat(file)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v, want mode 0600", info.Mode(), err)
	}
}

// trimLines returns lines without trailing spaces.
func trimLines(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}

func TestContextPrecedence(t *testing.T) {
	noContexts(t)
	for _, args := range []string{"context add one hark://u:p@one.example --http http://web.one", "context add two hark://two.example"} {
		if code, _, errs := call(t, "", strings.Fields(args)...); code != exitOK {
			t.Fatal(errs)
		}
	}
	tests := []struct {
		flags     brokerFlags
		env       map[string]string
		url, http string
	}{
		{brokerFlags{}, nil, "hark://u:p@one.example", "http://web.one"},
		{brokerFlags{context: "two"}, nil, "hark://two.example", "http://two.example:7480"},
		{brokerFlags{}, map[string]string{"HARK_CONTEXT": "two"}, "hark://two.example", "http://two.example:7480"},
		{brokerFlags{context: "one"}, map[string]string{"HARK_CONTEXT": "two"}, "hark://u:p@one.example", "http://web.one"},
		{brokerFlags{}, map[string]string{"HARK_URL": "nats://three"}, "nats://three", ""},
		{brokerFlags{}, map[string]string{"HARK_URL": "nats://three", "HARK_CONTEXT": "two"}, "nats://three", ""},
		{brokerFlags{context: "two"}, map[string]string{"HARK_URL": "nats://three", "HARK_HTTP_URL": "http://web.three"}, "hark://two.example", "http://two.example:7480"},
		{brokerFlags{}, map[string]string{"HARK_HTTP_URL": "http://web.four"}, "hark://u:p@one.example", "http://web.four"},
		{brokerFlags{http: "http://web.five"}, map[string]string{"HARK_HTTP_URL": "http://web.four"}, "hark://u:p@one.example", "http://web.five"},
		{brokerFlags{url: "nats://six"}, map[string]string{"HARK_URL": "nats://three", "HARK_HTTP_URL": "http://web.four"}, "nats://six", ""},
		{brokerFlags{url: "nats://[::1]:7422?tlsca=ca.pem"}, nil, "nats://[::1]:7422?tlsca=ca.pem", "https://[::1]:7480"},
		{brokerFlags{url: "hark://three:7522"}, nil, "hark://three:7522", ""},
		{brokerFlags{url: "file:data"}, nil, "file:data", ""},
	}
	for _, tt := range tests {
		for _, name := range []string{"HARK_URL", "HARK_HTTP_URL", "HARK_CONTEXT"} {
			t.Setenv(name, tt.env[name])
		}
		p, err := tt.flags.place()
		if err != nil || p.URL != tt.url || p.HTTP != tt.http {
			t.Errorf("%+v with %v: got %s and %s, %v, want %s and %s", tt.flags, tt.env, p.URL, p.HTTP, err, tt.url, tt.http)
		}
	}
}

// TestPlaceRequest checks each kind of credentials.
func TestPlaceRequest(t *testing.T) {
	noContexts(t)
	for url, want := range map[string]string{
		"hark://ada:p%40ss@h":         "Basic YWRhOnBAc3M=",
		"hark://tok@h":                "Bearer tok",
		"hark://h?token=tok":          "Bearer tok",
		"hark://h":                    "",
		"hark://ada:pass@h1,bob:x@h2": "Basic YWRhOnBhc3M=",
	} {
		p, err := (&brokerFlags{url: url}).place()
		if err != nil {
			t.Fatal(err)
		}
		r, err := p.request(t.Context(), http.MethodGet, "/v1/topics")
		if err != nil || r.Header.Get("Authorization") != want || r.URL.User != nil {
			t.Errorf("%s: got %q for %s, %v, want %q", url, r.Header.Get("Authorization"), r.URL, err, want)
		}
	}
	for url, want := range map[string]string{
		"file:data":         "no HTTP API",
		"hark://h:7522":     "does not tell where the HTTP API of the broker is", // on 7480 there may be another broker
		"nats://u:secret@h": "nats://u:xxxxx@h does not tell",
	} {
		p, err := (&brokerFlags{url: url}).place()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.request(t.Context(), http.MethodGet, "/"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", url, err, want)
		}
	}
}

// TestPlaceClient calls a server whose certificate is trusted only because of the
// URL.
func TestPlaceClient(t *testing.T) {
	noContexts(t)
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for url, trusts := range map[string]bool{"hark://h?tlsca=" + ca: true, "tls://h": false} {
		p, err := (&brokerFlags{url: url, http: server.URL}).place()
		if err != nil {
			t.Fatal(err)
		}
		client, err := p.client()
		if err != nil {
			t.Fatal(err)
		}
		r, err := p.request(t.Context(), http.MethodGet, "/")
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if (err == nil) != trusts {
			t.Errorf("%s: got %v, want trust: %v", url, err, trusts)
		}
		if err == nil {
			_ = resp.Body.Close()
		}
		client.CloseIdleConnections()
	}
}
