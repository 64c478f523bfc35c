package broker

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/harkbus/hark/driver"
)

// publishEndpoints accept messages.
func publishEndpoints() []endpoint {
	return []endpoint{{
		method: http.MethodPost, path: "/v1/topics/{topic}", name: "publish", summary: "publish to a topic",
		doc: "The body is a CloudEvent in binary mode (headers `ce-…`) or structured mode, a batch of CloudEvents, or anything else, which is published as it is. " +
			"For a stored topic, the answer is sent when the messages are stored. Other topics store nothing; the answer then says that the message was sent to the present subscribers. " +
			"A header `Hark-Header-NAME` of the request becomes the header `name` of the message.\n\n" +
			"Stored topics recognise duplicates within their `dedup` window: by `Idempotency-Key` if it is given, which is the ID that Go programs set with `hark.ID`, and otherwise by source and ID of a CloudEvent together. " +
			"Without either, duplicates are not recognised. In a batch, the key of an event is `Idempotency-Key`, a slash and the number of the event.\n\n" +
			"A batch with an invalid event is refused as a whole. If only a part of a batch could be stored, the answer is 207 with a result for each event.",
		access: publisher("topic"),
		params: []param{
			topicParam("topic", "the topic").inPath(),
			textParam("key", "the key of messages that have none; messages with the same key keep their order"),
			durationParam("delay", "how long a stored topic delays the messages"),
			timeParam("at", "when a stored topic delivers the messages, instead of `delay`"),
			durationParam("ttl", "how long the messages are valid, from the time they are delivered"),
			textParam("Idempotency-Key", "identifies the request, so that a stored topic recognises a repeated one; at most 255 bytes").inHeader(),
		},
		body: &body{
			media: []string{jsonType, structuredType, batchType, "*/*"}, limit: maxMessage, optional: true,
			doc: "an event, a batch of events, or anything else; a message has at most `limits.message` bytes of data, an event 100 members, a batch 64 MiB, 10,000 events and 200,000 members",
		},
		status: http.StatusCreated, answer: &answer{doc: "the message is stored", shape: published{}},
		others: []outcome{
			{http.StatusOK, answer{doc: "a duplicate: the message was stored before", shape: published{}}},
			{http.StatusAccepted, answer{doc: "the message was sent to the present subscribers, or is stored until it is due", shape: published{}}},
			{http.StatusMultiStatus, answer{doc: "a part of the batch could not be stored", shape: published{}}},
		},
		also:   []int{http.StatusInsufficientStorage, http.StatusGatewayTimeout, http.StatusConflict, http.StatusNotImplemented},
		handle: publishCall,
	}}
}

// published is the outcome of a request to publish.
type published struct {
	Topic string `json:"topic"`
	placed
	// Events are those of a batch, in its order.
	Events []placed `json:"events,omitempty" doc:"the results of the events of a batch, in the order of the batch"`
}

// placed is the outcome for one message.
type placed struct {
	ID       string     `json:"id,omitempty" doc:"the ID of the event, or one that the broker created for the message"`
	Seq      uint64     `json:"seq,omitempty" doc:"the sequence of the message in the stored topic"`
	Repeated bool       `json:"repeated,omitempty" doc:"the message is a duplicate; the sequence is that of the stored message"`
	Due      *time.Time `json:"due,omitempty" doc:"when the delayed message will be delivered"`
	Error    string     `json:"error,omitempty" doc:"why the message could not be stored"`
}

// appendTo appends published for one accepted message, as encoding/json would
// encode it.
func (p *placed) appendTo(dst []byte, topic string) []byte {
	dst = appendText(append(dst, `{"topic":`...), topic)
	dst = appendMember(dst, `,"id":`, p.ID)
	if p.Seq > 0 {
		dst = strconv.AppendUint(append(dst, `,"seq":`...), p.Seq, 10)
	}
	if p.Repeated {
		dst = append(dst, `,"repeated":true`...)
	}
	if p.Due != nil {
		dst = appendMember(dst, `,"due":`, p.Due.Format(time.RFC3339Nano))
	}
	return append(dst, "}\n"...)
}

// publishCall reads messages from a request, publishes them, and answers with the
// outcome.
func publishCall(c *call) error {
	g := c.broker.gateway
	body, room, err := g.readBody(c)
	if err != nil {
		return err
	}
	defer g.bodies.give(room)
	in, err := readIncoming(c.req.Header, body)
	if err != nil {
		var typ unreadable
		if errors.As(err, &typ) {
			return refused(http.StatusUnsupportedMediaType, "%s", typ)
		}
		return refused(http.StatusBadRequest, "%s", err).but("docs/gateway.md has examples of all forms")
	}
	k, err := g.topics.open(c.ctx, c.text("topic"))
	if err != nil {
		return err
	}
	due, err := c.direct(&in, k.stored)
	if err != nil {
		return err
	}
	return c.publish(k, &in, due)
}

// readBody reads the body once there is memory for it. The caller must give room
// back to the budget when it needs the body no more.
func (g *gateway) readBody(c *call) (body []byte, room int64, err error) {
	most := c.broker.config.Load().Limits.Message
	media, _ := mediaType(headerValue(c.req.Header, "Content-Type"))
	switch media {
	case batchType:
		most = maxMessage
	case structuredType:
		most += most/3 + 64<<10 // base64, and attributes
	}
	most = min(most, maxMessage)
	from, length := io.Reader(c.req.Body), c.req.ContentLength
	switch {
	case length > most:
		return nil, 0, refused(http.StatusRequestEntityTooLarge, "the body has %d bytes, at most %d may be published", length, most).but("limits.message in the configuration of the broker says how large a message may be")
	case length < 0:
		from, length = http.MaxBytesReader(c.rw, c.req.Body, most), bodyStep
	}
	// Take memory as the body arrives, so that a client that sends a large body
	// slowly does not hold up others.
	for want := min(length+1, bodyStep); ; want = min(2*want, most+1) {
		n, err := g.bodies.take(c.ctx, bodyFactor*(want-int64(cap(body))))
		if room += n; err != nil {
			g.bodies.give(room)
			return nil, 0, refused(http.StatusServiceUnavailable, "too much is being published at the same time").but("try again")
		}
		body, err = readInto(append(make([]byte, 0, want), body...), from)
		switch {
		case errors.Is(err, io.EOF):
			return body, room, nil
		case err != nil:
			g.bodies.give(room)
			return nil, 0, bodyError(err)
		}
	}
}

// readInto reads until b is full, or until an error.
func readInto(b []byte, from io.Reader) ([]byte, error) {
	for len(b) < cap(b) {
		n, err := from.Read(b[len(b):cap(b)])
		if b = b[:len(b)+n]; err != nil {
			return b, err
		}
	}
	return b, nil
}

// bodyError returns the refusal for a body that cannot be read.
func bodyError(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return err
	}
	return refused(http.StatusBadRequest, "the body was not received completely: %s", err)
}

// direct applies the parameters of the request to its messages, and returns when
// they are due; the zero time means at once.
func (c *call) direct(in *incoming, stored bool) (due time.Time, err error) {
	_, delayed := c.get("delay")
	_, dated := c.get("at")
	_, limited := c.get("ttl")
	var now time.Time
	if delayed || dated || limited {
		now = time.Now()
	}
	switch {
	case delayed && dated:
		return due, refused(http.StatusBadRequest, "delay and at: want one of them")
	case delayed:
		due = now.Add(c.duration("delay"))
	case dated:
		due = c.moment("at")
	}
	if !due.After(now) {
		due = time.Time{}
	}
	idempotency, err := idempotencyKey(c.text("Idempotency-Key"))
	if err != nil {
		return due, err
	}
	if !stored && (idempotency != "" || !due.IsZero()) {
		return due, refused(http.StatusConflict, "the topic %s is not stored, so it cannot hold messages back or recognise repeats", c.text("topic")).
			but("declare it under topics in the configuration of the broker, or leave out Idempotency-Key, delay and at")
	}
	var expires time.Time
	if limited {
		from := now
		if !due.IsZero() {
			from = due
		}
		expires = from.Add(c.duration("ttl"))
	}
	key, keyed := c.get("key")
	for i, m := range in.messages {
		if keyed && m.HasKey && m.Key != key {
			return due, refused(http.StatusBadRequest, "the event has the partitionkey %q, and the parameter key is %q", m.Key, key)
		}
		if keyed {
			m.Key, m.HasKey = key, key != "" // an empty key is no key
		}
		m.Due, m.Expires = due, expires
		switch {
		case idempotency != "" && in.batch:
			m.DedupID = idempotency + "/" + strconv.Itoa(i)
		case idempotency != "":
			m.DedupID = idempotency
		case in.events:
			m.DedupID = dedupID(m)
		}
		if m.ID == "" {
			m.ID = m.DedupID
		}
		if m.ID == "" {
			m.ID = newID()
		}
	}
	return due, nil
}

// idempotencyKey parses the header, which by its draft is a quoted string, and in
// practice often an unquoted one.
func idempotencyKey(s string) (string, error) {
	if unquoted, err := strconv.Unquote(s); err == nil && strings.HasPrefix(s, `"`) {
		s = unquoted
	}
	if len(s) > 255 {
		return "", refused(http.StatusBadRequest, "Idempotency-Key: has %d bytes, at most 255 may be", len(s))
	}
	return s, nil
}

// publish publishes the messages, and answers.
func (c *call) publish(k *knownTopic, in *incoming, due time.Time) error {
	if err := c.sized(in); err != nil {
		return err
	}
	topic := c.text("topic")
	places, err := k.publish(c.ctx, in.messages)
	some, err := partly(err)
	if err == nil && some != nil && !in.batch {
		err = some[0]
	}
	if err != nil {
		c.broker.gateway.topics.forget(topic) // the topic may be gone
		return publishError(err)
	}
	if in.batch {
		return c.answerBatch(k, in, due, places, some)
	}
	p := placedAt(in.messages[0], places, 0)
	if !due.IsZero() {
		at := due // so that due stays on the stack where there is none
		p.Due = &at
	}
	c.answer(k.status(p.Repeated, due), p.appendTo(c.room[:0], topic))
	return nil
}

// answerBatch answers with the outcome for each message of a batch.
func (c *call) answerBatch(k *knownTopic, in *incoming, due time.Time, places []driver.Place, some driver.PartialError) error {
	topic := c.text("topic")
	events := make([]placed, len(in.messages))
	failed, repeated := 0, 0
	for i, m := range in.messages {
		p := &events[i]
		if some != nil && some[i] != nil {
			failed++
			*p = placed{ID: m.ID, Error: some[i].Error()}
			continue
		}
		if *p = placedAt(m, places, i); p.Repeated {
			repeated++
		}
		if !due.IsZero() {
			p.Due = &due
		}
	}
	status := k.status(repeated > 0 && repeated == len(events), due)
	if failed > 0 {
		c.broker.gateway.topics.forget(topic)
		status = http.StatusMultiStatus
	}
	return c.replyWith(status, published{Topic: topic, Events: events})
}

// partly returns which messages have failed if only some have, and otherwise err.
func partly(err error) (driver.PartialError, error) {
	if err == nil {
		return nil, nil
	}
	var some driver.PartialError
	if errors.As(err, &some) {
		return some, nil
	}
	return nil, err
}

// placedAt returns the outcome for the i-th message, which was accepted.
func placedAt(m *driver.Message, places []driver.Place, i int) placed {
	p := placed{ID: m.ID}
	if places != nil {
		p.Seq, p.Repeated = places[i].Seq, places[i].Repeated
	}
	return p
}

// status returns the status of an answer when all messages were accepted, or had
// been before.
func (k *knownTopic) status(repeated bool, due time.Time) int {
	switch {
	case k.stored && repeated:
		return http.StatusOK
	case k.stored && due.IsZero():
		return http.StatusCreated
	}
	return http.StatusAccepted
}

// sized refuses messages that are too large, all together.
func (c *call) sized(in *incoming) error {
	most := c.broker.config.Load().Limits.Message
	i := slices.IndexFunc(in.messages, func(m *driver.Message) bool {
		size := int64(len(m.Data) + len(m.ID) + len(m.Key) + 512)
		for name, value := range m.Headers {
			size += int64(len(name) + len(value) + 4)
		}
		return size > most
	})
	if i < 0 {
		return nil
	}
	which := "the message"
	if in.batch {
		which = "event " + strconv.Itoa(i)
	}
	return refused(http.StatusRequestEntityTooLarge, "%s is larger than %d bytes with its attributes", which, most).but("limits.message in the configuration of the broker says how large a message may be")
}

// publish publishes messages, and returns where they are stored, or nil if they are
// not stored.
func (k *knownTopic) publish(ctx context.Context, ms []*driver.Message) ([]driver.Place, error) {
	if len(ms) == 0 {
		return nil, nil
	}
	if p, ok := k.topic.(driver.Placer); ok {
		return p.PublishPlaced(ctx, ms)
	}
	return nil, k.topic.Publish(ctx, ms)
}

// publishError returns the refusal for when nothing was published, or when it is
// not known whether it was.
func publishError(err error) error {
	r, _ := refusalOf(err)
	switch r.Status {
	case http.StatusGatewayTimeout, http.StatusServiceUnavailable:
		return r.but("it may have been stored; with an Idempotency-Key, or a CloudEvent, the request can be sent again without harm")
	case http.StatusInternalServerError:
		return err
	}
	return r
}
