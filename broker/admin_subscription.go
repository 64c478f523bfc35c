package broker

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/harkbus/hark/internal/names"
)

// subscriptionEndpoints are about current subscriptions.
func subscriptionEndpoints() []endpoint {
	return []endpoint{{
		method: http.MethodGet, path: "/v1/admin/subscriptions", name: "listSubscriptions", summary: "who listens to which topics now",
		doc: "Groups on stored topics are not among them: their members ask for messages. " + withServer, access: operator,
		params: append(pageParams(), topicParam("topic", "only subscriptions that get what is published to this topic"), flagParam("all", "whether to show those of the server and of hark itself, too")),
		answer: jsonAnswer(page[subscriptionView]{}), also: []int{http.StatusConflict, http.StatusNotImplemented}, handle: listSubscriptions,
	}}
}

// subscriptionView is a subscription of a client.
type subscriptionView struct {
	Pattern    string `json:"pattern" doc:"the topic or pattern"`
	Group      string `json:"group,omitempty" doc:"the group; without it every message comes"`
	Connection uint64 `json:"connection" doc:"the number of the connection"`
	Messages   int64  `json:"messages" doc:"how many messages it has been sent"`

	sid string
}

func viewSubscription(d *natsserver.SubDetail) subscriptionView {
	return subscriptionView{Pattern: d.Subject, Group: d.Queue, Connection: d.Cid, Messages: d.Msgs, sid: d.Sid}
}

// maxSubscriptions is how many subscriptions are sorted for a list.
const maxSubscriptions = 200_000

func (v *subscriptionView) place() string {
	return fmt.Sprintf("%s %020d %s", v.Pattern, v.Connection, v.sid)
}

func listSubscriptions(c *call) error {
	if err := c.broker.hasServer(); err != nil {
		return err
	}
	z, err := c.broker.store.Server().Subsz(&natsserver.SubszOptions{Subscriptions: true, Limit: maxSubscriptions, Test: c.text("topic")})
	if err != nil {
		return err
	}
	if z.Total > maxSubscriptions {
		return refused(http.StatusConflict, "there are %d subscriptions", z.Total).but("name a topic")
	}
	clients, err := c.broker.connections(&natsserver.ConnzOptions{Limit: 1 << 30})
	if err != nil {
		return err
	}
	isClient := map[uint64]bool{} // the server also has connections of its own, for storage
	for _, client := range clients {
		isClient[client.Cid] = true
	}
	var all []subscriptionView
	for i := range z.Subs {
		v := viewSubscription(&z.Subs[i])
		own := !isClient[v.Connection] || strings.HasPrefix(v.Pattern, "$") || isReply(v.Pattern) || names.CheckPattern(v.Pattern) != nil
		if (!own || c.flag("all")) && v.place() > c.text("after") {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b subscriptionView) int { return cmp.Compare(a.place(), b.place()) })
	p := page[subscriptionView]{Items: all[:min(uint64(len(all)), c.number("limit"))]}
	if len(p.Items) < len(all) {
		p.Next = p.Items[len(p.Items)-1].place()
	}
	if p.Items == nil {
		p.Items = []subscriptionView{}
	}
	return c.reply(p)
}
