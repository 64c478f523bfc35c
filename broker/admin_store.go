package broker

import (
	"net/http"
	"slices"
)

// storeEndpoints are about the stores of patterns.
func storeEndpoints() []endpoint {
	return []endpoint{{
		method: http.MethodGet, path: "/v1/admin/stores", name: "listStores", summary: "list the stores of patterns, each with the totals of its topics", access: operator,
		doc:    "A pattern under topics in the configuration is a store. Its topics are listed among the stored topics, and the endpoints for groups, messages and dead letters apply to them.",
		params: pageParams(), answer: jsonAnswer(page[storeView]{}), also: []int{http.StatusNotFound, http.StatusGatewayTimeout}, handle: listStores,
	}, {
		method: http.MethodDelete, path: "/v1/admin/stores", name: "deleteStore", summary: "delete a store with all of its topics, messages and groups", access: operator,
		doc:    "A store that the configuration of the broker declares cannot be deleted; remove it from the configuration first. A store that is no longer declared continues to store what is published to its topics until it is deleted.",
		params: []param{patternParam("pattern", "the pattern of the store").required()}, status: http.StatusNoContent,
		also: []int{http.StatusNotFound, http.StatusConflict, http.StatusGatewayTimeout}, handle: deleteStore,
	}}
}

func deleteStore(c *call) error {
	pattern := c.text("pattern")
	if c.broker.declares(pattern) {
		return refused(http.StatusConflict, "%s is declared in the configuration of the broker", pattern).but("remove it there, reload the broker, and try again")
	}
	if _, err := c.broker.conn.StoreInfo(c.ctx, pattern); err != nil {
		return err
	}
	if err := c.broker.conn.DeleteStore(c.ctx, pattern); err != nil {
		return err
	}
	return c.reply(nil)
}

// storeView is a store.
type storeView struct {
	topicView
	Topics   int `json:"topics" doc:"the number of topics that have messages in the store"`
	PerTopic int `json:"per_topic,omitempty" doc:"how many messages of each topic are kept; no limit if missing"`
}

func listStores(c *call) error {
	conn := c.broker.conn
	patterns, err := conn.Stores(c.ctx)
	if err != nil {
		return err
	}
	slices.Sort(patterns)
	p, err := pageOf(c, patterns, nil, func(pattern string) (*storeView, error) {
		info, err := conn.StoreInfo(c.ctx, pattern)
		if err != nil {
			return nil, err
		}
		topics, err := conn.StoreTopics(c.ctx, pattern, "")
		return &storeView{topicView: *c.broker.topicView(&info.TopicInfo), Topics: len(topics), PerTopic: info.MaxPerTopic}, err
	})
	if err != nil {
		return err
	}
	return c.reply(p)
}
