package broker

import (
	"net/http"
	"slices"
)

// endpoint is an operation of the HTTP API: the one place that says where it is,
// who may call it, what it takes and what it returns. The server, the document
// /v1/openapi.json, and the tests that compare the two are all derived from the
// table of endpoints.
type endpoint struct {
	method, path string // in the form of http.ServeMux
	name         string // unique, for programs, such as listTopics
	summary      string // one line
	doc          string // what else there is to know; may be empty
	access       access
	params       []param
	body         *body     // nil for none
	answer       *answer   // nil if there is only a status
	status       int       // of success; 0 means 200
	others       []outcome // other successes
	also         []int     // statuses of further outcomes, beyond those that every endpoint may have
	// stream says that the answer goes on until somebody ends it: there are no
	// deadlines, and the context ends when the broker stops.
	stream bool
	handle func(c *call) error
}

// endpoints returns all endpoints. To add those of a noun, put them in a file of
// their own and add the name of their function here.
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

// access says who may call an endpoint. allowed is called once the parameters have
// been read.
type access struct {
	doc     string
	public  bool // no authentication needed
	allowed func(c *call) bool
}

// anybody allows everyone.
var anybody = access{doc: "no credentials", public: true, allowed: func(*call) bool { return true }}

// anyUser allows every user; the answer covers what the user may see.
var anyUser = access{doc: "the credentials of any user; the answer covers what the user may administer", allowed: func(*call) bool { return true }}

// operator allows those who administer the broker as a whole.
var operator = access{doc: "permission to administer `>`", allowed: func(c *call) bool { return c.who.mayAdminister(">") }}

// administrator allows those who administer the topic named by a parameter.
func administrator(param string) access {
	return access{doc: "permission to administer the " + param, allowed: func(c *call) bool { return c.who.mayAdminister(c.text(param)) }}
}

// publisher allows those who may publish to the topic named by a parameter.
func publisher(param string) access {
	return access{doc: "permission to publish to the " + param, allowed: func(c *call) bool { return c.who.mayPublish(c.text(param)) }}
}

// subscriber allows those who may subscribe to the topic or pattern named by a
// parameter.
func subscriber(param string) access {
	return access{doc: "permission to subscribe to the " + param, allowed: func(c *call) bool { return c.who.maySubscribe(c.text(param)) }}
}

// body describes the body of a request.
type body struct {
	media    []string // application/json if empty
	doc      string
	shape    any // a zero value of the type of the JSON; nil for any
	limit    int64
	optional bool
}

// jsonLimit is the default limit for a JSON body, in bytes.
const jsonLimit = 64 << 10

// jsonBody describes a JSON body with the shape of a value.
func jsonBody(shape any) *body { return &body{shape: shape, limit: jsonLimit} }

// answer describes the body of a response.
type answer struct {
	media string // application/json if empty; noContent for none
	doc   string
	shape any // a zero value of the type of the JSON; nil for any
}

// noContent stands for the media type of an empty answer.
const noContent = "-"

// outcome is a further kind of success, or the same one in another form.
type outcome struct {
	status int
	answer answer
}

// jsonAnswer describes a JSON answer with the shape of a value.
func jsonAnswer(shape any) *answer { return &answer{shape: shape} }

// success returns the status of a successful answer.
func (e *endpoint) success() int {
	if e.status == 0 {
		return http.StatusOK
	}
	return e.status
}

// outcomes returns the statuses of all refusals that the endpoint may return.
func (e *endpoint) outcomes() []int {
	all := append([]int{http.StatusBadRequest, http.StatusForbidden, http.StatusMisdirectedRequest, http.StatusTooManyRequests, http.StatusRequestHeaderFieldsTooLarge, http.StatusInternalServerError}, e.also...)
	if !e.access.public {
		all = append(all, http.StatusUnauthorized, http.StatusForbidden, http.StatusServiceUnavailable)
	}
	if e.body != nil {
		all = append(all, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
