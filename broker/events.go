package broker

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/names"
)

// The forms in which events are sent.
const (
	sseType    = "text/event-stream"
	ndjsonType = "application/x-ndjson"
)

const (
	// pollWait is how long a poll waits if nothing is said, and pollWaitMost how
	// long it may.
	pollWait     = 30 * time.Second
	pollWaitMost = 5 * time.Minute
	// groupWindow is how many messages a member of a group has in hand over a
	// WebSocket if nothing is said, and those of other forms always.
	groupWindow     = 16
	groupWindowMost = 256
	// groupPatience is how long a poll of a group waits at least: less than that
	// and a message that is there may not have come.
	groupPatience = 250 * time.Millisecond
	// ackWait is how long a message of a group may be in the hands of a client
	// over a WebSocket if nothing is said, and ackWaitMost how long it may.
	ackWait     = 30 * time.Second
	ackWaitMost = time.Hour
	// streamPatience is how long a client may take to take what it is sent, before
	// it is cut off.
	streamPatience = 10 * time.Second
)

// eventsEndpoints send messages.
func eventsEndpoints() []endpoint {
	wait := durationParam("wait", "how long a poll waits for the first event; at most 5m")
	wait.def = "30s"
	most := numberParam("max", 1, 10_000, "how many events a poll returns at most")
	most.def = "100"
	window := numberParam("window", 1, groupWindowMost, "how many messages of a group a WebSocket is sent before it has acknowledged one")
	window.def = strconv.Itoa(groupWindow)
	keyed := flagParam("keyed", "the group keeps the order of keys, as those of hark do on topics with KeyBy: messages of one key are in the hands of one member at a time. All members must agree")
	patience := durationParam("ack_wait", "how long a WebSocket may take to acknowledge a message of a group, before others get it; at least 1s, at most 1h")
	patience.def = "30s"
	from := textParam("from", "where on a stored topic, or a store, to begin: `start`, `now`, a sequence, what `Hark-Next` has said, a time such as 2026-01-02T15:04:05Z, or `last:10`. A group that has a place goes on from there")
	from.def = "now"
	from.check = func(s string) error { _, err := parseFrom(s, time.Now()); return err }
	lastID := textParam("Last-Event-ID", "go on behind this event of a stored topic, whatever `from` says: its `id`, which browsers send by themselves, or its `seq`").inHeader()
	lastID.check = func(s string) error {
		if _, _, err := parseEventID(s); err != nil {
			return fmt.Errorf("got %q, want the id of an event of a stored topic", s)
		}
		return nil
	}
	return []endpoint{{
		method: http.MethodGet, path: "/v1/topics/{topic}/events", name: "subscribe", summary: "follow a topic, or those that match a pattern",
		doc: "The form is chosen by `Accept` and `Upgrade`: server-sent events (`text/event-stream`, also if nothing is said), a poll that waits for events and returns lines of JSON (`application/x-ndjson`), or a WebSocket with a JSON text for each event. " +
			"Each event is a CloudEvent in the JSON format, with `topic`, `seq` (on stored topics), `key` and `headers` beside its attributes.\n\n" +
			"A client that is too slow misses nothing of a stored topic, or of a pattern in a store. Of others it misses what is too old, and is told: by an event `dropped` with data `{\"dropped\":N}`, or that as a line or text of its own. One that goes on with what is of a topic that was created again gets everything of that, and is told: `reset` with data `{\"reset\":true}`. docs/gateway.md says what is promised in each form.",
		access: subscriber("topic"),
		params: []param{
			patternParam("topic", "the topic, or a pattern. A pattern of which one store keeps all is like a stored topic; of others messages are seen as they are published, those of stored topics too").inPath(),
			filterParam("where", "send only what this filter matches, see docs/filters.md"),
			textParam("group", "share the messages with the others of this group; on a stored topic it keeps its place"),
			keyed, from, lastID, wait, most, window, patience,
		},
		answer: &answer{media: sseType, doc: "events, as they come"},
		others: []outcome{
			{http.StatusOK, answer{media: ndjsonType}},
			{http.StatusSwitchingProtocols, answer{media: noContent, doc: "a WebSocket follows"}},
		},
		also:   []int{http.StatusNotAcceptable, http.StatusConflict, http.StatusUpgradeRequired},
		stream: true,
		handle: eventsCall,
	}}
}

// form is how events are sent.
type form uint8

const (
	formSSE form = iota
	formPoll
	formWebSocket
	formNone
)

// formOf returns the form that a request asks for.
func formOf(r *http.Request) form {
	if headerHas(r.Header, "Upgrade", "websocket") {
		return formWebSocket
	}
	accepted := r.Header.Values("Accept")
	if len(accepted) == 0 {
		return formSSE
	}
	best, quality := formNone, 0.0
	for part := range strings.SplitSeq(strings.Join(accepted, ","), ",") {
		media, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		f := formNone
		switch media {
		case sseType, "text/*", "*/*":
			f = formSSE
		case ndjsonType, "application/*":
			f = formPoll
		}
		q := 1.0
		if s, ok := params["q"]; ok {
			q, _ = strconv.ParseFloat(s, 64) // what is no number is not wanted
		}
		if f != formNone && q > quality {
			best, quality = f, q
		}
	}
	return best
}

// headerHas reports whether a header has a word in its list.
func headerHas(h http.Header, name, word string) bool {
	for _, value := range h.Values(name) {
		for part := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(part), word) {
				return true
			}
		}
	}
	return false
}

// eventsCall sends events in the form that is asked for.
func eventsCall(c *call) error {
	f := formOf(c.req)
	if f == formNone {
		return refused(http.StatusNotAcceptable, "events are not sent as %q", strings.Join(c.req.Header.Values("Accept"), ", ")).
			but("Accept %s, %s, or upgrade to a WebSocket", sseType, ndjsonType)
	}
	if d := c.duration("wait"); d > pollWaitMost {
		return refused(http.StatusBadRequest, "wait: at most %v", pollWaitMost)
	}
	if d := c.duration("ack_wait"); d < time.Second || d > ackWaitMost {
		return refused(http.StatusBadRequest, "ack_wait: at least 1s, at most %v", ackWaitMost)
	}
	for _, name := range formParams[f] {
		if c.req.URL.Query().Has(name) {
			return refused(http.StatusBadRequest, "%s is not for this form of events", name).but("wait and max are for %s, window and ack_wait are for a group over a WebSocket", ndjsonType)
		}
	}
	g := c.broker.gateway
	release, err := g.enter()
	if err != nil {
		return err
	}
	defer release()
	s, err := g.source(c, f)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), openPatience)
		defer cancel()
		if err := s.close(ctx); err != nil {
			c.broker.log.Warn("a client did not leave well", "part", "gateway", "topic", c.text("topic"), "err", err)
		}
	}()
	if f == formWebSocket {
		return c.webSocket(s)
	}
	c.forgetHeaders()
	if f == formPoll {
		return c.poll(s)
	}
	return c.sse(s)
}

// forgetHeaders frees the memory of the headers of a request. Streams last, and there
// are many.
func (c *call) forgetHeaders() { clear(c.req.Header) }

// formParams are the parameters that a form has no use for.
var formParams = map[form][]string{
	formSSE: {"wait", "max", "window", "ack_wait"}, formPoll: {"window", "ack_wait"}, formWebSocket: {"wait", "max"},
}

// source opens what a request asks for.
func (g *gateway) source(c *call, f form) (source, error) {
	name, group, where := c.text("topic"), c.text("group"), c.filter("where")
	k, err := g.topics.open(c.ctx, name)
	if err != nil {
		return nil, err
	}
	from, stats, reset, err := c.begin(c.ctx, k)
	if err != nil {
		return nil, err
	}
	if group == "" {
		if c.flag("keyed") {
			return nil, refused(http.StatusBadRequest, "keyed is for the members of a group")
		}
		w, err := g.fans.follow(c.ctx, hubKey{name, k.stored}, k.topic, where, from, stats.Created)
		if err != nil {
			return nil, err
		}
		w.reset = reset
		if f == formPoll {
			w.most = min(int(c.number("max")), packFrames)
		}
		return w, nil
	}
	if len(group) > names.MaxLen {
		return nil, refused(http.StatusBadRequest, "group: has %d bytes, at most %d may be", len(group), names.MaxLen)
	}
	m := &groupMember{filter: where, maker: &g.fans.maker, window: groupWindow, patience: heartbeat}
	switch f {
	case formSSE: // its events have IDs, with which a browser comes again
		if k.stored && stats.Created.IsZero() {
			if stats, err = k.topic.Stats(c.ctx); err != nil {
				return nil, err
			}
		}
		m.mark = markOf(stats.Created)
	case formWebSocket:
		m.window = int(c.number("window"))
	case formPoll:
		m.window, m.gathers = int(min(c.number("max"), groupWindowMost)), true
		m.patience = max(c.duration("wait"), groupPatience)
	}
	from.Group, from.Keyed, from.Window = group, c.flag("keyed"), m.window
	if !k.stored {
		from.Window = liveWindow
	}
	if k.topic == nil {
		m.sub, err = g.conn.SubscribePattern(c.ctx, name, from)
	} else {
		m.sub, err = k.topic.Subscribe(c.ctx, from)
	}
	if err != nil {
		return nil, err
	}
	if f == formWebSocket && k.stored {
		return newAckedMember(m, c.duration("ack_wait")), nil
	}
	return m, nil
}

// begin returns where to begin, and for who resumes what is said of the topic and whether it
// was created again.
func (c *call) begin(ctx context.Context, k *knownTopic) (from driver.SubscribeConfig, stats driver.TopicStats, reset bool, err error) {
	at, err := parseFrom(c.text("from"), time.Now())
	if err != nil {
		return from, stats, false, refused(http.StatusBadRequest, "from: %s", err)
	}
	last, resumes := c.get("Last-Event-ID")
	if !k.stored && (resumes || at.From != driver.FromNow) {
		return from, stats, false, refused(http.StatusConflict, "what is published to %s is not stored, so nothing can be had but what comes from now on", c.text("topic")).
			but("declare the topic under topics in the configuration of the broker, or leave out from and Last-Event-ID")
	}
	if resumes {
		seq, mark, err := parseEventID(last)
		if err != nil {
			return from, stats, false, refused(http.StatusBadRequest, "Last-Event-ID: %s", err)
		}
		at = startPosition{driver.SubscribeConfig{From: driver.FromSeq, Seq: seq + 1}, mark}
	}
	if !resumes && at.mark == "" {
		return at.SubscribeConfig, stats, false, nil
	}
	if stats, err = k.topic.Stats(ctx); err != nil {
		return from, stats, false, err
	}
	from, reset = at.resolve(&stats)
	return from, stats, reset, nil
}
