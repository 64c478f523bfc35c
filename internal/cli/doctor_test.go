package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harkbus/hark/broker"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/release"
)

func TestDoctorCompare(t *testing.T) {
	tests := []struct{ there, here, state, text, do string }{
		{"v1.2.0", "v1.2.0", "ok", "are hark v1.2.0", ""},
		{"v1.2.0", "v1.3.0", "warning", "the broker is hark v1.2.0, this program is hark v1.3.0", "cmd/hark@v1.2.0"},
		{"v1.3.0-rc.1", "v1.2.0", "warning", "hark v1.3.0-rc.1", "cmd/hark@v1.3.0-rc.1"},
		{"v0.0.0-20260102150405-0123456789ab+dirty", "v1.2.0", "warning", "+dirty", "run both from one release"},
		{release.Unknown, "v1.2.0", "warning", "hark (devel)", "run both from one release"},
		{"", "v1.2.0", "warning", "does not say its version", "older than this program"},
	}
	for _, tt := range tests {
		d := &doctor{}
		d.compare(tt.there, tt.here)
		if len(d.findings) != 1 {
			t.Fatalf("%+v: got %v", tt, d.findings)
		}
		f := d.findings[0]
		if f.State != tt.state || !strings.Contains(f.Text, tt.text) || !strings.Contains(f.To, tt.do) || (f.To == "") != (tt.do == "") {
			t.Errorf("got %+v, want %+v", f, tt)
		}
	}
}

// capable is a connection to an engine with some capabilities.
type capable struct {
	driver.Conn
	can []driver.Capability
}

// Info implements driver.Conn.
func (c capable) Info() driver.Info { return driver.Info{Engine: "nats", Server: "2.9", Can: c.can} }

// TestDoctorFindings produces each finding that is hard to cause on a healthy
// machine. Each must say what to do.
func TestDoctorFindings(t *testing.T) {
	all := []driver.Capability{driver.Stored, driver.Dedup, driver.Delay, driver.KeyOrder, driver.Latches}
	dir := t.TempDir()
	contexts := filepath.Join(dir, "contexts.json")
	t.Setenv("HARK_CONTEXTS", contexts)
	for _, tt := range []struct {
		name                  string
		look                  func(d *doctor)
		what, state, text, do string
	}{
		{"a full disk", func(d *doctor) { d.disk("./hark-data", spare-1, nil) }, "disk", "warning", "1023 MiB are free", "limits.disk"},
		{"room", func(d *doctor) { d.disk("./hark-data", 3<<30, nil) }, "disk", "ok", "3 GiB are free", ""},
		{"a disk that does not say", func(d *doctor) { d.disk("./hark-data", 0, errors.ErrUnsupported) }, "disk", "warning", "cannot be told", "look with df"},
		{"a server without JetStream", func(d *doctor) { d.examineEngine(capable{}) }, "jetstream", "wrong", "JetStream is off", "start the server with JetStream"},
		{"an old server", func(d *doctor) { d.examineEngine(capable{can: all[:2]}) }, "server", "warning", "cannot do: delayed messages", "run a newer server"},
		{"a new server", func(d *doctor) { d.examineEngine(capable{can: all}) }, "jetstream", "ok", "topics are stored", ""},
		{"contexts that are none", func(d *doctor) {
			if err := os.WriteFile(contexts, []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
			d.examineContexts()
		}, "contexts", "wrong", "contexts.json", "correct or remove the file"},
		{"contexts that cannot be read", func(d *doctor) {
			t.Setenv("HARK_CONTEXTS", filepath.Join(contexts, "below"))
			d.examineContexts()
		}, "contexts", "wrong", "below", "yours to read"},
		{"data of somebody else", func(d *doctor) {
			d.data = "/proc" // nobody can create files there, not even root
			d.examineData(false)
		}, "data", "wrong", "/proc", "let the user that runs the broker write to /proc"},
		{"data that are not there", func(d *doctor) {
			d.data = filepath.Join(contexts, "below")
			d.examineData(true)
		}, "data", "wrong", "below", "let the user that runs the broker write to "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Contains(tt.name, "data of") && runtime.GOOS != "linux" {
				t.Skip("there is no directory here to which nobody can write")
			}
			d := &doctor{data: dir}
			tt.look(d)
			if len(d.findings) == 0 {
				t.Fatal("it has found nothing")
			}
			f := d.findings[len(d.findings)-1]
			if f.What != tt.what || f.State != tt.state || !strings.Contains(f.Text, tt.text) || !strings.Contains(f.To, tt.do) || (f.To == "") != (tt.do == "") {
				t.Errorf("got %+v, want %s %s %q and %q", f, tt.what, tt.state, tt.text, tt.do)
			}
		})
	}
}

// TestDoctorOfSilence makes the doctor wait for a host that does not answer, as if
// behind a firewall, until it gives up or is interrupted.
func TestDoctorOfSilence(t *testing.T) {
	for _, tt := range []struct {
		interrupted, took time.Duration
		want              []finding
	}{
		{time.Hour, connectTimeout, []finding{{"port", "wrong", "broker.example:7422 does not answer", "look for a firewall between here and there"}}},
		{time.Second, time.Second, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			ctx, cancel := context.WithCancel(t.Context())
			defer time.AfterFunc(tt.interrupted, cancel).Stop()
			d := &doctor{dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}}
			if d.examinePort(ctx, place{URL: "hark://broker.example", Host: "broker.example"}) || !slices.Equal(d.findings, tt.want) || time.Since(start) != tt.took {
				t.Errorf("got %v after %v, want %v after %v", d.findings, time.Since(start), tt.want, tt.took)
			}
		})
	}
}

// TestHowToConnect wants advice that has to do with the error.
func TestHowToConnect(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("ask a about JetStream: %w", natsdriver.ErrNoLeader), "start the other servers"},
		{errors.New("nats: Authorization Violation"), "look at the user"},
	} {
		if got := howToConnect(tt.err); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}

// TestDoctorOfRestrictedUser runs the doctor as users with few permissions, and as
// an unknown one.
func TestDoctorOfRestrictedUser(t *testing.T) {
	startBroker(t, "users: [{name: ada, token: '"+broker.HashToken("secret-of-ada")+"', publish: [orders], subscribe: [orders]}]\n")
	t.Chdir(t.TempDir())
	url := os.Getenv("HARK_URL")
	for _, tt := range []struct{ user, args, want string }{
		{"ada:secret-of-ada@", "", "→ the user may not publish or subscribe there: give it a topic with --topic"},
		{"ada:secret-of-ada@", "--topic orders", "ok       messages     there and back"},
		{"ada:wrong@", "", "credentials of the URL (HARK_URL)\n                      → look at the user and the password or token in the URL"},
	} {
		t.Setenv("HARK_URL", strings.Replace(url, "hark://", "hark://"+tt.user, 1))
		if _, out, errs := call(t, "", append([]string{"doctor"}, strings.Fields(tt.args)...)...); !strings.Contains(out, tt.want) {
			t.Errorf("%s %s: got %s%s, want %q", tt.user, tt.args, out, errs, tt.want)
		}
	}
}

// TestDoctor examines a healthy broker, and an HTTP API of another release with a
// wrong clock. Every problem must come with what to do about it.
func TestDoctor(t *testing.T) {
	startBroker(t, "")
	t.Chdir(t.TempDir())
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		if r.URL.Path == "/readyz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte(`{"status":"ok","version":"v0.1.0"}`)) // otherwise the client has gone
	}))
	defer other.Close()
	nobody := httptest.NewServer(http.NotFoundHandler())
	defer nobody.Close()
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("topiks: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		args string
		code int
		want map[string]string // states by subject
	}{
		{"", exitOK, map[string]string{"version": "ok", "clock": "ok", "http": "ok", "messages": "ok"}},
		{"--http " + other.URL, exitFailed, map[string]string{"version": "warning", "clock": "warning", "http": "wrong"}},
		{"--http " + nobody.URL, exitOK, map[string]string{"http": "warning", "version": "", "clock": ""}},
		{"--http http://127.0.0.1:1", exitOK, map[string]string{"http": "warning"}},
		{"--url hark://127.0.0.1:1", exitFailed, map[string]string{"port": "wrong"}},
		{"--url hark://no-such-host.invalid:1", exitFailed, map[string]string{"port": "wrong"}},
		{"--config " + bad, exitFailed, map[string]string{"config": "wrong"}},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			code, out, errs := call(t, "", append([]string{"doctor", "--output", "json"}, strings.Fields(tt.args)...)...)
			if code != tt.code {
				t.Errorf("got code %d, want %d: %s", code, tt.code, errs)
			}
			var findings []finding
			if err := json.Unmarshal([]byte(out), &findings); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			got := map[string]string{}
			for _, f := range findings {
				got[f.What] = f.State
				if (f.State == "ok") != (f.To == "") {
					t.Errorf("%+v: want what to do where something is not well, and only there", f)
				}
			}
			for what, state := range tt.want {
				if got[what] != state {
					t.Errorf("%s is %q, want %q: %s", what, got[what], state, out)
				}
			}
		})
	}
}
