package broker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write writes a configuration and returns its path.
func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hark.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// load parses a configuration.
func load(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Load(Source{File: write(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPrecedence(t *testing.T) {
	file := write(t, "listen: 127.0.0.1:1\nhttp: 127.0.0.1:2\ndata: from-file\nlimits: {message: 1MiB}\n")
	env := map[string]string{"HARK_HTTP": "127.0.0.1:3", "HARK_DATA": "from-env", "HARK_STOP_TIMEOUT": "1m"}
	flags := map[string]string{"data": "from-flag", "limits-connections": "7"}
	c, err := Load(Source{File: file, Getenv: func(name string) string { return env[name] }, Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what      string
		got, want any
	}{
		{"of the file", c.Listen, "127.0.0.1:1"},
		{"of the file, nested", c.Limits.Message, int64(1 << 20)},
		{"of a variable, not the file", c.HTTP, "127.0.0.1:3"},
		{"of a variable, not the default", c.StopTimeout, time.Minute},
		{"of a flag, not the variable or the file", c.Data, "from-flag"},
		{"of a flag, not the default", c.Limits.Connections, int64(7)},
		{"the default", c.Log.Level, "info"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.what, tt.got, tt.want)
		}
	}
}

func TestWithoutFile(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := Load(Source{}); err != nil {
		t.Errorf("the default file is not there: got %v", err)
	}
	if _, err := Load(Source{File: "named.yaml"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a named file is not there: got %v", err)
	}
	if err := os.WriteFile(DefaultFile, []byte("name: found"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(Source{}); err != nil || c.Name != "found" {
		t.Errorf("the default file is there: got %v, %v", c, err)
	}
	if c, err := Load(Source{File: "-"}); err != nil || c.Name != "hark" {
		t.Errorf("no file: got %v, %v", c, err)
	}
}

func TestWholeFile(t *testing.T) {
	c := load(t, `
# a comment
defaults: &week {age: 7d}
`[0:0]+`
listen: 127.0.0.1:0
http: off
log: {level: debug, format: json}
users:
  - name: ada
    token: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    publish: orders.>
    subscribe: [orders.>, "region.*"]
topics:
  - {name: orders.placed, age: 7d, bytes: 10GiB, count: 1_000_000}
  - {name: orders.rest, durability: memory, dedup: 0s}
routes:
  - name: eu
    from: orders.placed
    where: |
      data.region == "eu" &&
        data.total > 100
    to: region.{data.region}
    sample: 10%
    otherwise: orders.rest
  - from: orders.*
    to: &all [all, copy]
  - from: orders.new
    to: *all
`)
	if u := c.Users[0]; u.Name != "ada" || len(u.Publish) != 1 || len(u.Subscribe) != 2 || u.Subscribe[1] != "region.*" {
		t.Errorf("got user %+v", u)
	}
	want := TopicConfig{Name: "orders.placed", Age: 7 * 24 * time.Hour, Bytes: 10 << 30, Count: 1e6, Durability: "strict", Dedup: 2 * time.Minute}
	if c.Topics[0] != want {
		t.Errorf("got topic %+v, want %+v", c.Topics[0], want)
	}
	if got := c.Topics[1]; got != (TopicConfig{Name: "orders.rest", Durability: "memory"}) {
		t.Errorf("got topic %+v", got)
	}
	if r := c.Routes[0]; r.Sample != 0.1 || r.Mode != modeCopy || len(r.To) != 1 || len(r.Otherwise) != 1 || !strings.Contains(r.Where, "100") {
		t.Errorf("got route %+v", r)
	}
	if r := c.Routes[2]; len(r.To) != 2 || r.To[1] != "copy" {
		t.Errorf("got route %+v, want what the alias stands for", r)
	}
	if c.HTTP != off || c.Log.SlogLevel().String() != "DEBUG" {
		t.Errorf("got %+v", c)
	}
}

// TestFaults checks the position and the text of each error.
func TestFaults(t *testing.T) {
	tests := []struct{ text, want string }{
		{"listn: x", `1:1: unknown key "listn"; did you mean listen?`},
		{"colour: x", `1:1: unknown key "colour"; there are users, topics, routes, webhooks, listen`},
		{"limits:\n  mesage: 1", `2:3: limits: unknown key "mesage"; did you mean message?`},
		{"name: a\nname: b", `2:1: mapping key "name" already defined at [1:1]`},
		{"listen: \"x\n", `1:9: could not find end character of double-quoted text`},
		{"a:\n  - x\n - y", `3:2: value is not allowed`},
		{"topics:\n  - name: a\n   age: 1h", `3:4: value is not allowed in this context; the keys of one entry begin in the same column`},
		{"- a", `1:1: got a list, want keys such as listen, topics and routes`},
		{"a: 1\n---\nb: 2", `3:1: the file has a second YAML document`},
		{"stop_timeout: soon", `1:15: stop_timeout: got "soon", want a time`},
		{"stop_timeout: 0s", `1:15: stop_timeout: must be above 0`},
		{"limits: {message: big}", `1:19: limits.message: got "big", want a size`},
		{"limits: {message: 100}", `1:19: limits.message: must be between`},
		{"limits: {rate: 5}\nmqtt: {listen: '127.0.0.1:0'}", `1:16: limits.rate: does not apply to MQTT clients`},
		{"limits: {rate: -1}", `1:16: limits.rate: got "-1"`},
		{"limits: 1MiB", `1:9: limits: got "1MiB", want the keys message, connections`},
		{"insecure: yes", `1:11: insecure: got "yes", want true or false`},
		{"max_hops: 0", `1:11: max_hops: must be at least 1`},
		{"log: {level: warning}", `1:14: log.level: got "warning", want debug or info or warn or error`},
		{"listen: 7422", `1:9: listen: got "7422", want HOST:PORT; did you mean 127.0.0.1:7422?`},
		{"listen: 0.0.0.0:7422", `1:9: listen: other machines reach 0.0.0.0:7422, and users and tls are missing`},
		{"http: \":80\"\nlisten: 127.0.0.1:1", `1:7: http: other machines reach :80`},
		{"tls: {key: k}", `1:6: tls.cert: is missing`},
		{"tls: {cert: none.pem, key: none.pem}", `1:6: tls: open none.pem`},
		{"topics: orders", `1:9: topics: got "orders", want a list`},
		{"topics: [orders]", `1:10: topics[0]: got "orders", want the keys name`},
		{"topics:\n  - orders", `2:5: topics[0]: got "orders", want the keys name, age, bytes, count, per_key, durability, dedup, per_topic, dead_letters; did you mean - name: orders?`},
		{"topics:\n  - nam: x", `2:5: topics[0]: unknown key "nam"; did you mean name?`},
		{"topics:\n  - age: 1h", `2:5: topics[0].name: is missing`},
		{"topics:\n  - name: orders..x", `2:11: topics[0].name: "orders..x": empty token at byte 7`},
		{"topics:\n  - name: _INBOX.a", `2:11: topics[0].name: names that begin with _INBOX`},
		{"topics:\n  - name: a\n  - name: a", `3:11: topics[1].name: there are two topics with the name a`},
		{"topics:\n  - {name: a, age: 1m, dedup: 2m}", `2:31: topics[0].dedup: an ID cannot be remembered longer (2m) than its message is kept (1m)`},
		{"topics:\n  - {name: a, durability: strickt}", `2:27: topics[0].durability: got "strickt", want strict or relaxed or memory; did you mean strict?`},
		{"topics:\n  - name: *.x", `2:11: *.x refers to nothing; a pattern that begins with * needs quotes`},
		{"routes:\n  - frm: x", `2:5: routes[0]: unknown key "frm"; did you mean from?`},
		{"routes:\n  - to: x", `2:5: routes[0].from: is missing`},
		{"routes:\n  - from: >\n    to: x", `2:11: routes[0].from: is missing; if it is the pattern > it needs quotes`},
		{"routes:\n  - from: x", `2:5: routes[0].to: is missing`},
		{"routes:\n  - {from: x, to: z, name: all}\n  - {from: x, otherwise: y}", `3:26: routes[1].otherwise: no message would go there, because route all takes every message from x; remove otherwise, or give that route a filter (where)`},
		{"routes:\n  - {from: x, to: [z, 'z.{key}'], sample: 10%, otherwise: y}", `2:59: routes[0].otherwise: no message would go there, because route 1 takes every message from x (what is not in its sample too)`},
		{"routes:\n  - {from: x, otherwise: y, where: 'true'}", `2:5: routes[0].to: is missing; where, sample and mode need it`},
		{"routes:\n  - {from: x, to: {a: b}}", `2:19: routes[0].to: got a mapping, want topics`},
		{"routes:\n  - {from: x, to: [a, 'b c']}", `2:23: routes[0].to[1]: "b c": white space at byte 1`},
		{"routes:\n  - {from: x, to: 'a.*'}", `2:19: routes[0].to: "a.*": a target is one topic`},
		{"routes:\n  - {from: x, to: 'a.{dat.x}'}", `2:19: routes[0].to: "a.{dat.x}": at byte 2: {dat.x}: there is no "dat"; did you mean data?`},
		{"routes:\n  - {from: x, to: a, where: data.x = 1}", `2:36: routes[0].where: there is no operator "=" (did you mean "=="?)`},
		{"routes:\n  - from: x\n    to: {data.region}", `3:9: routes[0].to: got a mapping, want topics; a text that begins with { needs quotes: "{data.region}"`},
		{"routes:\n  - from: x\n    to: [{topic}]", `3:10: routes[0].to[0]: got a mapping, want topics; a text that begins with { needs quotes: "{topic}"`},
		{"routes:\n  - from: x\n    to: {data.region}.x", `3:22: value is not allowed in this context; a target with {…} in it needs quotes: "{data.region}.x"`},
		{"routes:\n  - from: x\n    to: [a.{data.region}, b]", `3:12: ',' or ']' must be specified; a target with {…} in it needs quotes: "a.{data.region}"`},
		{"routes:\n  - {from: x, to: a.{data.region}}", `2:21: ',' or '}' must be specified; a target with {…} in it needs quotes: "a.{data.region}"`},
		{"routes:\n  - from: >.x\n    to: a", `2:11: invalid header option: ".x"; a text that begins with > needs quotes`},
		{"routes:\n  - from: x\n    to: a\n    where: \"a\" == data.x", `4:16: value is not allowed in this context. map key-value is pre-defined; a text that begins with a quote needs quotes around it`},
		{"routes:\n  - from: x\n    to: a\n    where: !data.x\n", `4:12: tags such as !data.x are not supported; text that begins with ! needs quotes`},
		{"topics:\n\t- name: a", `2:1: a tab in front of what the line says; YAML wants spaces`},
		{"\xff\xfea\x00", `1:1: the file is in UTF-16; save it as UTF-8`},
		{"\ufeffnme: a", `1:1: unknown key "nme"; did you mean name?`},
		{"routes:\n  - {from: x, to: a, sample: 10}", `2:30: routes[0].sample: got "10": did you mean 10%?`},
		{"routes:\n  - {from: x, to: a, sample: 1}", `2:30: routes[0].sample: got "1": did you mean 1%?`},
		{"topics:\n  - {name: a, bytes: 20K}", `2:22: topics[0].bytes: got "20K", want a size such as 1000, 64KiB or 10GB: kB, MB`},
		{"engine: nats://127.0.0.1:4222\ntopics:\n  - {name: r, durability: relaxed}\n  - name: a\n  - name: b", `4:5: topics[1]: a is strict, which needs servers that sync each message to disk`},
		{"http: 7480", `1:7: http: got "7480", want HOST:PORT; did you mean 127.0.0.1:7480?; or off`},
		{"data: ~/x", `1:7: data: got "~/x"; only shells expand ~`},
		{"routes:\n  - {from: x, to: a, where: \"topik == 'y'\"}", `2:30: routes[0].where: there is no "topik" (did you mean "topic"?)`},
		{"routes:\n  - from: x\n    to: a\n    where: |\n      data.a == 1 &&\n        topik == 'y'", `6:9: routes[0].where: there is no "topik"`},
		{"routes:\n  - from: x\n    to: a\n    where: >-\n      topik == 'y'", `5:7: routes[0].where: there is no "topik"`},
		{"routes:\n  - {from: x, to: a, sample: 200%}", `2:30: routes[0].sample: got "200%", want a part`},
		{"routes:\n  - {from: x, to: a, mode: mov}", `2:28: routes[0].mode: got "mov", want copy or move; did you mean move?`},
		{"routes:\n  - {from: x, to: a, mode: move}", `2:28: routes[0].mode: only a message of a stored topic can be moved; declare x under topics`},
		{"topics: [{name: x}]\nroutes:\n  - {from: x, to: a, mode: move}", `3:19: routes[0].to: a is not declared under topics`},
		{"topics: [{name: x}]\nroutes:\n  - {from: x, to: 'a.{data.b}.{key}-c', mode: move}", `3:19: routes[0].to: no topic under topics matches a.{data.b}.{key}-c, so messages that are moved there would not be stored; declare them, or a pattern such as a.*.*`},
		{"topics: [{name: x}, {name: a.>}]\nroutes:\n  - {from: x, to: [a.b, 'c.{topic}'], mode: move}", `3:25: routes[0].to[1]: no topic under topics matches c.{topic}`},
		{"routes:\n  - {name: r, from: x, to: a}\n  - {name: r, from: x, to: b}", `3:12: routes[1].name: routes 1 and 2 are both called r`},
		{"routes:\n  - {from: x, to: x}", `2:19: routes[0].to: messages would go in a loop: x → (route 1) → x, and so to x again`},
		{"users:\n  - publish: a", `2:5: users[0]: password or token is missing; hark user NAME makes one`},
		{"users:\n  - name: ada", `2:5: users[0]: password or token is missing; hark user ada makes one`},
		{"users:\n  - {name: a.b, token: x}", `2:12: users[0].name: "a.b" cannot be the name of a user`},
		{"users:\n  - {name: ada, token: secret}", `2:24: users[0].token: want sha256:`},
		{"users:\n  - {name: ada, password: secret}", `2:27: users[0].password: want the bcrypt hash`},
		{"users:\n  - {name: ada, publish: '*.x'}", `2:26: users[0].publish[0]: "*.x": want a pattern that begins with a name`},
		{"users:\n  - {name: ada, token: 'sha256:" + strings.Repeat("0", 64) + "', subscribe: [a.*, a.b.c]}", `2:110: users[0].subscribe: a.* and a.b.c: the server cannot permit both and nothing else below a.*; use a.>`},
	}
	for _, tt := range tests {
		file := write(t, tt.text)
		_, err := Load(Source{File: file})
		var ps Problems
		if !errors.As(err, &ps) || !strings.Contains("\n"+err.Error(), "\n"+file+":"+tt.want) {
			t.Errorf("%s\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

// TestEveryFault checks that all errors are reported together, without errors that only
// follow from others.
func TestEveryFault(t *testing.T) {
	_, err := Load(Source{
		File:   write(t, "usrs: []\nlisten: 0.0.0.0:1\ntopics:\n  - {nme: a}\nroutes:\n  - {from: x, to: x}\n  - {frm: x}\n"),
		Getenv: func(name string) string { return map[string]string{"HARK_MAX_HOPS": "many"}[name] },
		Flags:  map[string]string{"stop-timeout": "-1s"},
	})
	var ps Problems
	if !errors.As(err, &ps) {
		t.Fatal(err)
	}
	var got []string
	for _, p := range ps {
		got = append(got, strings.TrimSpace(p.Where[strings.LastIndex(p.Where, "/")+1:]+" "+p.Key))
	}
	want := "--stop-timeout,HARK_MAX_HOPS,hark.yaml,hark.yaml topics[0],hark.yaml routes[0].to,hark.yaml routes[1]"
	if strings.Join(got, ",") != want {
		t.Errorf("got %s, want %s\n%v", strings.Join(got, ","), want, err)
	}
}

// TestFaultsBesideAnUnknownKey checks that a misspelt key hides only errors about
// missing keys of its entry, because it may stand for one of them.
func TestFaultsBesideAnUnknownKey(t *testing.T) {
	_, err := Load(Source{File: write(t, `
topics:
  - {nam: a, durability: strickt, bytes: many}
routes:
  - {frm: x, to: [a, "b c"], where: data.x = 1, mode: mve, sample: 200%}
  - {name: one, from: a, to: b, wehre: data.x == 1}
  - {name: two, from: b, to: a}
  - {name: three, from: c, to: d}
  - {name: four, from: d, to: c}
webhooks:
  - {name: h, form: x, url: "ftp://x"}
`)})
	var ps Problems
	if !errors.As(err, &ps) {
		t.Fatal(err)
	}
	var got []string
	for _, p := range ps {
		got = append(got, p.Key)
	}
	want := "topics[0] topics[0].durability topics[0].bytes routes[0] routes[0].to[1] routes[0].where routes[0].mode routes[0].sample routes[1].to routes[1] routes[3].to webhooks[0] webhooks[0].url"
	if strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s\n%v", strings.Join(got, " "), want, err)
	}
}

// TestWrittenOtherwise checks values that can be written in more than one way.
func TestWrittenOtherwise(t *testing.T) {
	c := load(t, "\ufefftopics:\n  - {name: a, age: 90s, bytes: 20KB}\n  - {name: b, age: 90s, dedup: 10s, bytes: 1gib}\n  - {name: c, age: 1h}\nroutes:\n  - {from: a, to: x, sample: 10%}\n  - {from: a, to: y, sample: 0.1}\n")
	for i, want := range []TopicConfig{
		{Name: "a", Age: 90 * time.Second, Dedup: 90 * time.Second, Bytes: 20_000},
		{Name: "b", Age: 90 * time.Second, Dedup: 10 * time.Second, Bytes: 1 << 30},
		{Name: "c", Age: time.Hour, Dedup: 2 * time.Minute},
	} {
		if want.Durability = "strict"; c.Topics[i] != want {
			t.Errorf("got %+v, want %+v", c.Topics[i], want)
		}
	}
	for _, r := range c.Routes {
		if r.Sample != 0.1 {
			t.Errorf("got a sample of %v, want 0.1", r.Sample)
		}
	}
}

// TestStrictIsSaid checks when topics of an engine may be strict.
func TestStrictIsSaid(t *testing.T) {
	for _, text := range []string{
		"engine: nats://127.0.0.1:4222?sync=always\ntopics: [{name: a}]",
		"engine: nats://127.0.0.1:4222,127.0.0.1:4223?lease=5s&sync=always\ntopics: [{name: a}]",
		"engine: hark://127.0.0.1:7422\ntopics: [{name: a}]",
		"engine: nats://127.0.0.1:4222\ntopics: [{name: a, durability: relaxed}, {name: b, durability: memory}]",
		"engine: nats://127.0.0.1:4222",
	} {
		load(t, text)
	}
}

func TestUnknownVariables(t *testing.T) {
	got := UnknownVariables([]string{
		"HARK_LISTN=x", "HARK_COLOUR=x", "HARK_LISTEN=x", "HARK_URL=x", "HARK_EMPTY=", "PATH=/bin",
		"HARK_SERVICE_HOST=10.0.0.1", "HARK_PORT=tcp://10.0.0.1:7422", "HARK_PORT_7422_TCP_ADDR=10.0.0.1", "HARK_BLUE_SERVICE_PORT=1",
	}, []string{"HARK_URL"})
	if want := "HARK_COLOUR: there is no such setting\nHARK_LISTN: there is no such setting; did you mean HARK_LISTEN?"; got.Error() != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func FuzzLoad(f *testing.F) {
	for _, s := range []string{"", "a: *a", "a: &a *a", "listen: x", "routes:\n - from: a\n   to: b.{data.x}\n   where: 'a'", "topics: [{name: &x y, age: 1d}]", "? a\n: b", "!!str a: b", "<<: *a", "\r\r0: 0", "\ufeffa: {b.c}", "a: b.{c}", "a: {b: [{c}]}", "routes: [{to: {x}}]", "\ta", "a: >b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := Default()
		c.file = "hark.yaml"
		ps := c.decode([]byte(text))
		if len(ps) == 0 {
			ps = c.validate()
		}
		// YAML ends lines with a carriage return, too.
		last := strings.Count(text, "\n") + strings.Count(text, "\r") + 2
		for _, p := range ps {
			if p.Text == "" || p.Line < 0 || p.Line > last || p.Column < 0 {
				t.Errorf("got %+v", p)
			}
		}
	})
}
