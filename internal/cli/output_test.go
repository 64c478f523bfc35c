package cli

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harkbus/hark/broker"
	"github.com/harkbus/hark/driver"
)

// noJSON lists the commands without --output json, with the reason.
var noJSON = map[string]string{
	"hark reply":          "it prints nothing: answers go to those who ask",
	"hark chan close":     "it prints nothing",
	"hark chan remove":    "it prints nothing",
	"hark latch":          "it prints nothing",
	"hark unlatch":        "it prints nothing",
	"hark context add":    "it prints nothing",
	"hark context use":    "it prints nothing",
	"hark context remove": "it prints nothing",
	"hark completion":     "it prints a script for a shell",
	"hark demo webhooks":  "it prints JSON and nothing else",
	"hark demo channel":   "it is a program of examples, to be looked at",
	"hark demo notify":    "it is a program of examples, to be looked at",
}

// TestOutput checks that each command that prints something has --output json.
func TestOutput(t *testing.T) {
	left := map[string]bool{}
	for path := range noJSON {
		left[path] = true
	}
	var walk func(c command)
	walk = func(c command) {
		c.path = strings.TrimSpace(c.path + " " + c.name)
		if c.setup != nil {
			output := c.flags().Lookup("output")
			has := output != nil && output.Value.Set("json") == nil
			reason := noJSON[c.path]
			switch {
			case !has && reason == "":
				t.Errorf("%s has no --output json: give it one, or say in noJSON why it needs none", c.path)
			case has && reason != "":
				t.Errorf("%s has --output json, and noJSON says that it needs none: %s", c.path, reason)
			}
			delete(left, c.path)
		}
		for _, sub := range c.subs {
			sub.path = c.path
			walk(sub)
		}
	}
	walk(root)
	for path := range left {
		t.Errorf("noJSON has %s, which is no command that runs", path)
	}
}

// TestOutputJSON parses the JSON of commands that need no broker.
func TestOutputJSON(t *testing.T) {
	noContexts(t)
	t.Chdir(t.TempDir())
	tests := []struct {
		in, args string
		code     int
		key      string // the last line of the output must have it
		want     any    // its value; nil for any
	}{
		{"", "version", exitOK, "go", nil},
		{"", "serve --check --config -", exitOK, "valid", true},
		{"", "serve --check --config - --listen nowhere", exitFailed, "valid", false},
		{"", "serve --check --config gone.yaml", exitFailed, "valid", false},
		{"", "user ada", exitOK, "token", nil},
		{"secret of ada\n", "user ada --password", exitOK, "user", nil},
		{"", "filter check data.n>1", exitOK, "filter", "data.n>1"},
		{"{\"n\": 1}\n\n {\"n\": 2} \n", "filter test data.n>1", exitOK, "line", 3.0},
		{"{\"n\": 1}\n{\"n\": 2}", "filter test data.n>1 --count", exitOK, "matched", 1.0},
		{"", "demo --rate 0 --count 10", exitOK, "published", 10.0},
		{"", "demo --rate 0 --count 10 --url file:data", exitOK, "stored", 10.0},
		{"", "context show", exitOK, "from", "the default"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			code, out, errs := call(t, tt.in, append(strings.Fields(tt.args), "--output", "json")...)
			if code != tt.code {
				t.Errorf("got code %d, want %d: %s", code, tt.code, errs)
			}
			last := map[string]any{}
			for line := range strings.SplitSeq(strings.TrimSpace(out), "\n") {
				clear(last)
				if err := json.Unmarshal([]byte(line), &last); err != nil {
					t.Fatalf("%q is no JSON: %v", line, err)
				}
			}
			if got, ok := last[tt.key]; !ok || tt.want != nil && got != tt.want {
				t.Errorf("got %s, want %s to be %v", out, tt.key, tt.want)
			}
		})
	}
	if names, err := filepath.Glob("*"); err != nil || !slices.Equal(names, []string{"data"}) {
		t.Errorf("the commands have left %q, %v, want only the data of the demo", names, err)
	}
}

// TestPretty prints a message whose publisher tries to write to the terminal.
func TestPretty(t *testing.T) {
	const evil = "a\x1b[2J\nb\u009b2J\u202ec"
	for _, tt := range []struct{ data, want string }{
		{"x\n\ty" + evil, "x\n    ya [2J\nb 2J\\u202ec"},
		{`{"n":"` + "\u202e" + `"}`, "{\n    \"n\": \"\\u202e\"\n  }"},
	} {
		m := driver.Message{Key: evil, HasKey: true, ID: evil, Headers: map[string]string{evil: evil}, Data: []byte(tt.data), Time: time.Unix(0, 0)}
		got, err := pretty(&broker.Event{Message: &driver.Received{Message: m, Topic: evil, Seq: 1}})
		const shown = `a [2J b 2J\u202ec`
		want := time.Unix(0, 0).Format("15:04:05.000") + "  " + shown + "  #1  key " + shown + "  id " + shown + "\n  " + shown + ": " + shown + "\n  " + tt.want
		if string(got) != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
}

// TestMessageAsJSON prints messages whose data JSON could escape, but need not.
func TestMessageAsJSON(t *testing.T) {
	for data, want := range map[string]string{
		`{"n": "<b> & c"}`: `"data":{"n":"<b> & c"}}`,
		"<b> & c":          `"data":"<b> & c"}`,
	} {
		for _, form := range []string{"json", `{{json .}}`} {
			print, err := messageFormat(form)
			if err != nil {
				t.Fatal(err)
			}
			got, err := print(&broker.Event{Message: &driver.Received{Message: driver.Message{Data: []byte(data)}, Topic: "a"}})
			if err != nil || !strings.Contains(string(got), want[:len(want)-1]) {
				t.Errorf("%s of %s: got %s, %v, want %s", form, data, got, err, want)
			}
		}
	}
}

// TestTemplate prints messages with templates, some over fields that there are not.
func TestTemplate(t *testing.T) {
	m := driver.Message{Headers: map[string]string{"tenant": "shop"}, Data: []byte(`{"total": 7, "by": {"name": "ada"}}`)}
	full := &broker.Event{Message: &driver.Received{Message: m, Topic: "orders", Seq: 3}}
	empty := &broker.Event{Message: &driver.Received{Topic: "orders"}}
	const top = "data, datacontenttype, headers, id, key, seq, source, subject, time, topic, type"
	for _, tt := range []struct {
		form      string
		e         *broker.Event
		want, err string // err must be part of the error; empty if there is none
	}{
		{`{{.topic}} {{.seq}} {{.data.by.name}} {{.headers.tenant}}`, full, "orders 3 ada shop", ""},
		{`<{{.key}}{{.id}}{{.time}}{{.type}}{{.data}}{{.seq}}>`, empty, "<>", ""},
		{`{{or (index .data "nope") "none"}}`, full, "none", ""},
		{`{{.nope}}`, full, "", "--output: the message has no .nope: the message has " + top},
		{`{{.topic}}{{if .data.nope}}x{{end}}`, full, "", "--output: the message has no .data.nope: .data has by, total"},
		{`{{with .data.by}}{{$.headers.region}}{{end}}`, full, "", "the message has no .headers.region: .headers has tenant"},
		{`{{range .data}}{{.}}{{else}}{{end}}{{.data.by.a_name_of_many_letters}}`, full, "", "no .data.by.a_name_of_many_letters: .data.by has name"},
		{`{{.data.total.cents}}`, full, "", "no .data.total.cents: .data.total is no object"},
		{`{{.data.total}}`, empty, "", "no .data.total: .data is no object"},
	} {
		print, err := messageFormat(tt.form)
		if err != nil {
			t.Fatal(err)
		}
		got, err := print(tt.e)
		if string(got) != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %q, %v, want %q, %q", tt.form, got, err, tt.want, tt.err)
		}
	}
}
