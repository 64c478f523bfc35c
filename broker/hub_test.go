package broker

import (
	"net/http"
	"testing"

	"github.com/harkbus/hark/driver"
)

// What is published over HTTP is not sent to the server while only clients over HTTP
// follow it. Clients of NATS that come and go get what they should, and the others
// notice nothing.
func TestFollowersBesideNATS(t *testing.T) {
	b := start(t, config(t, ""))
	web := newWebClient(t, b)
	const topic = "web.clicks"
	followers := []*stream{web.follow(topic + "/events"), web.follow(topic + "/events?where=data.n<1000")}
	n := 0
	post := func(count int) (sent uint64) {
		t.Helper()
		before := b.client.Stats().OutMsgs
		web.numbers(http.StatusAccepted, topic, n, count)
		n += count
		return b.client.Stats().OutMsgs - before
	}
	if sent := post(20); sent != 0 {
		t.Errorf("%d messages were sent to the server, want none", sent)
	}
	c := dial(t, b, "")
	live, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: topic})
	if err != nil {
		t.Fatal(err)
	}
	subscribe := map[string]func() (driver.Subscription, error){
		"topic": func() (driver.Subscription, error) {
			return live.Subscribe(testContext(t), driver.SubscribeConfig{Window: 100})
		},
		"group": func() (driver.Subscription, error) {
			return live.Subscribe(testContext(t), driver.SubscribeConfig{Window: 100, Group: "g"})
		},
		"pattern": func() (driver.Subscription, error) {
			return c.SubscribePattern(testContext(t), "*.clicks", driver.SubscribeConfig{Window: 100})
		},
		"everything": func() (driver.Subscription, error) {
			return c.SubscribePattern(testContext(t), ">", driver.SubscribeConfig{Window: 100})
		},
	}
	for name, begin := range subscribe {
		sub, err := begin()
		if err != nil {
			t.Fatal(err)
		}
		post(10)
		if got := len(receive(t, sub, 10)); got != 10 {
			t.Errorf("%s: got %d messages, want 10", name, got)
		}
		if err := sub.Close(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if err := c.Flush(testContext(t)); err != nil { // the server has processed that
			t.Fatal(err)
		}
		if sent := post(10); sent != 0 {
			t.Errorf("%s: %d messages were sent after it had gone, want none", name, sent)
		}
	}
	for _, s := range followers {
		s.want(upTo(0, n)...)
	}
}
