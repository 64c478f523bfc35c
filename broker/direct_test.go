package broker

import (
	"net/http"
	"net/url"
	"testing"
)

// FuzzDirectTable compares what the table finds with what http.ServeMux finds.
func FuzzDirectTable(f *testing.F) {
	var name, value string // of what was found
	mux, direct := http.NewServeMux(), directTable{}
	for _, e := range endpoints() {
		serve := func(_ http.ResponseWriter, r *http.Request, last string) {
			name, value = e.name, last
			for _, p := range e.params {
				if p.in == "path" && last == "" {
					value = r.PathValue(p.name)
				}
			}
		}
		direct.add(&e, serve)
		mux.HandleFunc(e.method+" "+e.path, func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, "") })
	}
	for _, target := range []string{
		"/v1/topics/a", "/v1/topics/a.b/", "/v1/topics/", "/v1/topics", "/v1/topics/.", "/v1/topics/..", "/v1/topics/...", "/v1//topics/a", "/v1/topics//a", "/v1/./topics/a",
		"/v1/topics/a%2Fb", "/v1/topics%2Fa", "/v1%2Ftopics/a", "/v1/topics/a%20b", "/v1/topics/%2e%2e", "/v1/topics/ä?key=1", "http://host/v1/topics/a", "//v1/topics/a", "/v1/topics/{topic}", "/v1/topics/a/events",
		"/v1/admin/topics/a", "/v1/admin/topics/a/groups", "/v1/admin/routes/a", "/v1/admin/latches/a%2525", "*", "/",
	} {
		for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodConnect, "post"} {
			f.Add(method, target)
		}
	}
	f.Fuzz(func(t *testing.T, method, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Skip()
		}
		r := &http.Request{Method: method, URL: u, RequestURI: target, Host: u.Host}
		serve, last := direct.find(r)
		if serve == nil {
			return
		}
		serve(nil, r, last)
		foundName, foundValue := name, value
		name, value = "", ""
		mux.ServeHTTP(&statusProbe{header: http.Header{}}, r)
		if foundName != name || foundValue != value {
			t.Errorf("%s %s: found %s with %q, want %s with %q", method, target, foundName, foundValue, name, value)
		}
	})
}

// TestDirectTable checks that the table has what is to be found in it.
func TestDirectTable(t *testing.T) {
	found := ""
	direct := directTable{}
	for _, e := range endpoints() {
		direct.add(&e, func(http.ResponseWriter, *http.Request, string) { found = e.name })
	}
	r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: "/v1/topics/orders.eu"}}
	serve, last := direct.find(r)
	if serve == nil || last != "orders.eu" {
		t.Fatalf("got %q, want the endpoint for publishing with orders.eu", last)
	}
	if serve(nil, r, last); found != "publish" {
		t.Errorf("found %s, want publish", found)
	}
}
