package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// TestDoctor asks about a broker that is well, and about an HTTP API of another
// release with another clock; whatever is not well comes with what to do.
func TestDoctor(t *testing.T) {
	startBroker(t, "")
	t.Chdir(t.TempDir())
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		if r.URL.Path == "/readyz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte(`{"status":"ok","version":"v0.1.0"}`)) // the client has gone otherwise
	}))
	defer other.Close()
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("topiks: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		args string
		code int
		want map[string]string // states by what
	}{
		{"", exitOK, map[string]string{"version": "ok", "clock": "ok", "http": "ok", "messages": "ok"}},
		{"--http " + other.URL, exitFailed, map[string]string{"version": "warning", "clock": "warning", "http": "wrong"}},
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
