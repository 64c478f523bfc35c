package broker

import (
	"net/http"
	"slices"
)

// endpoint is something that is asked over HTTP: the one place that says where it
// is, who may ask, what it takes and what it answers. From the table of all come
// the server, the document /v1/openapi.json, and the tests that hold both together.
type endpoint struct {
	method, path string // as http.ServeMux has them
	name         string // unique, for programs: listTopics
	summary      string // one line
	doc          string // what there is to know beyond it; may be empty
	access       access
	params       []param
	body         *body     // nil for none
	answer       *answer   // nil if there is nothing but a status
	status       int       // of success; 200 if it is 0
	others       []outcome // other successes
	also         []int     // statuses of other outcomes than those that every endpoint may have
	// stream says that the answer goes on until somebody ends it: there are no
	// deadlines, and the context ends when the broker stops.
	stream bool
	handle func(c *call) error
}

// endpoints returns everything that is served. A noun has its own in a file of its
// own, and one word here.
func endpoints() []endpoint {
	return slices.Concat(
		healthEndpoints(),
		openAPIEndpoints(),
		metricsEndpoints(),
		brokerEndpoints(),
		topicEndpoints(),
		storeEndpoints(),
		messageEndpoints(),
		groupEndpoints(),
		subscriptionEndpoints(),
		connectionEndpoints(),
		routeEndpoints(),
		deadEndpoints(),
		valueEndpoints(),
		latchEndpoints(),
		publishEndpoints(),
		eventsEndpoints(),
		webhookEndpoints(),
	)
}

// access says who may ask. allowed is called once the parameters have been read.
type access struct {
	doc     string
	public  bool // whoever it is, without saying so
	allowed func(c *call) bool
}

// anybody may ask.
var anybody = access{doc: "everybody", public: true, allowed: func(*call) bool { return true }}

// anyUser may ask, and is answered with what the user may see.
var anyUser = access{doc: "every user, about what the user may administer", allowed: func(*call) bool { return true }}

// operator may ask: who administers the broker as a whole.
var operator = access{doc: "who administers `>`", allowed: func(c *call) bool { return c.who.mayAdminister(">") }}

// administrator may ask: who administers the topic that a parameter names.
func administrator(param string) access {
	return access{doc: "who administers the " + param, allowed: func(c *call) bool { return c.who.mayAdminister(c.text(param)) }}
}

// publisher may ask: who may publish to the topic that a parameter names.
func publisher(param string) access {
	return access{doc: "who may publish to the " + param, allowed: func(c *call) bool { return c.who.mayPublish(c.text(param)) }}
}

// subscriber may ask: who may subscribe to the topic or pattern that a parameter
// names.
func subscriber(param string) access {
	return access{doc: "who may subscribe to the " + param, allowed: func(c *call) bool { return c.who.maySubscribe(c.text(param)) }}
}

// body is what a request carries.
type body struct {
	media    []string // application/json if there is none
	doc      string
	shape    any // a zero value of what the JSON is; nil for anything
	limit    int64
	optional bool
}

// jsonLimit is how long a body of JSON may be, in bytes, where nothing else is said.
const jsonLimit = 64 << 10

// jsonBody is JSON of the shape of a value.
func jsonBody(shape any) *body { return &body{shape: shape, limit: jsonLimit} }

// answer is what a response carries.
type answer struct {
	media string // application/json if it is empty; noContent for none
	doc   string
	shape any // a zero value of what the JSON is; nil for anything
}

// noContent is the media type of an answer that has none.
const noContent = "-"

// outcome is another success than the first, or the same one in another form.
type outcome struct {
	status int
	answer answer
}

// jsonAnswer is JSON of the shape of a value.
func jsonAnswer(shape any) *answer { return &answer{shape: shape} }

// success returns the status of success.
func (e *endpoint) success() int {
	if e.status == 0 {
		return http.StatusOK
	}
	return e.status
}

// outcomes returns the statuses of all refusals that the endpoint may answer with.
func (e *endpoint) outcomes() []int {
	all := append([]int{http.StatusBadRequest, http.StatusForbidden, http.StatusMisdirectedRequest, http.StatusTooManyRequests, http.StatusInternalServerError}, e.also...)
	if !e.access.public {
		all = append(all, http.StatusUnauthorized, http.StatusForbidden, http.StatusServiceUnavailable)
	}
	if e.body != nil {
		all = append(all, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
