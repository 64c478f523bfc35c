package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// callers is how many publishers run while a broker is killed.
const callers = 4

// publishUntil publishes messages one after the other, retrying each until it is
// acknowledged, and calls acknowledged after each. When stop is closed it returns
// how many there were.
func publishUntil(ctx context.Context, stop <-chan struct{}, topic driver.Topic, caller int, acknowledged func()) (int, error) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return n, nil
		default:
		}
		m := &driver.Message{
			ID: fmt.Sprintf("%d.%d", caller, n), Key: strconv.Itoa(caller), HasKey: true, ContentType: "application/json",
			Data: fmt.Appendf(nil, `{"n":%d}`, n),
		}
		for topic.Publish(ctx, []*driver.Message{m}) != nil {
			if ctx.Err() != nil {
				return n, context.Cause(ctx)
			}
		}
		acknowledged()
	}
}

// counted checks the messages of a topic: those of each caller must be there, from
// 0 up to at least want of them, once and in order.
func counted(t *testing.T, topic string, ms []*driver.Received, want []int) {
	t.Helper()
	next := make([]int, len(want))
	for _, m := range ms {
		caller, number, _ := strings.Cut(m.ID, ".")
		i, err := strconv.Atoi(caller)
		if err != nil {
			t.Fatal(err)
		}
		if number != strconv.Itoa(next[i]) {
			t.Fatalf("%s: got message %s of caller %d, want %d", topic, number, i, next[i])
		}
		next[i]++
	}
	for i, n := range want {
		if next[i] < n {
			t.Errorf("%s: caller %d has %d messages there of %d that were acknowledged", topic, i, next[i], n)
		}
	}
}

// TestKill9 kills a broker at random moments while four publishers publish to a
// topic, a route copies the topic to another one, and a group reads that. With
// HARK_LONG=1 it does so 50 times.
func TestKill9(t *testing.T) {
	rounds := long(4, 50)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rounds)*patience)
	defer cancel()
	file := childConfig(t, "topics: [{name: orders}, {name: routed}]\nroutes: [{from: orders, where: data.n >= 0, to: routed}]")
	b := startChild(t, file)
	open := func() *natsdriver.Conn { return b.connect(ctx, t, "?sync=always&lease=2s") }

	var published atomic.Int64
	enough := make(chan struct{}, 1) // the broker may be killed
	var threshold atomic.Int64
	threshold.Store(1 << 62)
	acknowledged := func() {
		if published.Add(1) == threshold.Load() {
			enough <- struct{}{}
		}
	}
	stop, sent, errs := make(chan struct{}), make([]int, callers), make([]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		topic, err := open().OpenTopic(ctx, driver.TopicConfig{Name: "orders", Stored: &driver.StoredConfig{Existing: true, Dedup: 2 * time.Minute}})
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() { sent[i], errs[i] = publishUntil(ctx, stop, topic, i, acknowledged) })
	}

	// The group receives each message at least once.
	reader := open()
	group, err := storedTopic(t, reader, "routed").Subscribe(ctx, driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 256})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	var seenMu sync.Mutex
	reading, endReading := context.WithCancel(ctx)
	defer endReading()
	readerEnded := make(chan struct{})
	go func() {
		defer close(readerEnded)
		for reading.Err() == nil {
			ms, err := group.Receive(reading, 256)
			if err != nil {
				continue // the connection is lost, or the test is over
			}
			seenMu.Lock()
			for _, m := range ms {
				seen[m.ID] = true
			}
			seenMu.Unlock()
			_ = group.Ack(reading, ms) // if it fails they come again
		}
	}()

	for range rounds {
		if rand.N(5) == 0 { // possibly during recovery
			time.AfterFunc(time.Duration(rand.N(int64(30*time.Millisecond))), b.kill)
		} else {
			threshold.Store(published.Load() + 20 + rand.Int64N(400))
			select {
			case <-enough:
			case <-ctx.Done():
				t.Fatal("nothing is acknowledged any more")
			}
		}
		b.kill()
		b = startChild(t, file)
	}
	threshold.Store(published.Load() + 100)
	<-enough
	close(stop)
	all.Wait()
	total := 0
	for i, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
		total += sent[i]
	}

	// Every message is there, and the route has done its work.
	c := open()
	for _, name := range []string{"orders", "routed"} {
		sub, err := storedTopic(t, c, name).Subscribe(ctx, driver.SubscribeConfig{From: driver.FromStart, Window: 4096})
		if err != nil {
			t.Fatal(err)
		}
		var ms []*driver.Received
		for len(ms) < total {
			more, err := sub.Receive(ctx, 4096)
			if err != nil {
				t.Fatalf("%s: %v after %d of %d messages", name, err, len(ms), total)
			}
			ms = append(ms, more...)
		}
		counted(t, name, ms, sent)
		if n := stats(t, storedTopic(t, c, name)).Stored; n != uint64(total) {
			t.Errorf("%s: %d messages are stored, %d were acknowledged and none is twice", name, n, total)
		}
	}
	for missing := total; missing > 0; {
		seenMu.Lock()
		missing = total - len(seen)
		seenMu.Unlock()
		if ctx.Err() != nil {
			t.Fatalf("the group has not seen %d of %d messages", missing, total)
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	endReading()
	<-readerEnded
	t.Logf("%d messages acknowledged and routed over %d kills", total, rounds)
}

// consumerVariable turns the test binary into a member of a group that is to be
// killed. Its value is the URL of a broker.
const consumerVariable = "HARK_BROKER_CONSUMER"

// consumeUntilKilled reports each message it receives, and then acknowledges it.
func consumeUntilKilled(url string) error {
	ctx := context.Background()
	c, err := natsdriver.Open(ctx, url)
	if err != nil {
		return err
	}
	topic, err := c.OpenTopic(ctx, driver.TopicConfig{Name: "orders", Stored: &driver.StoredConfig{Existing: true}})
	if err != nil {
		return err
	}
	sub, err := topic.Subscribe(ctx, driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 16})
	if err != nil {
		return err
	}
	for {
		ms, err := sub.Receive(ctx, 4)
		if err != nil {
			return err
		}
		for _, m := range ms {
			if _, err := os.Stdout.WriteString(m.ID + "\n"); err != nil {
				return err
			}
		}
		if err := sub.Ack(ctx, ms); err != nil {
			return err
		}
	}
}

// TestConsumerIsKilled kills members of a group in the middle of their work. What
// they had in flight goes to others when the lease ends, and nothing is lost.
func TestConsumerIsKilled(t *testing.T) {
	b := start(t, config(t, "topics: [{name: orders}]"))
	url := "nats://" + b.Addr().String() + "?lease=1s"
	const total = 2000
	orders := storedTopic(t, b.conn, "orders")
	for n := 0; n < total; n += 100 {
		var ms []*driver.Message
		for i := range 100 {
			ms = append(ms, &driver.Message{ID: strconv.Itoa(n + i), Data: []byte("{}")})
		}
		publishTo(t, orders, ms...)
	}
	seen := map[string]int{}
	for range long(3, 20) {
		for _, id := range killConsumer(t, url, 20+rand.N(40)) {
			seen[id]++
		}
	}
	c, err := natsdriver.Open(testContext(t), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(testContext(t)); err != nil {
			t.Error(err)
		}
	}()
	sub, err := storedTopic(t, c, "orders").Subscribe(testContext(t), driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 256})
	if err != nil {
		t.Fatal(err)
	}
	for len(seen) < total {
		ms, err := sub.Receive(testContext(t), 256)
		if err != nil {
			t.Fatalf("%v: %d of %d messages were seen", err, len(seen), total)
		}
		for _, m := range ms {
			seen[m.ID]++
		}
		if err := sub.Ack(testContext(t), ms); err != nil {
			t.Fatal(err)
		}
	}
	again := 0
	for _, n := range seen {
		again += n - 1
	}
	t.Logf("%d messages, of which %d came more than once", total, again)
}

// killConsumer runs a member of the group, kills it once it has reported a number
// of messages, and returns their IDs.
func killConsumer(t *testing.T, url string, after int) (ids []string) {
	t.Helper()
	c, lines := startProcess(t, consumerVariable, url)
	for line := range lines {
		ids = append(ids, line)
		if len(ids) == after {
			c.kill()
		}
	}
	c.kill()
	if len(ids) < after {
		t.Fatalf("the consumer ended after %d messages: %s", len(ids), c.complaint)
	}
	return slices.Compact(ids)
}
