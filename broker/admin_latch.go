package broker

import (
	"net/http"
	"time"
)

// latchEndpoints are about latches of notifiers.
func latchEndpoints() []endpoint {
	name := topicParam("name", "the latch").inPath()
	return []endpoint{
		{
			method: http.MethodGet, path: "/v1/admin/latches", name: "listLatches", summary: "list the latches", access: anyUser,
			doc:    "These are the latches that are set, and those that were cleared in the last hour.",
			params: append(pageParams(), patternParam("pattern", "only latches whose names match this pattern")),
			answer: jsonAnswer(page[latchView]{}), also: []int{http.StatusGatewayTimeout},
			handle: func(c *call) error {
				all, err := c.broker.conn.LatchNames(c.ctx, c.text("pattern"))
				if err != nil {
					return err
				}
				p, err := pageOf(c, all, c.matches(c.text("pattern")), c.latchView)
				if err != nil {
					return err
				}
				return c.reply(p)
			},
		},
		{
			method: http.MethodGet, path: "/v1/admin/latches/{name}", name: "getLatch", summary: "show a latch", access: administrator("name"),
			doc:    "A latch that was never set is shown as not set.",
			params: []param{name}, answer: jsonAnswer(latchView{}), also: []int{http.StatusGatewayTimeout},
			handle: func(c *call) error { return c.replyLatch() },
		},
		{
			method: http.MethodPut, path: "/v1/admin/latches/{name}", name: "setLatch", summary: "set a latch", access: administrator("name"),
			doc:    "Everyone who waits for the latch continues, and later waits return at once.",
			params: []param{name}, answer: jsonAnswer(latchView{}), also: []int{http.StatusInsufficientStorage, http.StatusGatewayTimeout},
			handle: func(c *call) error { return c.putLatch(true) },
		},
		{
			method: http.MethodDelete, path: "/v1/admin/latches/{name}", name: "clearLatch", summary: "clear a latch", access: administrator("name"),
			doc:    "If the latch is not set, the answer is 404.",
			params: []param{name}, answer: jsonAnswer(latchView{}), also: []int{http.StatusNotFound, http.StatusInsufficientStorage, http.StatusGatewayTimeout},
			handle: func(c *call) error {
				l, err := c.broker.conn.LatchInfo(c.ctx, c.text("name"))
				if err != nil {
					return err
				}
				if !l.Set {
					return refused(http.StatusNotFound, "latch %s is not set", l.Name)
				}
				return c.putLatch(false)
			},
		},
	}
}

// latchView is a latch.
type latchView struct {
	Name    string     `json:"name" doc:"the name"`
	Set     bool       `json:"set" doc:"whether the latch is set"`
	Changed *time.Time `json:"changed,omitempty" doc:"when the latch was set or cleared"`
}

func (c *call) latchView(name string) (*latchView, error) {
	l, err := c.broker.conn.LatchInfo(c.ctx, name)
	if err != nil {
		return nil, err
	}
	v := &latchView{Name: name, Set: l.Set}
	if !l.Changed.IsZero() {
		v.Changed = &l.Changed
	}
	return v, nil
}

func (c *call) replyLatch() error {
	v, err := c.latchView(c.text("name"))
	if err != nil {
		return err
	}
	return c.reply(v)
}

func (c *call) putLatch(set bool) error {
	if err := c.broker.conn.SetLatch(c.ctx, c.text("name"), set); err != nil {
		return err
	}
	return c.replyLatch()
}
