package broker

import (
	"net"
	"net/http"
	"strconv"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// connectionEndpoints are about the clients of the server in this process.
func connectionEndpoints() []endpoint {
	id := numberParam("id", 1, 1<<63, "the number of the connection").inPath()
	return []endpoint{
		{
			method: http.MethodGet, path: "/v1/admin/connections", name: "listConnections", summary: "list the connected clients",
			doc: withServer, access: operator, params: append(pageParams(), textParam("user", "only the connections of this user")),
			answer: jsonAnswer(page[connectionView]{}), also: []int{http.StatusNotImplemented}, handle: listConnections,
		},
		{
			method: http.MethodGet, path: "/v1/admin/connections/{id}", name: "getConnection", summary: "show a client and its subscriptions",
			doc: withServer, access: operator, params: []param{id}, answer: jsonAnswer(connectionView{}), also: []int{http.StatusNotFound, http.StatusNotImplemented},
			handle: func(c *call) error {
				found, err := c.broker.connections(&natsserver.ConnzOptions{CID: c.number("id"), Username: true, SubscriptionsDetail: true})
				if err != nil {
					return err
				}
				if len(found) == 0 {
					return noConnection(c.number("id"))
				}
				return c.reply(c.broker.viewConnection(found[0]))
			},
		},
		{
			method: http.MethodDelete, path: "/v1/admin/connections/{id}", name: "closeConnection", summary: "disconnect a client",
			doc: "Clients connect again by themselves; to prevent that, change the user and reload. " + withServer, access: operator, params: []param{id},
			status: http.StatusNoContent, also: []int{http.StatusNotFound, http.StatusConflict, http.StatusNotImplemented},
			handle: func(c *call) error {
				if err := c.broker.hasServer(); err != nil {
					return err
				}
				if own, err := c.broker.client.GetClientID(); err == nil && own == c.number("id") {
					return refused(http.StatusConflict, "connection %d is that of the broker itself", own)
				}
				if c.broker.store.Server().DisconnectClientByID(c.number("id")) != nil {
					return noConnection(c.number("id"))
				}
				return c.reply(nil)
			},
		},
	}
}

// withServer is the note on endpoints that need the server in this process.
const withServer = "Only a broker with the server in its process knows this; with external servers, the answer is 501."

func noConnection(id uint64) error {
	return refused(http.StatusNotFound, "there is no connection %d", id)
}

// hasServer returns a refusal if there is no server in this process.
func (b *Broker) hasServer() error {
	if b.store == nil {
		return refused(http.StatusNotImplemented, "the broker uses external servers and cannot see their clients").but("ask a server of the cluster, for example with: nats server report connections")
	}
	return nil
}

// connectionView is a connected client.
type connectionView struct {
	ID            uint64             `json:"id" doc:"the number of the connection"`
	Name          string             `json:"name,omitempty" doc:"the name that the client has given itself"`
	User          string             `json:"user,omitempty" doc:"the user of the connection"`
	Address       string             `json:"address,omitempty" doc:"the client's address; missing for clients in this process"`
	Client        string             `json:"client,omitempty" doc:"the client library: language and version"`
	Since         time.Time          `json:"since" doc:"when the client connected"`
	Active        time.Time          `json:"active" doc:"when the client last sent or received something"`
	RTT           string             `json:"rtt,omitempty" doc:"the last measured round-trip time to the client"`
	In            int64              `json:"in_messages" doc:"messages that the client has sent"`
	Out           int64              `json:"out_messages" doc:"messages that were sent to the client"`
	InBytes       int64              `json:"in_bytes" doc:"bytes that the client has sent"`
	OutBytes      int64              `json:"out_bytes" doc:"bytes that were sent to the client"`
	Pending       int                `json:"pending_bytes" doc:"bytes that wait until the client reads"`
	Subscriptions int                `json:"subscriptions" doc:"the number of subscriptions"`
	List          []subscriptionView `json:"list,omitempty" doc:"the subscriptions; only in the answer for a single connection"`
}

func (b *Broker) viewConnection(i *natsserver.ConnInfo) *connectionView {
	v := &connectionView{
		ID: i.Cid, Name: i.Name, User: i.AuthorizedUser, Client: i.Lang, Since: i.Start, Active: i.LastActivity, RTT: i.RTT,
		In: i.InMsgs, Out: i.OutMsgs, InBytes: i.InBytes, OutBytes: i.OutBytes, Pending: i.Pending, Subscriptions: int(i.NumSubs),
	}
	if i.Version != "" {
		v.Client += " " + i.Version
	}
	if v.Address = b.proxy.addressOf(i.Cid); v.Address == "" && i.Port != 0 {
		v.Address = net.JoinHostPort(i.IP, strconv.Itoa(i.Port))
	}
	for n := range i.SubsDetail {
		v.List = append(v.List, viewSubscription(&i.SubsDetail[n]))
	}
	return v
}

// connections lists connections of the server.
func (b *Broker) connections(o *natsserver.ConnzOptions) ([]*natsserver.ConnInfo, error) {
	if err := b.hasServer(); err != nil {
		return nil, err
	}
	z, err := b.store.Server().Connz(o)
	if err != nil {
		return nil, err
	}
	return z.Conns, nil
}

// connectionsAtOnce is how many connections the server is asked for at once.
const connectionsAtOnce = 1024

func listConnections(c *call) error {
	after, err := c.afterSeq()
	if err != nil {
		return err
	}
	p := page[*connectionView]{Items: []*connectionView{}}
	for offset := 0; ; offset += connectionsAtOnce {
		found, err := c.broker.connections(&natsserver.ConnzOptions{Sort: natsserver.ByCid, Username: true, User: c.text("user"), Offset: offset, Limit: connectionsAtOnce})
		if err != nil {
			return err
		}
		for _, i := range found {
			if i.Cid < after {
				continue
			}
			if uint64(len(p.Items)) == c.number("limit") {
				p.Next = uintText(p.Items[len(p.Items)-1].ID)
				return c.reply(p)
			}
			p.Items = append(p.Items, c.broker.viewConnection(i))
		}
		if len(found) < connectionsAtOnce {
			return c.reply(p)
		}
	}
}
