package broker

import (
	"context"
	"errors"
	"net/http"

	"github.com/harkbus/hark/driver"
)

// messageEndpoints are about the messages in stored topics.
func messageEndpoints() []endpoint {
	absent := []int{http.StatusNotFound, http.StatusGatewayTimeout}
	seq := numberParam("seq", 1, 1<<63, "the sequence of the message").inPath()
	return []endpoint{
		{
			method: http.MethodGet, path: "/v1/admin/topics/{topic}/messages", name: "listMessages", summary: "list messages of a stored topic",
			doc:    "The messages are in the order of the topic. With a filter, one call examines at most 10,000 messages, so a page may have fewer messages than match; the answer says where to continue. A page has at most about 16 MiB of data and headers.",
			access: administrator("topic"),
			params: append(pageParams(), topicPath(), filterParam("where", "only messages that match this filter")),
			answer: jsonAnswer(page[Event]{}), also: absent, handle: listMessages,
		},
		{
			method: http.MethodGet, path: "/v1/admin/topics/{topic}/messages/{seq}", name: "getMessage", summary: "show a message of a stored topic",
			access: administrator("topic"), params: []param{topicPath(), seq}, answer: jsonAnswer(Event{}), also: absent,
			handle: func(c *call) error {
				m, err := c.broker.conn.ReadMessage(c.ctx, c.text("topic"), c.number("seq"))
				if err != nil {
					return err
				}
				return c.reply(&Event{m})
			},
		},
		{
			method: http.MethodDelete, path: "/v1/admin/topics/{topic}/messages/{seq}", name: "deleteMessage", summary: "delete a message of a stored topic",
			access: administrator("topic"), params: []param{topicPath(), seq}, status: http.StatusNoContent, also: absent, handle: deleteMessage,
		},
	}
}

func deleteMessage(c *call) error {
	topic, seq := c.text("topic"), c.number("seq")
	if _, err := c.broker.conn.ReadMessage(c.ctx, topic, seq); err != nil {
		return err
	}
	if err := c.broker.conn.DeleteMessage(c.ctx, topic, seq); err != nil {
		return err
	}
	return c.reply(nil)
}

const (
	// maxScanned is how many messages one call reads at most.
	maxScanned = 10_000
	// maxPageData is how many bytes of data and headers a page has at most, not counting
	// its last message.
	maxPageData = 16 << 20
)

func listMessages(c *call) error {
	p := page[*Event]{Items: []*Event{}}
	where := c.filter("where")
	from, err := c.afterSeq()
	if err != nil {
		return err
	}
	read, size := 0, 0
	p.Next, err = c.broker.scan(c.ctx, c.text("topic"), from, func(m *driver.Received) bool {
		read++
		if e := (&Event{m}); where == nil || where.Match(e) {
			p.Items = append(p.Items, e)
			size += len(m.Data) + sizeOfHeaders(m)
		}
		return uint64(len(p.Items)) < c.number("limit") && read < maxScanned && size < maxPageData
	})
	if err != nil {
		return err
	}
	return c.reply(p)
}

// sizeOfHeaders returns the size of everything in a message but its data.
func sizeOfHeaders(m *driver.Received) int {
	size := len(m.Topic) + len(m.ID) + len(m.Key) + len(m.ContentType)
	for name, value := range m.Headers {
		size += len(name) + len(value)
	}
	return size
}

// afterSeq returns the sequence after the one in the parameter after.
func (c *call) afterSeq() (uint64, error) {
	after := c.text("after")
	if after == "" {
		return 1, nil
	}
	if err := numberParam("after", 0, 1<<63, "").check(after); err != nil {
		return 0, refused(http.StatusBadRequest, "after: %s", err)
	}
	return c.number("after") + 1, nil
}

// scan calls f for each message present in a stored topic, from a sequence on,
// until f returns false. Then scan returns the sequence of that message, after
// which to go on.
func (b *Broker) scan(ctx context.Context, topic string, from uint64, f func(m *driver.Received) bool) (next string, err error) {
	info, err := b.conn.TopicInfo(ctx, topic)
	if err != nil || info.Messages == 0 || from > info.Last {
		return "", err
	}
	t, err := b.conn.OpenTopic(ctx, driver.TopicConfig{Name: topic, Stored: &driver.StoredConfig{Existing: true}})
	if err != nil {
		return "", err
	}
	sub, err := t.Subscribe(ctx, driver.SubscribeConfig{From: driver.FromSeq, Seq: from, Window: storedBatch})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, sub.Close(context.WithoutCancel(ctx))) }()
	if err := sub.Drain(ctx); err != nil {
		return "", err
	}
	for {
		ms, err := sub.Receive(ctx, storedBatch)
		if errors.Is(err, driver.ErrEnded) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		for _, m := range ms {
			if m.Seq > info.Last {
				return "", nil
			}
			if !f(m) {
				if m.Seq == info.Last {
					return "", nil
				}
				return uintText(m.Seq), nil
			}
		}
	}
}
