package broker

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/harkbus/hark/driver/natsdriver"
)

func uintText(n uint64) string { return strconv.FormatUint(n, 10) }

// keptPath is the path parameter for a topic or a store with groups.
func keptPath() param {
	return patternParam("topic", "the stored topic, or the pattern of a store for groups on all of its topics, such as those of routes").inPath()
}

// groupEndpoints administer the groups on stored topics.
func groupEndpoints() []endpoint {
	absent := []int{http.StatusNotFound, http.StatusGatewayTimeout}
	group := textParam("group", "the group").inPath()
	which := []param{keptPath(), group}
	with := func(more ...param) []param { return append([]param{keptPath(), group}, more...) }
	// on returns a handler that changes a group and answers with its new state.
	on := func(do func(c *call, topic, group string) error) func(c *call) error {
		return func(c *call) error {
			topic, group := c.text("topic"), c.text("group")
			if _, err := c.broker.conn.GroupInfo(c.ctx, topic, group); err != nil {
				return err
			}
			if do != nil {
				if err := do(c, topic, group); err != nil {
					return err
				}
			}
			g, err := c.broker.conn.GroupInfo(c.ctx, topic, group)
			if err != nil {
				return err
			}
			return c.reply(viewGroup(&g))
		}
	}
	return []endpoint{
		{
			method: http.MethodGet, path: "/v1/admin/topics/{topic}/groups", name: "listGroups", summary: "list the groups on a stored topic",
			access: administrator("topic"), params: append(pageParams(), keptPath()), answer: jsonAnswer(page[groupView]{}), also: absent, handle: listGroups,
		},
		{
			method: http.MethodGet, path: "/v1/admin/topics/{topic}/groups/{group}", name: "getGroup", summary: "show a group on a stored topic",
			access: administrator("topic"), params: which, answer: jsonAnswer(groupView{}), also: absent, handle: on(nil),
		},
		{
			method: http.MethodDelete, path: "/v1/admin/topics/{topic}/groups/{group}", name: "deleteGroup", summary: "delete a group and its position",
			doc:    "The present members of the group fail; later members start at the position that they give. The groups of configured routes and webhooks cannot be deleted (409), because they would stop, and messages that are published meanwhile would not be routed.",
			access: administrator("topic"), params: which, status: http.StatusNoContent, also: append(absent, http.StatusConflict),
			handle: func(c *call) error {
				if c.broker.needs(c.text("topic"), c.text("group")) {
					return refused(http.StatusConflict, "group %s belongs to the broker, for a route or webhook of its configuration on %s", c.text("group"), c.text("topic")).but("remove the route or the webhook from the configuration and reload")
				}
				if _, err := c.broker.conn.GroupInfo(c.ctx, c.text("topic"), c.text("group")); err != nil {
					return err
				}
				if err := c.broker.conn.DeleteGroup(c.ctx, c.text("topic"), c.text("group")); err != nil {
					return err
				}
				return c.reply(nil)
			},
		},
		{
			method: http.MethodPost, path: "/v1/admin/topics/{topic}/groups/{group}/seek", name: "seekGroup", summary: "move the position of a group",
			doc: "Messages in flight may be delivered again. " +
				"The request is refused (409) while the group has members, if it keeps the order of keys, or if it started with the next published message and is moved for the first time. " +
				"A request that has begun to move the group goes on if its sender goes away. If it fails nevertheless, and its error says that the group may have been moved in part, the same request moves it.",
			access: administrator("topic"),
			params: with(
				choiceParam("to", "the new position: start, now, seq or time; seq and time need the parameter of the same name", "start", "now", "seq", "time").required(),
				numberParam("seq", 1, 1<<63, "the message with this sequence, or the first one after it; past the end, the next message published"),
				timeParam("time", "the first message that was stored at this time or later"),
			),
			answer: jsonAnswer(groupView{}), also: append(absent, http.StatusConflict, http.StatusNotImplemented),
			handle: on(seekGroup),
		},
		{
			method: http.MethodPost, path: "/v1/admin/topics/{topic}/groups/{group}/pause", name: "pauseGroup", summary: "pause a group",
			doc: "The members of the group receive nothing during the pause. If the group is already paused, the new end replaces the old one.", access: administrator("topic"),
			params: with(durationParam("for", "how long; if missing, until the group is resumed")), answer: jsonAnswer(groupView{}), also: append(absent, http.StatusNotImplemented),
			handle: on(func(c *call, topic, group string) error {
				d := c.duration("for")
				switch {
				case c.text("for") == "":
					d = pausedForEver
				case d == 0:
					return refused(http.StatusBadRequest, "for: want more than 0; leave it out to pause the group until it is resumed")
				}
				return c.broker.conn.PauseGroup(c.ctx, topic, group, time.Now().Add(d))
			}),
		},
		{
			method: http.MethodPost, path: "/v1/admin/topics/{topic}/groups/{group}/resume", name: "resumeGroup", summary: "resume a group",
			doc: "A group that is not paused is left unchanged.", access: administrator("topic"), params: which, answer: jsonAnswer(groupView{}), also: append(absent, http.StatusNotImplemented),
			handle: on(func(c *call, topic, group string) error { return c.broker.conn.ResumeGroup(c.ctx, topic, group) }),
		},
	}
}

// pausedForEver is the length of a pause that somebody is expected to end.
const pausedForEver = 100 * 365 * 24 * time.Hour

// groupView is a group on a stored topic.
type groupView struct {
	Topic       string     `json:"topic" doc:"the topic"`
	Group       string     `json:"group" doc:"the name"`
	Done        uint64     `json:"done" doc:"the sequence up to which all messages are done"`
	Waiting     uint64     `json:"waiting" doc:"messages that no member has received"`
	InFlight    uint64     `json:"in_flight" doc:"messages that members have received and not acknowledged"`
	Redelivered uint64     `json:"redelivered" doc:"how many of the messages in flight were delivered before"`
	Oldest      *time.Time `json:"oldest,omitempty" doc:"when the oldest message that is not done was stored; missing if all are done"`
	Listening   int        `json:"listening" doc:"how many members wait for messages now"`
	Keyed       bool       `json:"keyed" doc:"whether the group keeps the order of keys"`
	PausedUntil *time.Time `json:"paused_until,omitempty" doc:"when the pause of the group ends; missing if it is not paused"`
	Created     time.Time  `json:"created" doc:"when the group was created"`
}

func viewGroup(g *natsdriver.GroupInfo) *groupView {
	v := &groupView{
		Topic: g.Topic, Group: g.Name, Done: g.Done, Waiting: g.Waiting, InFlight: g.InFlight, Redelivered: g.Redelivered,
		Listening: g.Listening, Keyed: g.Keyed, Created: g.Created,
	}
	if !g.Oldest.IsZero() {
		v.Oldest = &g.Oldest
	}
	if !g.PausedUntil.IsZero() {
		v.PausedUntil = &g.PausedUntil
	}
	return v
}

func listGroups(c *call) error {
	all, err := c.broker.conn.Groups(c.ctx, c.text("topic"))
	if err != nil {
		return err
	}
	byName := map[string]*natsdriver.GroupInfo{}
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Name
		byName[all[i].Name] = &all[i]
	}
	p, err := pageOf(c, names, nil, func(name string) (*groupView, error) { return viewGroup(byName[name]), nil })
	if err != nil {
		return err
	}
	return c.reply(p)
}

func seekGroup(c *call, topic, group string) error {
	seq := uint64(1)
	var err error
	given := map[string]bool{"seq": c.text("seq") != "", "time": c.text("time") != ""}
	to := c.text("to")
	for name, is := range given {
		if is != (to == name) {
			return refused(http.StatusBadRequest, "%s must be given if to is %s, and only then", name, name)
		}
	}
	switch to {
	case "now":
		var info natsdriver.TopicInfo
		info, err = c.broker.conn.TopicInfo(c.ctx, topic)
		seq = info.Last + 1
	case "seq":
		seq = c.number("seq")
	case "time":
		seq, err = c.broker.conn.SeqAt(c.ctx, topic, c.moment("time"))
	}
	if err != nil {
		return err
	}
	// One that ends halfway, because nobody waits for it any more, would have to be repeated.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), callTimeout)
	defer cancel()
	return c.broker.conn.SeekGroup(ctx, topic, group, seq)
}

// needs reports whether a group belongs to a route or webhook of the configuration.
func (b *Broker) needs(topic, group string) bool {
	c := b.config.Load()
	if group == routesGroup {
		return slices.ContainsFunc(c.Routes, func(r RouteConfig) bool { return overlap(r.From, topic) })
	}
	return slices.ContainsFunc(c.Webhooks, func(w WebhookConfig) bool {
		return group == webhookGroup(w.Name) && overlap(w.From, topic)
	})
}
