package broker

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"time"
	"unicode/utf8"
)

// valueEndpoints are about shared values.
func valueEndpoints() []endpoint {
	name := topicParam("name", "the value").inPath()
	return []endpoint{
		{
			method: http.MethodGet, path: "/v1/admin/values", name: "listValues", summary: "list the shared values", access: anyUser,
			params: append(pageParams(), patternParam("pattern", "only values whose names match this pattern")),
			answer: jsonAnswer(page[valueView]{}), also: []int{http.StatusGatewayTimeout}, handle: listValues,
		},
		{
			method: http.MethodGet, path: "/v1/admin/values/{name}", name: "getValue", summary: "show a shared value", access: administrator("name"),
			params: []param{name}, answer: jsonAnswer(valueView{}), also: []int{http.StatusNotFound, http.StatusGatewayTimeout},
			handle: func(c *call) error { return c.replyValue(c.text("name")) },
		},
		{
			method: http.MethodPut, path: "/v1/admin/values/{name}", name: "setValue", summary: "set a shared value",
			doc: "The body is the encoded value, in JSON unless the programs use another codec. A value that does not exist is created. " +
				"With version, the value is set only if it still has that version; otherwise the answer is 412, and nothing changes. Values cannot be deleted, because programs may have them open.",
			access: administrator("name"), params: []param{name, numberParam("version", 1, 1<<63, "the version that the value must have")},
			body:   &body{media: []string{"application/json", "application/octet-stream"}, limit: 1 << 20},
			answer: jsonAnswer(valueView{}), also: []int{http.StatusNotFound, http.StatusPreconditionFailed, http.StatusInsufficientStorage, http.StatusGatewayTimeout}, handle: setValue,
		},
	}
}

// valueView is a shared value.
type valueView struct {
	Name    string          `json:"name" doc:"the name"`
	Version uint64          `json:"version" doc:"the version, which increases with each change"`
	Changed time.Time       `json:"changed" doc:"when the value was set"`
	Data    json.RawMessage `json:"data,omitempty" doc:"the value, if it is JSON or text"`
	Base64  []byte          `json:"data_base64,omitempty" doc:"the value as base64, if it is neither JSON nor text"`
}

func (c *call) valueView(name string) (*valueView, error) {
	info, err := c.broker.conn.ValueInfo(c.ctx, name)
	if err != nil {
		return nil, err
	}
	v := &valueView{Name: name, Version: info.State.Version, Changed: info.Changed}
	v.Data, v.Base64 = shown(info.State.Data)
	return v, nil
}

// shown returns data in the form shown to users: JSON unchanged, text as a string,
// and anything else to be encoded in base64.
func shown(data []byte) (text json.RawMessage, raw []byte) {
	switch {
	case json.Valid(data):
		return data, nil
	case utf8.Valid(data):
		return appendText(nil, string(data)), nil
	}
	return nil, data
}

func (c *call) replyValue(name string) error {
	v, err := c.valueView(name)
	if err != nil {
		return err
	}
	return c.reply(v)
}

func listValues(c *call) error {
	all, err := c.broker.conn.ValueNames(c.ctx, c.text("pattern"))
	if err != nil {
		return err
	}
	p, err := pageOf(c, all, c.matches(c.text("pattern")), c.valueView)
	if err != nil {
		return err
	}
	return c.reply(p)
}

func setValue(c *call) error {
	if err := c.checkMedia(c.endpoint.body.media...); err != nil {
		return err
	}
	data, err := io.ReadAll(c.req.Body)
	if err != nil {
		return bodyError(err)
	}
	if media := c.req.Header.Get("Content-Type"); media != "application/octet-stream" {
		if data = bytes.TrimSpace(data); !json.Valid(data) {
			return refused(http.StatusBadRequest, "the body is not JSON").but("send other bytes as application/octet-stream")
		}
	}
	name, want := c.text("name"), c.number("version")
	if want > 0 { // so that a missing value is not created
		if _, err := c.broker.conn.ValueInfo(c.ctx, name); err != nil {
			return err
		}
	}
	v, err := c.broker.conn.OpenValue(c.ctx, name, data)
	if err != nil {
		return err
	}
	state, err := v.Load(c.ctx)
	for err == nil {
		if want > 0 && state.Version != want {
			return refused(http.StatusPreconditionFailed, "value %s has version %d, not %d", name, state.Version, want)
		}
		if bytes.Equal(state.Data, data) {
			break
		}
		var done bool
		if state, done, err = v.CompareAndSet(c.ctx, state.Version, data); done {
			break
		}
	}
	if err != nil {
		return err
	}
	return c.replyValue(name)
}
