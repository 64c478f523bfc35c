package broker

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// topicPath is the path parameter for a topic.
func topicPath() param { return topicParam("topic", "the stored topic").inPath() }

// topicEndpoints administer stored topics.
func topicEndpoints() []endpoint {
	absent := []int{http.StatusNotFound, http.StatusGatewayTimeout}
	return []endpoint{
		{
			method: http.MethodGet, path: "/v1/admin/topics", name: "listTopics", summary: "list the stored topics", access: anyUser,
			params: append(pageParams(), patternParam("pattern", "only topics that match this pattern")),
			answer: jsonAnswer(page[topicView]{}), also: []int{http.StatusGatewayTimeout}, handle: listTopics,
		},
		{
			method: http.MethodGet, path: "/v1/admin/topics/{topic}", name: "getTopic", summary: "a stored topic", access: administrator("topic"),
			params: []param{topicPath()}, answer: jsonAnswer(topicView{}), also: absent,
			handle: func(c *call) error {
				info, err := c.broker.conn.TopicInfo(c.ctx, c.text("topic"))
				if err != nil {
					return err
				}
				return c.reply(c.broker.topicView(&info))
			},
		},
		{
			method: http.MethodPut, path: "/v1/admin/topics/{topic}", name: "putTopic", summary: "create a stored topic",
			doc: "Without a body, the topic has no limits. An existing topic with the same limits is left unchanged. " +
				"If the limits differ, the request is refused, unless alter is set; then the topic gets the new limits. The durability of a topic cannot change. " +
				"When the broker starts, topics that its configuration declares get the limits of the configuration.",
			access: administrator("topic"), params: []param{topicPath(), flagParam("alter", "whether to change an existing topic")},
			body:   &body{shape: topicLimits{}, limit: jsonLimit, optional: true},
			answer: jsonAnswer(topicPut{}), also: []int{http.StatusConflict, http.StatusNotImplemented, http.StatusInsufficientStorage, http.StatusGatewayTimeout}, handle: putTopic,
		},
		{
			method: http.MethodDelete, path: "/v1/admin/topics/{topic}", name: "deleteTopic", summary: "delete a stored topic with its messages and groups",
			doc: "A topic that the configuration of the broker declares cannot be deleted; remove it from the configuration first. " +
				"For a topic of a store, its messages and groups are deleted, and what is published to it later is stored again.",
			access: administrator("topic"), params: []param{topicPath()}, status: http.StatusNoContent, also: append(absent, http.StatusConflict),
			handle: func(c *call) error {
				topic := c.text("topic")
				if c.broker.declares(topic) {
					return refused(http.StatusConflict, "topic %s is declared in the configuration of the broker", topic).but("remove it there, reload the broker, and try again")
				}
				info, err := c.broker.conn.TopicInfo(c.ctx, topic)
				if err != nil {
					return err
				}
				if info.Store != "" && info.Messages == 0 && info.Groups == 0 {
					return refused(http.StatusNotFound, "topic %s has no messages and no groups in the store of %s", topic, info.Store)
				}
				if err := c.broker.conn.DeleteTopic(c.ctx, topic); err != nil {
					return err
				}
				return c.reply(nil)
			},
		},
		{
			method: http.MethodPost, path: "/v1/admin/topics/{topic}/purge", name: "purgeTopic", summary: "purge a stored topic",
			doc: "Without parameters, all messages are removed. Groups continue after the removed messages.", access: administrator("topic"),
			params: []param{
				topicPath(),
				numberParam("before", 1, 1<<63, "remove only messages before this sequence"),
				numberParam("keep", 1, 1<<63, "keep this many of the newest messages"),
			},
			answer: jsonAnswer(purged{}), also: absent,
			handle: func(c *call) error {
				if c.number("before") > 0 && c.number("keep") > 0 {
					return refused(http.StatusBadRequest, "before and keep: give one of them")
				}
				removed, err := c.broker.conn.PurgeTopic(c.ctx, c.text("topic"), c.number("before"), c.number("keep"))
				if err != nil {
					return err
				}
				return c.reply(purged{removed})
			},
		},
	}
}

// topicLimits are the limits of a topic, written as in the configuration.
type topicLimits struct {
	Age        string `json:"age,omitempty" doc:"how long messages are kept, such as 90s, 12h or 7d; no limit if missing"`
	Bytes      string `json:"bytes,omitempty" doc:"how many bytes are kept, such as 64MiB; no limit if missing"`
	Count      int64  `json:"count,omitempty" doc:"how many messages are kept; 0 for no limit"`
	Durability string `json:"durability,omitempty" enum:"strict relaxed memory" doc:"the durability, which says what acknowledged messages survive; strict if missing"`
	Dedup      string `json:"dedup,omitempty" doc:"how long message IDs are remembered; 2m if missing, 0s for no deduplication"`
}

// topicPut says what happened to a topic.
type topicPut struct {
	Topic  topicView `json:"topic" doc:"the current state"`
	Change string    `json:"change" enum:"created altered none" doc:"what was done"`
}

type purged struct {
	Removed uint64 `json:"removed" doc:"the number of removed messages"`
}

// topicView is a stored topic.
type topicView struct {
	Topic      string     `json:"topic" doc:"the name"`
	Store      string     `json:"store,omitempty" doc:"the pattern of the store that holds this topic and others; the limits and the time of creation are those of the store"`
	Messages   uint64     `json:"messages" doc:"the number of stored messages"`
	Bytes      uint64     `json:"bytes" doc:"the size of the messages on disk or in memory; 0 for a topic of a store, where it is not known"`
	First      uint64     `json:"first" doc:"the sequence of the oldest message; 0 if there is none"`
	Last       uint64     `json:"last" doc:"the sequence of the newest message, even if it was removed"`
	FirstTime  *time.Time `json:"first_time,omitempty" doc:"when the oldest message was stored"`
	LastTime   *time.Time `json:"last_time,omitempty" doc:"when the newest message was stored"`
	Groups     int        `json:"consumers" doc:"the number of NATS consumers, for groups and subscriptions"`
	Created    time.Time  `json:"created" doc:"when the topic was created"`
	Age        string     `json:"age,omitempty" doc:"how long messages are kept; no limit if missing"`
	MaxBytes   int64      `json:"max_bytes,omitempty" doc:"how many bytes are kept; no limit if missing"`
	MaxCount   int64      `json:"max_count,omitempty" doc:"how many messages are kept; no limit if missing"`
	PerKey     int64      `json:"per_key,omitempty" doc:"how many of the newest messages of each key are kept; no limit if missing"`
	Durability string     `json:"durability" enum:"strict relaxed memory" doc:"the durability, which says what acknowledged messages survive"`
	Dedup      string     `json:"dedup" doc:"how long message IDs are remembered"`
	Declared   bool       `json:"declared" doc:"whether the configuration of the broker declares it"`
}

func (b *Broker) topicView(info *natsdriver.TopicInfo) *topicView {
	v := &topicView{
		Topic: info.Name, Store: info.Store, Messages: info.Messages, Bytes: info.Bytes, Last: info.Last, Groups: info.Groups, Created: info.Created,
		MaxBytes: info.Config.MaxBytes, MaxCount: int64(info.Config.MaxMessages), Durability: durabilityName(info.Config.Durability), Dedup: short(info.Config.Dedup), Declared: b.declares(info.Name),
	}
	if info.Messages > 0 {
		v.First = info.First
		v.FirstTime, v.LastTime = &info.FirstTime, &info.LastTime
	}
	if t := keeper(b.config.Load().Topics, info.Name); t != nil {
		v.PerKey = t.PerKey
	}
	if info.Config.MaxAge > 0 {
		v.Age = short(info.Config.MaxAge)
	}
	return v
}

// declares reports whether the configuration declares a topic.
func (b *Broker) declares(topic string) bool {
	return slices.ContainsFunc(b.config.Load().Topics, func(t TopicConfig) bool { return t.Name == topic })
}

func listTopics(c *call) error {
	q := natsdriver.TopicQuery{Pattern: c.text("pattern"), Match: c.matches(c.text("pattern"))}
	return replyTopics(c, q, c.broker.topicView)
}

// replyTopics answers with the requested page of the topics that a query finds.
func replyTopics[T any](c *call, q natsdriver.TopicQuery, view func(info *natsdriver.TopicInfo) *T) error {
	q.After, q.Limit = c.text("after"), int(c.number("limit"))
	found, next, err := c.broker.conn.TopicNames(c.ctx, q)
	if err != nil {
		return err
	}
	p := page[*T]{Items: []*T{}, Next: next}
	for _, name := range found {
		info, err := c.broker.conn.TopicInfo(c.ctx, name)
		if errors.Is(err, natsdriver.ErrNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return err
		}
		p.Items = append(p.Items, view(&info))
	}
	return c.reply(p)
}

// config parses the limits as the configuration would, which validates them.
func (l *topicLimits) config(name string) (*TopicConfig, error) {
	t := newTopicConfig()
	t.Name, t.Count = name, l.Count
	for key, value := range map[string]string{"age": l.Age, "bytes": l.Bytes, "durability": l.Durability, "dedup": l.Dedup} {
		for _, f := range topicFields {
			if f.key != key || value == "" {
				continue
			}
			if err := f.set(&t, []string{value}); err != nil {
				return nil, refused(http.StatusBadRequest, "%s: %s", key, err)
			}
		}
	}
	if l.Dedup == "" && t.Age > 0 {
		t.Dedup = min(t.Dedup, t.Age)
	}
	probe := Default()
	probe.Topics = []TopicConfig{t}
	var fault error
	probe.validateTopics(func(key, format string, args ...any) {
		if fault == nil {
			_, key, _ = strings.Cut(key, ".")
			fault = refused(http.StatusBadRequest, key+": "+format, args...)
		}
	})
	return &t, fault
}

// differences says how the limits of a topic differ from those asked for, in the words
// of the configuration.
func differences(is, asked *driver.StoredConfig) string {
	var all []string
	differ := func(key, is, asked string) {
		if is != asked {
			all = append(all, key+" is "+is+", not "+asked)
		}
	}
	limit := func(n int64, text string) string {
		if n <= 0 {
			return "unlimited"
		}
		return text
	}
	of := func(c *driver.StoredConfig) (age, bytes, count string) {
		return limit(int64(c.MaxAge), short(c.MaxAge)), limit(c.MaxBytes, shortSize(c.MaxBytes)), limit(int64(c.MaxMessages), strconv.Itoa(c.MaxMessages))
	}
	age, bytes, count := of(is)
	askedAge, askedBytes, askedCount := of(asked)
	differ("age", age, askedAge)
	differ("bytes", bytes, askedBytes)
	differ("count", count, askedCount)
	differ("durability", durabilityName(is.Durability), durabilityName(asked.Durability))
	differ("dedup", short(is.Dedup), short(asked.Dedup))
	return strings.Join(all, ", ")
}

// durabilityName returns the name of a class of durability in the configuration.
func durabilityName(d driver.Durability) string {
	for name, is := range durabilities {
		if name != "" && is == d {
			return name
		}
	}
	return ""
}

func putTopic(c *call) error {
	var limits topicLimits
	if err := c.decode(&limits); err != nil {
		return err
	}
	name := c.text("topic")
	t, err := limits.config(name)
	if err != nil {
		return err
	}
	conn := c.broker.conn
	had, err := conn.HasTopic(c.ctx, name)
	if err != nil {
		return err
	}
	put := topicPut{Change: "none"}
	if !had {
		put.Change = "created"
	}
	_, err = conn.OpenTopic(c.ctx, driver.TopicConfig{Name: name, Stored: t.stored()})
	if errors.Is(err, driver.ErrConflict) && had {
		if info, infoErr := conn.TopicInfo(c.ctx, name); infoErr == nil && info.Store != "" {
			return refused(http.StatusConflict, "%s", err)
		}
		if !c.flag("alter") {
			info, infoErr := conn.TopicInfo(c.ctx, name)
			if infoErr != nil {
				return infoErr
			}
			return refused(http.StatusConflict, "topic %s exists with other limits: %s", name, differences(&info.Config, t.stored())).but("say alter to give it these limits")
		}
		_, err = conn.AlterTopic(c.ctx, name, *t.stored())
		put.Change = "altered"
	}
	if err != nil {
		return err
	}
	info, err := conn.TopicInfo(c.ctx, name)
	if err != nil {
		return err
	}
	put.Topic = *c.broker.topicView(&info)
	return c.reply(put)
}
