package broker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// scenarios call the endpoints of each noun. TestEndpoints runs them all.
var scenarios = map[string]func(t *testing.T, a *api){
	"health": func(_ *testing.T, a *api) {
		a.want(http.StatusOK, "isAlive", nil, nil, nil)
		a.want(http.StatusOK, "isReady", nil, nil, nil)
		a.want(http.StatusOK, "getOpenAPI", nil, nil, nil)
		a.refused(http.StatusBadRequest, "unknown parameter", "isAlive", args{"verbose": "true"}, nil)
	},
}

// TestEndpoints calls every endpoint, and checks each answer against the OpenAPI
// document.
func TestEndpoints(t *testing.T) {
	b := start(t, config(t, scenarioConfig))
	a := newAPI(t, b, "")
	maps.Copy(scenarios, adminScenarios)
	for name, run := range scenarios {
		t.Run(name, func(t *testing.T) {
			mine := *a
			mine.t = t
			run(t, &mine)
		})
	}
	for i := range b.web.endpoints {
		if e := &b.web.endpoints[i]; !a.done[e.name] {
			t.Errorf("%s (%s %s) has not been called with success", e.name, e.method, e.path)
		}
	}
}

// api calls the endpoints of a broker by name, and checks every answer against the
// document.
type api struct {
	t      testing.TB
	broker *Broker
	auth   string // value of the header Authorization
	client *http.Client
	doc    *jsonschema.Compiler
	done   map[string]bool // endpoints called with success
}

func newAPI(t testing.TB, b *Broker, auth string) *api {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	a := &api{t: t, broker: b, auth: auth, client: &http.Client{Transport: transport}, doc: jsonschema.NewCompiler(), done: map[string]bool{}}
	text, err := json.Marshal(openAPI(b.web.endpoints))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	closeObjects(doc)
	if err := a.doc.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	return a
}

// closeObjects makes the schemas refuse members that the document does not name.
func closeObjects(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, ok := v["properties"]; ok && v["type"] == "object" {
			v["additionalProperties"] = false
		}
		for _, member := range v {
			closeObjects(member)
		}
	case []any:
		for _, item := range v {
			closeObjects(item)
		}
	}
}

// args are the parameters of a call, by name.
type args map[string]string

func (a *api) endpoint(name string) *endpoint {
	a.t.Helper()
	for i := range a.broker.web.endpoints {
		if e := &a.broker.web.endpoints[i]; e.name == name {
			return e
		}
	}
	a.t.Fatalf("there is no endpoint %s", name)
	return nil
}

// request builds a request to an endpoint.
func (a *api) request(e *endpoint, given args, body io.Reader) *http.Request {
	a.t.Helper()
	path, query := e.path, url.Values{}
	header := http.Header{}
	for name, value := range given {
		in := "query" // also for parameters that the endpoint does not know
		for _, p := range e.params {
			if p.name == name {
				in = p.in
			}
		}
		switch in {
		case "path":
			path = strings.Replace(path, "{"+name+"}", url.PathEscape(value), 1)
		case "header":
			header.Set(name, value)
		default:
			query.Set(name, value)
		}
	}
	target := "http://" + a.broker.HTTPAddr().String() + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(testContext(a.t), e.method, target, body)
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header = header
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.auth != "" {
		req.Header.Set("Authorization", a.auth)
	}
	return req
}

// call calls an endpoint with JSON, and returns the answer, which must be one of
// those in the document.
func (a *api) call(name string, given args, body any) (status int, text []byte) {
	a.t.Helper()
	e := a.endpoint(name)
	var in io.Reader
	if body != nil {
		sent, err := json.Marshal(body)
		if err != nil {
			a.t.Fatal(err)
		}
		in = bytes.NewReader(sent)
	}
	res, err := a.client.Do(a.request(e, given, in))
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	if text, err = io.ReadAll(res.Body); err != nil {
		a.t.Fatal(err)
	}
	a.check(e, res, text)
	return res.StatusCode, text
}

// check checks an answer against the document.
func (a *api) check(e *endpoint, res *http.Response, text []byte) {
	a.t.Helper()
	media, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	operation := fmt.Sprintf("openapi.json#/paths/%s/%s/responses/%d", escape.Replace(e.path), strings.ToLower(e.method), res.StatusCode)
	if len(text) == 0 && media == "" {
		if res.StatusCode != e.success() || e.answer != nil {
			a.t.Errorf("%s: got %d with nothing, which the document does not say", e.name, res.StatusCode)
		}
		a.done[e.name] = true
		return
	}
	compiled, err := a.doc.Compile(operation + "/content/" + escape.Replace(media) + "/schema")
	if err != nil {
		a.t.Fatalf("%s: the document has no answer %d of type %q: %s", e.name, res.StatusCode, media, text)
	}
	var documents [][]byte
	switch media {
	case "application/json", refusalType:
		documents = [][]byte{text}
	case linesType:
		documents = slices.Collect(bytes.Lines(text))
	}
	for _, text := range documents {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err == nil {
			err = compiled.Validate(value)
		}
		if err != nil {
			a.t.Errorf("%s: got %d %s, which is not what the document says: %v", e.name, res.StatusCode, text, err)
		}
	}
	if res.StatusCode == e.success() {
		a.done[e.name] = true
	}
}

// want calls an endpoint, requires a status, and decodes the answer.
func (a *api) want(status int, name string, given args, body, into any) []byte {
	a.t.Helper()
	got, text := a.call(name, given, body)
	if got != status {
		a.t.Fatalf("%s %v: got %d %s, want %d", name, given, got, text, status)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			a.t.Fatal(err)
		}
	}
	return text
}

// refused calls an endpoint, and requires a refusal with a certain text.
func (a *api) refused(status int, says, name string, given args, body any) {
	a.t.Helper()
	var r refusal
	if got, text := a.call(name, given, body); got != status || json.Unmarshal(text, &r) != nil || !strings.Contains(r.Error(), says) {
		a.t.Errorf("%s %v: got %d %s, want %d and %q", name, given, got, text, status, says)
	}
}

// TestOpenAPI compares the document in docs with the endpoints, and checks that
// every endpoint is fully described.
func TestOpenAPI(t *testing.T) {
	all := endpoints()
	names := map[string]bool{}
	for i := range all {
		e := &all[i]
		if e.name == "" || names[e.name] || e.summary == "" || e.access.doc == "" || e.access.allowed == nil || e.handle == nil {
			t.Errorf("%s %s %q: want a name of its own, a summary, who may ask, and a handler", e.method, e.path, e.name)
		}
		names[e.name] = true
		inPath := strings.Count(e.path, "{")
		for _, p := range e.params {
			if p.in == "path" {
				inPath--
				if !strings.Contains(e.path, "{"+p.name+"}") {
					t.Errorf("%s: %s is not in the path %s", e.name, p.name, e.path)
				}
			}
			if p.doc == "" || p.def != "" && p.check(p.def) != nil {
				t.Errorf("%s: parameter %s: want what it means, and a default that it may be", e.name, p.name)
			}
			if _, err := strconv.ParseUint(p.def, 10, 64); p.schema["type"] == "integer" && p.def != "" && err != nil {
				t.Errorf("%s: parameter %s: %v", e.name, p.name, err)
			}
		}
		if inPath != 0 {
			t.Errorf("%s: the parameters do not name all of the path %s", e.name, e.path)
		}
		if e.body != nil && e.body.limit <= 0 {
			t.Errorf("%s: how long may a body be?", e.name)
		}
	}
	text, err := json.MarshalIndent(openAPI(all), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const path = "../docs/openapi.json"
	want := string(text) + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s is stale (%v); write it with: go test ./broker -run TestOpenAPI -update", path, err)
	}
}
