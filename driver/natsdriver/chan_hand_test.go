package natsdriver

import (
	"strconv"
	"testing"

	"github.com/harkbus/hark/driver"
)

// The server's answer to the last of several values that are reported as done
// together means that it has recorded all of them.
func TestChanDoneTogether(t *testing.T) {
	const values = 50
	s := startServer(t, withJetStream)
	ctx := testContext(t)
	c := openChan(t, s.open(t), driver.Unbounded)
	ch := c.(*channel)
	for round := range 20 {
		for i := range values {
			if err := c.Send(ctx, []byte(strconv.Itoa(i)), false); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Receive(ctx, false); err != nil {
				t.Fatal(err)
			}
		}
		ch.mu.Lock()
		var replies []string
		for h := range ch.hands {
			replies = append(replies, h.reply)
		}
		clear(ch.hands)
		ch.mu.Unlock()
		if len(replies) != values {
			t.Fatalf("round %d: %d values are in hand, want %d", round, len(replies), values)
		}
		if err, _ := ch.reportAll(ctx, replies); err != nil {
			t.Fatal(err)
		}
		consumer, err := ch.values.Consumer(ctx, chanConsumer)
		if err != nil {
			t.Fatal(err)
		}
		if n := consumer.CachedInfo().NumAckPending; n > 0 {
			t.Fatalf("round %d: the server still waits for %d values to be done", round, n)
		}
	}
}
