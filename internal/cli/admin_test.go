package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/harkbus/hark/broker"
)

// startBroker runs a broker until the test ends, and points commands to it.
func startBroker(t *testing.T, text string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "hark.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := broker.Load(broker.Source{File: file, Flags: map[string]string{"listen": "127.0.0.1:0", "http": "127.0.0.1:0", "data": filepath.Join(dir, "data")}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := broker.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), serveTimeout)
	defer cancel()
	if err := b.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	t.Setenv("HARK_CONTEXTS", filepath.Join(dir, "contexts.json"))
	t.Setenv("HARK_URL", "hark://"+b.Addr().String())
	t.Setenv("HARK_HTTP_URL", "http://"+b.HTTPAddr().String())
}

// bury publishes a dead letter, as hark does.
func bury(t *testing.T, id, reason string) {
	t.Helper()
	record, err := json.Marshal(map[string]any{"Topic": "jobs", "Subscription": "billing", "Reason": reason, "Stack": "goroutine 1\n\tx.go:3", "Attempts": 10, "First": time.Now(), "Last": time.Now(), "Seq": 7})
	if err != nil {
		t.Fatal(err)
	}
	if code, _, errs := call(t, "", "pub", "jobs.dead", `{"n":1}`, "--id", id, "--header", "hark-failure="+string(record)); code != exitOK {
		t.Fatal(errs)
	}
}

// TestAdminCommands runs what an operator types, in order.
func TestAdminCommands(t *testing.T) {
	startBroker(t, "topics: [{name: jobs, dedup: 1h}, {name: jobs.dead}, {name: last, per_key: 1}]\nroutes: [{name: europe, from: jobs, where: data.n == 1, to: region.eu, otherwise: rest}]\nwebhooks: [{name: chat, from: nobody.publishes, url: 'http://127.0.0.1:9/chat', secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, private: true}]\n")
	bury(t, "d-1", "order 1: no stock")
	bury(t, "d-2", "order 2: no stock")
	bury(t, "d-3", "evil \x1b[2J\n title")
	if code, _, errs := call(t, "", "pub", "last", "1"); code != exitOK { // no subscription gave it up
		t.Fatal(errs)
	}
	for _, tt := range []struct {
		args     string
		code     int
		out, err string // must be part of the output; if empty, there must be none
	}{
		{"topic list", exitOK, "jobs.dead   3", ""},
		{"topic list last", exitOK, "of each key up to 1 message", ""},
		{"topic list none.>", exitOK, "", "there are no stored topics"},
		{"topic list a..b", exitUsage, "", "empty token at byte 2; see hark topic list --help"},
		{"topic list --output json --limit 1", exitOK, `{"topic":"jobs",`, ""},
		{"topic list --output xml", exitUsage, "", "want pretty, json"},
		{"topic create x.y --age 3d --count 5", exitOK, "topic x.y created", ""},
		{"topic create x.y --age 3d --count 5", exitOK, "exists with these limits", ""},
		{"topic create x.y --count 6", exitFailed, "", "topic x.y exists with other limits: age is 3d, not unlimited, count is 5, not 6; --alter gives it these limits"},
		{"topic create x.y --count 6 --alter", exitOK, "topic x.y changed", ""},
		{"topic create x.y --age soon", exitUsage, "", "topic create: --age: got \"soon\", want a time such as"},
		{"topic create x.y --count -1", exitUsage, "", "topic create: --count: must not be negative; see"},
		{"topic create", exitUsage, "", "want TOPIC, got 0 words"},
		{"topic show x.y", exitOK, "up to 6 messages", "there are no groups"},
		{"topic show none", exitNothing, "", "topic none"},
		{"topic purge x.y", exitFailed, "", "this would permanently remove 0 messages of x.y; confirm with --yes"},
		{"topic purge x.y --keep 3", exitFailed, "", "this would permanently remove 0 messages of x.y; confirm with --yes"},
		{"topic purge jobs.dead --keep 2", exitFailed, "", "this would permanently remove 1 message of jobs.dead"},
		{"topic purge jobs.dead --before 3", exitFailed, "", "this would permanently remove 2 messages of jobs.dead"},
		{"topic purge jobs.dead --before 3 --keep 1", exitUsage, "", "give either --before or --keep"},
		{"topic purge x.y --yes", exitOK, "0 messages removed", ""},
		{"topic delete x.y", exitFailed, "", "confirm with --yes"},
		{"topic delete x.y --yes", exitOK, "topic x.y deleted", ""},
		{"topic delete x.y --yes", exitNothing, "", "topic x.y is not there"},
		{"group list jobs", exitOK, "hark-routes", ""},
		{"group list none", exitNothing, "", "topic none"},
		{"group show jobs hark-routes --output json", exitOK, `"group":"hark-routes"`, ""},
		{"group show jobs none", exitNothing, "", "group none of topic jobs"},
		{"group pause jobs hark-routes", exitOK, "until it is resumed", ""},
		{"group pause jobs hark-routes --for 1h", exitOK, "paused", ""},
		{"group pause jobs hark-routes --for x", exitUsage, "", "group pause: --for: got"},
		{"group pause jobs hark-routes --for 0s", exitUsage, "", "group pause: --for: want more than 0"},
		{"group resume jobs hark-routes", exitOK, "listening", ""},
		{"group seek jobs hark-routes --to then", exitUsage, "", "--to must be start"},
		{"group seek jobs none --to 3", exitNothing, "", "group none"},
		{"group delete jobs none", exitNothing, "", "group none"},
		{"group delete jobs none --yes", exitNothing, "", "group none"},
		{"group delete jobs hark-routes", exitFailed, "", "would permanently lose its position, with 0 messages still waiting; confirm with --yes"},
		{"dlq list", exitOK, "jobs.dead   3", ""},
		{"dlq list --group-by error", exitUsage, "", "of which topic?"},
		{"dlq list jobs.dead", exitOK, "order 1: no stock", ""},
		{"dlq list jobs.dead --where data.", exitUsage, "", "--where: "},
		{"dlq replay jobs.dead --where data.", exitUsage, "", "--where: "},
		{"dlq delete jobs.dead --where data.", exitUsage, "", "--where: "},
		{"dlq replay jobs.dead 98 99", exitNothing, "0 dead letters replayed, 2 not there", "2 dead letters are not there"},
		{"dlq delete jobs.dead 99", exitNothing, "99: gone: it is not there", "1 dead letter is not there"},
		{"dlq delete jobs.dead 99 --dry-run", exitNothing, "0 dead letters would be removed", "1 dead letter is not there"},
		{"dlq list jobs.dead --group-by error", exitOK, "2       ", ""},
		{"dlq list jobs.dead --group-by reason", exitUsage, "", "want error"},
		{`dlq list jobs.dead --where headers.reason.contains("evil") --output json`, exitOK, `"id":"d-3"`, ""},
		{"dlq show jobs.dead 1", exitOK, "x.go:3", ""},
		{"dlq show jobs.dead 3", exitOK, "evil  [2J  title", ""},
		{"dlq show jobs.dead x", exitUsage, "", `"x" is no sequence`},
		{"dlq show jobs.dead 99", exitNothing, "", "message 99 of topic jobs.dead"},
		{"dlq replay jobs.dead", exitUsage, "", "which dead letters?"},
		{"dlq replay jobs.dead x", exitUsage, "", "is no sequence"},
		{"dlq replay jobs.dead --all --rate -1", exitUsage, "", "--rate must not be negative"},
		{"dlq replay jobs.dead --all --dry-run", exitOK, "3 dead letters would be replayed", ""},
		{"dlq replay jobs.dead 1 --output json", exitOK, `{"summary":{"done":1,"dry":0,"skipped":0,"failed":0,"gone":0}}`, ""},
		{"dlq replay jobs.dead 2 --to a..b", exitUsage, "", "dlq replay: --to: "},
		{"dlq replay last 1", exitFailed, "say where to publish it: to in the request, --to on the command line", "1 dead letter could not be replayed"},
		{"dlq replay jobs.dead 2 --to jobs.dead", exitFailed, "2 (d-2): failed: that is where it is", "1 dead letter could not be replayed"},
		{"dlq replay jobs.dead 2 --to nobody", exitNothing, "topic nobody is not stored: perhaps nobody listens\n0 dead letters replayed, 1 skipped", "1 dead letter was skipped; --force replays them all the same"},
		{"dlq replay jobs.dead 2 --to nobody --dry-run --output json", exitNothing, `"skipped":1`, "1 dead letter was skipped"},
		{"dlq show jobs 1", exitOK, "failure   none is recorded", ""},
		{"dlq edit jobs.dead 2", exitUsage, "", "what is to be other?"},
		{`dlq edit jobs.dead 2 {"n":3} --header a=b --remove-header c --key k --replace`, exitOK, `"a": "b"`, ""},
		{`dlq edit jobs.dead 4 - --replace`, exitOK, `"data": "from the input"`, ""},
		{`dlq replay jobs.dead --where id=="d-2"`, exitOK, "1 dead letter replayed", ""},
		{"dlq delete jobs.dead", exitUsage, "", "which dead letters?"},
		{"dlq delete jobs.dead --all --dry-run", exitOK, "1 dead letter would be removed", ""},
		{"dlq delete jobs.dead --all", exitFailed, "", "this would permanently remove 1 dead letter of jobs.dead; confirm with --yes"},
		{"dlq delete jobs.dead --all --yes", exitOK, "1 dead letter removed", ""},
		{"dlq list jobs.dead", exitOK, "", "there are no dead letters"},
		{"route list", exitOK, "region.eu otherwise rest", ""},
		{"route show europe", exitOK, "durable", ""},
		{"route show none", exitNothing, "", "there is no route none"},
		{"route list --output json", exitOK, `"route":"europe"`, ""},
		{"value list", exitOK, "", "there are no values"},
		{"value set config.a <b>", exitOK, "", ""},
		{"value list config.*", exitOK, `config.a   1         now       "<b>"`, ""},
		{"value list --output json", exitOK, `{"name":"config.a","version":1,`, ""},
		{"value set config.b 1 --output json", exitOK, `{"name":"config.b","version":2,"data":1}`, ""},
		{"value set config.b 1 --if-version 0", exitNothing, "", "value config.b has version 2, not 0"},
		{"value set config.b 1 --if-version 2 --output raw", exitOK, "1\n", ""},
		{"topic show .", exitUsage, "", `topic: ".": empty token at byte 0`},
		{"topic delete .. --yes", exitUsage, "", `topic: "..": empty token at byte 0`},
		{"group delete .. audit --yes", exitUsage, "", `topic: "..": empty token at byte 0`},
		{"value list a..b", exitUsage, "", "empty token"},
		{"webhook list", exitOK, "chat      nobody.publishes   127.0.0.1:9   on      0", ""},
		{"webhook disable chat", exitOK, "webhook chat is off", ""},
		{"webhook list --output json", exitOK, `"state":"off"`, ""},
		{"webhook enable chat --output json", exitOK, `"state":"on"`, ""},
		{"webhook enable none", exitNothing, "", "there is no webhook \"none\""},
		{"topic list --http ftp://x", exitUsage, "", "is not the URL of an HTTP API"},
	} {
		code, out, errs := call(t, "from the input\n", strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(errs, tt.err) || (tt.out == "") != (out == "") || (tt.err == "") != (errs == "") {
			t.Errorf("hark %s: got %d\n%s%swant %d %q %q", tt.args, code, out, errs, tt.code, tt.out, tt.err)
		}
	}

	if code, _, errs := call(t, "", "pub", "last", strings.Repeat("x", 20<<10)); code != exitOK {
		t.Fatal(errs)
	}
	for _, tt := range []struct {
		output      string
		least, most int
		what        string
	}{
		{"pretty", maxShown, maxShown + 1<<10, "are not shown: --output json prints all"},
		{"json", 20 << 10, 21 << 10, `"data":"xxx`},
	} {
		code, out, errs := call(t, "", "dlq", "show", "last", "2", "--output", tt.output)
		if code != exitOK || len(out) < tt.least || len(out) > tt.most || !strings.Contains(out, tt.what) {
			t.Errorf("a large message as %s: got %d, %d bytes %.200s %s", tt.output, code, len(out), out, errs)
		}
	}
}

// TestEmptyFlags gives flags what a script has that has found nothing: an empty text, or 0.
// That must never mean more than a value would.
func TestEmptyFlags(t *testing.T) {
	startBroker(t, "topics: [{name: jobs}, {name: jobs.dead}]\n")
	bury(t, "d-1", "no stock")
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"topic", "purge", "jobs.dead", "--before", "0", "--yes"}, exitUsage, "want a whole number from 1 on"},
		{[]string{"topic", "purge", "jobs.dead", "--keep", "0", "--yes"}, exitUsage, "want a whole number from 1 on"},
		{[]string{"dlq", "replay", "jobs.dead", "1", "--to", ""}, exitUsage, "want a topic"},
		{[]string{"dlq", "show", "jobs.dead", "1"}, exitOK, "d-1"},
		{[]string{"value", "set", "config", "1"}, exitOK, ""},
		{[]string{"value", "set", "config", "2", "--if-version", ""}, exitUsage, "want a whole number"},
		{[]string{"value", "get", "config"}, exitOK, "1\n"},
		{[]string{"dlq", "edit", "jobs.dead", "1", "--key", "k"}, exitOK, `"key": "k"`},
		{[]string{"dlq", "edit", "jobs.dead", "2", "--key", ""}, exitOK, `"hark-edited-from": "2"`},
	} {
		code, out, errs := call(t, "", tt.args...)
		if code != tt.code || !strings.Contains(out+errs, tt.says) {
			t.Errorf("hark %q: got %d\n%s%swant %d %q", tt.args, code, out, errs, tt.code, tt.says)
		}
		if last := tt.args[len(tt.args)-1]; last == "" && code == exitOK && strings.Contains(out, `"key"`) {
			t.Errorf("the key is still there:\n%s", out)
		}
	}
}

// TestAdminAsUser checks how the token gets to the broker, and that it is not
// shown.
func TestAdminAsUser(t *testing.T) {
	const token = "TOPSECRETTOKEN"
	startBroker(t, "users: [{name: op, token: '"+broker.HashToken(token)+"', admin: ['>']}, {name: ada, token: '"+broker.HashToken(token+"2")+"'}]\ntopics: [{name: jobs}]\n")
	messages, web := strings.TrimPrefix(os.Getenv("HARK_URL"), "hark://"), strings.TrimPrefix(os.Getenv("HARK_HTTP_URL"), "http://")
	for _, tt := range []struct {
		url, http, token string
		code             int
		says             string
	}{
		{"hark://" + messages, "http://" + web, "", exitFailed, "into HARK_TOKEN"},
		{"hark://" + messages, "http://" + web, token, exitOK, "jobs"},
		{"hark://" + messages, "http://op:" + token + "@" + web, "", exitOK, "jobs"},
		{"hark://op:" + token + "@" + messages, "http://" + web, "", exitOK, "jobs"},
		{"hark://" + token + "@" + messages, "http://" + web, "", exitOK, "jobs"},
		{"hark://op:" + token + "3@" + messages, "http://" + web, "", exitFailed, "no user with these credentials; they are from the URL (HARK_URL), or from HARK_TOKEN"},
		{"hark://ada:" + token + "2@" + messages, "http://" + web, "", exitFailed, "user ada may not do this"},
		{"hark://" + messages, "http://op:" + token + "@" + messages, "", exitFailed, "that is the port for messages"},
	} {
		t.Setenv("HARK_URL", tt.url)
		t.Setenv("HARK_HTTP_URL", tt.http)
		t.Setenv("HARK_TOKEN", tt.token)
		code, out, errs := call(t, "", "topic", "show", "jobs")
		if code != tt.code || !strings.Contains(out+errs, tt.says) {
			t.Errorf("%s %s: got %d %s%s, want %d %s", tt.url, tt.http, code, out, errs, tt.code, tt.says)
		}
		if strings.Contains(out+errs, token) {
			t.Errorf("the token is shown: %s%s", out, errs)
		}
	}
}

// TestAdminOfOthers calls a server that is no broker, and one that stops in the
// middle of an answer.
func TestAdminOfOthers(t *testing.T) {
	t.Setenv("HARK_CONTEXTS", filepath.Join(t.TempDir(), "contexts.json"))
	for _, tt := range []struct{ args, answer, says string }{
		{"topic list", "<html>hello</html>", "is that the HTTP API of a hark broker?"},
		{"topic list", "", "EOF"},
		{"dlq replay x --all", `{"total":2}` + "\n" + `{"seq":1,"outcome":"done"}` + "\n", "stopped after 1 of 2 dead letters; the others are where they were"},
		{"dlq replay x --all", `{"total":2}` + "\n" + `{"seq":1,"outc`, "the broker has ended the answer"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(tt.answer)) }))
		code, _, errs := call(t, "", append(strings.Fields(tt.args), "--http", s.URL)...)
		s.Close()
		if code != exitFailed || !strings.Contains(errs, tt.says) {
			t.Errorf("%s: got %d %s, want %s", tt.args, code, errs, tt.says)
		}
	}
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	if code, _, errs := call(t, "", "topic", "list", "--http", s.URL); code != exitFailed || !strings.Contains(errs, "is that the HTTP API of a hark broker?") {
		t.Errorf("got %d %s", code, errs)
	}
}
