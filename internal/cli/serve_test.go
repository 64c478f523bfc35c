package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark/broker"
)

const serveTimeout = time.Minute

// screen collects the output of a command while a test reads it.
type screen struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
	more chan struct{}
}

func newScreen() *screen { return &screen{more: make(chan struct{}, 1)} }

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

// has reports whether a text has been printed.
func (s *screen) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), text)
}

// after waits for the word after mark.
func (s *screen) after(t *testing.T, mark string) string {
	t.Helper()
	timeout := time.After(serveTimeout)
	for {
		s.mu.Lock()
		_, rest, ok := strings.Cut(s.text.String(), mark)
		s.mu.Unlock()
		if word, _, whole := strings.Cut(rest, "\n"); ok && whole {
			return strings.Fields(word)[0]
		}
		select {
		case <-s.more:
		case <-timeout:
			t.Fatalf("%q was not printed:\n%s", mark, s.text.String())
		}
	}
}

// TestServe runs a broker, publishes, and reads what is routed.
func TestServe(t *testing.T) {
	noContexts(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "hark.yaml")
	text := "topics: [{name: orders}, {name: eu}]\nroutes: [{name: europe, from: orders, where: data.region == \"eu\", to: eu}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out, done := newScreen(), make(chan int, 1)
	var errs bytes.Buffer
	go func() {
		done <- Run(ctx, []string{"serve", "--config", file, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data", filepath.Join(dir, "data")}, Streams{Out: out, Err: &errs})
	}()
	url := "nats://" + strings.TrimPrefix(out.after(t, "messages  "), "hark://")

	if code, _, errs := call(t, "", "pub", "orders", `{"region":"eu","n":1}`, "--url", url, "--key", "ada", "--header", "tenant=acme"); code != exitOK || errs != "" {
		t.Errorf("pub: got %d %s", code, errs)
	}
	if code, _, errs := call(t, "{\"region\":\"us\"}\n\n{\"region\":\"eu\",\"n\":2}\nplain\n", "pub", "orders", "--url", url); code != exitOK || errs != "3 messages published\n" {
		t.Errorf("pub: got %d %s", code, errs)
	}
	code, got, _ := call(t, "", "sub", "eu", "--url", url, "--from", "start", "--count", "2")
	lines := strings.Split(strings.TrimSpace(got), "\n")
	if code != exitOK || len(lines) != 2 {
		t.Fatalf("sub: got %d %s", code, got)
	}
	var first struct {
		Topic, Key string
		Headers    map[string]string
		Data       struct{ N int }
	}
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil || first.Topic != "eu" || first.Key != "ada" || first.Headers["tenant"] != "acme" || first.Data.N != 1 {
		t.Errorf("sub: got %s, %v", lines[0], err)
	}
	if code, got, _ := call(t, "", "sub", "orders", "--url", url, "--from", "start", "--count", "1", "--where", "data.n == 2"); code != exitOK || !strings.Contains(got, `"n":2`) {
		t.Errorf("sub --where: got %d %s", code, got)
	}
	if code, _, errs := call(t, "", "sub", "live", "--url", url, "--from", "start"); code != exitFailed || !strings.Contains(errs, "live is not stored") {
		t.Errorf("sub of what is not stored: got %d %s", code, errs)
	}
	cancel()
	if code := <-done; code != exitOK {
		t.Errorf("serve: got %d\n%s", code, errs.String())
	}
	const nobody = "hark://127.0.0.1:1" // the broker's port may be somebody else's by now
	if code, _, errs := call(t, "", "pub", "orders", "x", "--url", nobody); code != exitFailed || !strings.Contains(errs, "hark serve starts a broker") {
		t.Errorf("pub to nobody: got %d %s", code, errs)
	}
}

func TestServeCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hark.yaml")
	for _, tt := range []struct {
		text string
		code int
		want string
	}{
		{"name: x", exitOK, "the configuration is valid\n"},
		{"nme: x", exitFailed, "hark: serve: 1 fault in the configuration:\n" + file + ":1:1: unknown key \"nme\"; did you mean name?\n"},
	} {
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, errs := call(t, "", "serve", "--check", "--config", file); code != tt.code || out+errs != tt.want {
			t.Errorf("%s: got %d %s%s, want %d %s", tt.text, code, out, errs, tt.code, tt.want)
		}
	}
}

// TestUndone checks that a stop that ran out of time is not mistaken for a broker
// that does not answer.
func TestUndone(t *testing.T) {
	err := undone(fmt.Errorf("routes from a: %w", context.DeadlineExceeded))
	if errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "stop_timeout") || !strings.Contains(err.Error(), "routes from a") {
		t.Errorf("got %v, want an error about stop_timeout that is none of a client", err)
	}
	if other := errors.New("x"); undone(other) != other || undone(nil) != nil {
		t.Error("other errors are changed")
	}
}

// TestErrorsNameTheProgramOnce checks that an error of the library does not repeat
// the name of the program, and is otherwise unchanged.
func TestErrorsNameTheProgramOnce(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("hark: publish a: %w", errors.New("x: hark: y")), "pub: line 3: publish a: x: hark: y"},
		{errors.New("hark.yaml: x"), "pub: line 3: hark.yaml: x"},
	} {
		if got := (&callError{"pub", &callError{"line 3", tt.err}}).Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	if _, _, errs := call(t, "", "pub", "a b", "1"); strings.Count(errs, "hark: ") != 1 {
		t.Errorf("got %s", errs)
	}
}

func TestUserNames(t *testing.T) {
	for _, name := range []string{"a b", "a.b", ""} {
		if code, out, errs := call(t, "", "user", name); code != exitUsage || out != "" || !strings.Contains(errs, "cannot be the name of a user") {
			t.Errorf("%q: got %d %s%s", name, code, out, errs)
		}
	}
}

func TestUnknownVariablesAreTold(t *testing.T) {
	t.Setenv("HARK_LISTN", "127.0.0.1:1")
	const told = "ignored: HARK_LISTN: there is no such setting; did you mean HARK_LISTEN?\n"
	if code, _, errs := call(t, "", "serve", "--check", "--config", "-"); code != exitOK || errs != told {
		t.Errorf("got %d %q, want %q", code, errs, told)
	}
	if _, out, _ := call(t, "", "serve", "--check", "--config", "-", "--output", "json"); !strings.Contains(out, `"ignored":[{"where":"HARK_LISTN","text":`) {
		t.Errorf("got %s", out)
	}
}

func TestRouteTest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hark.yaml")
	text := "routes:\n  - {name: eu, from: orders.*, where: data.region == \"eu\", to: \"region.{data.region}\"}\n  - {name: rest, from: orders.*, otherwise: rest}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	in := `{"topic":"orders.placed","data":{"region":"eu"}}
{"topic":"orders.placed","id":"7","data":{}}

{"topic":"other","data":{}}
nonsense
{"data":{}}
`
	code, out, errs := call(t, in, "route", "test", "--config", file)
	want := "1 orders.placed → region.eu (route eu)\n2 orders.placed → rest (route rest, otherwise)\n4 other → nowhere\n"
	if code != exitFailed || out != want {
		t.Errorf("got %d\n%s, want\n%s", code, out, want)
	}
	for _, part := range []string{"line 5: ", `line 6: no "topic"`, "3 messages read", "1 by route eu", "1 by route rest", "1 nowhere", "2 lines could not be read"} {
		if !strings.Contains(errs, part) {
			t.Errorf("%q is not in\n%s", part, errs)
		}
	}
	code, out, _ = call(t, "{\"region\":\"us\"}\n", "route", "test", "--config", file, "--topic", "orders.x", "--output", "json")
	if want := `{"line":1,"topic":"orders.x","routes":[{"route":"rest","targets":["rest"],"otherwise":true}]}` + "\n"; code != exitOK || out != want {
		t.Errorf("got %d %s, want %s", code, out, want)
	}
}

// TestRouteTestOfFailures routes messages for which filters cannot be evaluated. It
// says so of routes that take nothing.
func TestRouteTestOfFailures(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hark.yaml")
	text := "routes:\n  - {name: even, from: a.*, where: data.n % 2 == 0, to: even}\n  - {name: some, from: a.*, where: data.m == 1, to: some}\n" +
		"  - {name: none, from: a.*, where: data.n > 5, to: none}\n  - {name: other, from: b, where: data.m == 1, to: other}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, errs := call(t, `{"topic":"a.dead","data":{"n":"x"}}
{"topic":"a.a","data":{"n":2}}
{"topic":"a.b","data":{"n":4,"m":1}}
`, "route", "test", "--config", file)
	want := "\n3 messages read\n       0 by route even; its filter cannot be evaluated, line 2: %: no such overload\n       1 by route some\n       0 by route none\n       0 by route other\n       2 nowhere\n"
	if code != exitOK || errs != want {
		t.Errorf("got %d\n%s, want\n%s", code, errs, want)
	}
}

func TestRouteTestOfMoves(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hark.yaml")
	text := "topics: [{name: in}, {name: to.a}]\nroutes: [{name: sort, from: in, to: \"to.{data.x}\", mode: move}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, _ := call(t, "{\"x\":\"a\"}\n{\"x\":\"b\"}\n", "route", "test", "--config", file, "--topic", "in")
	want := "1 in → to.a (route sort, moved)\n2 in → to.b (route sort), copied and not moved, because to.b is not declared under topics (route sort)\n"
	if code != exitOK || out != want {
		t.Errorf("got %d\n%s, want\n%s", code, out, want)
	}
}

// TestUser creates a user and checks that the configuration accepts it.
func TestUser(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hark.yaml")
	for _, args := range [][]string{{"user", "ada"}, {"user", "ada", "--password"}} {
		code, out, _ := call(t, "secret\n", args...)
		if err := os.WriteFile(file, []byte(out), 0o600); err != nil || code != exitOK || strings.Contains(out, "secret") {
			t.Fatalf("%v: got %d %s, %v", args, code, out, err)
		}
		if code, _, errs := call(t, "", "serve", "--check", "--config", file); code != exitOK {
			t.Errorf("%v: %s", args, errs)
		}
	}
}

// With a JSON log, the faults of a reload are lines of the log.
func TestNotReloadedInJSON(t *testing.T) {
	var out strings.Builder
	c := broker.LogConfig{Level: "info", Format: "json"}
	err := broker.Problems{{Where: "hark.yaml", Line: 3, Column: 9, Text: "no"}, {Where: "hark.yaml", Line: 4, Column: 1, Text: "nor this"}}
	notReloaded(c, newLogger(c, &out), &out, err)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "hark.yaml:3:9") {
		t.Fatalf("got %q, want a line for each fault", out.String())
	}
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
}
