package broker

import (
	"net/http"
	"slices"
)

// storeEndpoints are about the stores of patterns.
func storeEndpoints() []endpoint {
	return []endpoint{{
		method: http.MethodGet, path: "/v1/admin/stores", name: "listStores", summary: "the stores of patterns, each with what it keeps of all topics together", access: operator,
		doc:    "A pattern under topics in the configuration is a store. Its topics are among the stored topics, and so are what groups, messages and dead letters are about.",
		params: pageParams(), answer: jsonAnswer(page[storeView]{}), also: []int{http.StatusNotFound, http.StatusGatewayTimeout}, handle: listStores,
	}, {
		method: http.MethodDelete, path: "/v1/admin/stores", name: "deleteStore", summary: "delete a store, with all topics in it, their messages and groups", access: operator,
		doc:    "A pattern that the configuration of the broker declares is refused: take it out of the configuration first. A store whose pattern is not declared any more keeps what is published to its topics until it is deleted.",
		params: []param{patternParam("pattern", "the pattern of the store").required()}, status: http.StatusNoContent,
		also: []int{http.StatusNotFound, http.StatusConflict, http.StatusGatewayTimeout}, handle: deleteStore,
	}}
}

func deleteStore(c *call) error {
	pattern := c.text("pattern")
	if c.broker.declares(pattern) {
		return refused(http.StatusConflict, "%s is declared in the configuration of the broker", pattern).but("take it out there, reload, and try again")
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
	Topics   int `json:"topics" doc:"how many topics it has messages of"`
	PerTopic int `json:"per_topic,omitempty" doc:"how many messages of each topic are kept; all without it"`
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
