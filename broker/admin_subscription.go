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
		method: http.MethodGet, path: "/v1/admin/subscriptions", name: "listSubscriptions", summary: "list the present subscriptions",
		doc: "Groups on stored topics are not included, because their members request messages. " + withServer, access: operator,
		params: append(pageParams(), topicParam("topic", "only subscriptions that receive what is published to this topic"), flagParam("all", "whether to include the internal subscriptions of the server and of hark")),
		answer: jsonAnswer(page[subscriptionView]{}), also: []int{http.StatusConflict, http.StatusNotImplemented}, handle: listSubscriptions,
	}}
}

// subscriptionView is a subscription of a client.
type subscriptionView struct {
	Pattern    string `json:"pattern" doc:"the topic or pattern"`
	Group      string `json:"group,omitempty" doc:"the group; if missing, the subscription receives every message"`
	Connection uint64 `json:"connection" doc:"the number of the connection"`
	Messages   int64  `json:"messages" doc:"the number of messages sent to the subscription"`

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
