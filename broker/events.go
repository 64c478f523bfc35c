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
	// pollWait is how long a poll waits if nothing is said, and maxPollWait how
	// long it may.
	pollWait    = 30 * time.Second
	maxPollWait = 5 * time.Minute
	// groupWindow is how many messages a member of a group has in flight over a
	// WebSocket if nothing is said, and those of other forms always.
	groupWindow    = 16
	maxGroupWindow = 256
	// groupTimeout is how long a poll of a group waits at least: less than that
	// and a message that is there may not have come.
	groupTimeout = 250 * time.Millisecond
	// ackWait is how long a message of a group may be in the hands of a client
	// over a WebSocket if nothing is said, and maxAckWait how long it may.
	ackWait    = 30 * time.Second
	maxAckWait = time.Hour
	// streamTimeout is how long a client may take to take what it is sent, before
	// it is cut off.
	streamTimeout = 10 * time.Second
)

// eventsEndpoints send messages.
func eventsEndpoints() []endpoint {
	wait := durationParam("wait", "how long a poll waits for the first event; at most 5m")
	wait.def = "30s"
	most := numberParam("max", 1, 10_000, "the maximum number of events that a poll returns")
	most.def = "100"
	window := numberParam("window", 1, maxGroupWindow, "the maximum number of messages of a group in flight over a WebSocket")
	window.def = strconv.Itoa(groupWindow)
	keyed := flagParam("keyed", "whether the group keeps the order of keys, like groups of Go programs on topics with KeyBy: one member at a time gets the messages with the same key. All members must agree")
	ackTime := durationParam("ack_wait", "how long a client may take to acknowledge a message of a group over a WebSocket, before another member gets it; at least 1s, at most 1h")
	ackTime.def = "30s"
	from := textParam("from", "the start position on a stored topic or a store: `start`, `now`, a sequence, the value of `Hark-Next`, a time such as 2026-01-02T15:04:05Z, or `last:10`. A group that has a position continues from there")
	from.def = "now"
	from.check = func(s string) error { _, err := parseFrom(s, time.Now()); return err }
	lastID := textParam("Last-Event-ID", "continue after this event of a stored topic, instead of `from`: the `id` of the event, which browsers send by themselves, or its `seq`").inHeader()
	lastID.check = func(s string) error {
		if _, _, err := parseEventID(s); err != nil {
			return fmt.Errorf("got %q, want the id of an event of a stored topic", s)
		}
		return nil
	}
	return []endpoint{{
		method: http.MethodGet, path: "/v1/topics/{topic}/events", name: "subscribe", summary: "follow a topic, or all topics that match a pattern",
		doc: "`Accept` and `Upgrade` choose the form: server-sent events (`text/event-stream`, the default), a poll that waits for events and returns lines of JSON (`application/x-ndjson`), or a WebSocket with a JSON text for each event. " +
			"Each event is a CloudEvent in the JSON format, with `topic`, `seq` (on stored topics), `key` and `headers` beside its attributes.\n\n" +
			"A slow client misses nothing on a stored topic, or on a pattern in a store. " +
			"On other topics it misses old messages and is told how many, by an event `dropped` with data `{\"dropped\":N}`, or by this data as a line or text. " +
			"A client that resumes on a topic that was deleted and created again gets all messages of the new topic, after an event `reset` with data `{\"reset\":true}`. " +
			"docs/gateway.md describes the guarantees of each form.",
		access: subscriber("topic"),
		params: []param{
			patternParam("topic", "the topic or a pattern. A pattern that one store holds completely is like a stored topic; on other patterns, messages are delivered as they are published, also those of stored topics").inPath(),
			filterParam("where", "send only messages that match this filter"),
			textParam("group", "share the messages with the other members of this group; on a stored topic, the group keeps its position"),
			keyed, from, lastID, wait, most, window, ackTime,
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
		return refused(http.StatusNotAcceptable, "events cannot be sent as %q", strings.Join(c.req.Header.Values("Accept"), ", ")).
			but("Accept %s, %s, or upgrade to a WebSocket", sseType, ndjsonType)
	}
	if d := c.duration("wait"); d > maxPollWait {
		return refused(http.StatusBadRequest, "wait: at most %v", maxPollWait)
	}
	if d := c.duration("ack_wait"); d < time.Second || d > maxAckWait {
		return refused(http.StatusBadRequest, "ack_wait: at least 1s, at most %v", maxAckWait)
	}
	for _, name := range formParams[f] {
		if c.req.URL.Query().Has(name) {
			return refused(http.StatusBadRequest, "%s does not apply to this form of events", name).but("wait and max apply to %s; window and ack_wait apply to a group over a WebSocket", ndjsonType)
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
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), openTimeout)
		defer cancel()
		if err := s.close(ctx); err != nil {
			c.broker.log.Warn("ending the subscription of a client failed", "part", "gateway", "topic", c.text("topic"), "err", err)
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
			return nil, refused(http.StatusBadRequest, "keyed applies only to members of a group")
		}
		w, err := g.fans.follow(c.ctx, hubKey{name, k.stored}, k.topic, where, from, stats.Created)
		if err != nil {
			return nil, err
		}
		w.reset = reset
		if f == formPoll {
			w.most = min(int(c.number("max")), maxFrameBatch)
		}
		return w, nil
	}
	if len(group) > names.MaxLen {
		return nil, refused(http.StatusBadRequest, "group has %d bytes; want at most %d", len(group), names.MaxLen)
	}
	m := &groupMember{filter: where, maker: &g.fans.maker, window: groupWindow, timeout: heartbeat}
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
		m.window, m.gathers = int(min(c.number("max"), maxGroupWindow)), true
		m.timeout = max(c.duration("wait"), groupTimeout)
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
	if k.stored {
		m.letGo = keepLeases(g.conn, m.sub, g.fans.log.With("topic", name, "group", group))
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
		return from, stats, false, refused(http.StatusConflict, "%s is not stored, so only messages from now on can be read", c.text("topic")).
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
