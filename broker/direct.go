package broker

import (
	"net/http"
	"strings"
)

// directTable finds endpoints whose only variable is the end of their path, such as the
// one for publishing, in a fraction of the time of http.ServeMux. It finds what the mux
// would, or nothing: the mux then says what becomes of the request.
type directTable map[directPath]endpointHandler

// directPath is a method, and a path up to its variable.
type directPath struct{ method, begin string }

// endpointHandler serves requests to an endpoint. last is the value of the variable at
// the end of its path, or "" if it is among the path values of the request.
type endpointHandler func(rw http.ResponseWriter, r *http.Request, last string)

// add adds an endpoint, if it is one of those.
func (t directTable) add(e *endpoint, serve endpointHandler) {
	if i := strings.IndexByte(e.path, '{'); i >= 0 && i == strings.LastIndexByte(e.path, '/')+1 {
		t[directPath{e.method, e.path[:i]}] = serve
	}
}

// find returns the handler of a request and the value of its variable, or nil.
func (t directTable) find(r *http.Request) (serve endpointHandler, last string) {
	path := r.URL.Path
	i := strings.LastIndexByte(path, '/') + 1
	switch last = path[i:]; {
	case last == "", last == ".", last == "..": // the mux redirects it
	case r.URL.RawPath != "": // a part of it may have an escaped slash
	default:
		serve = t[directPath{r.Method, path[:i]}]
	}
	return serve, last
}
