package natsdriver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// TestGatheringWithImpatience publishes to a strict topic as many callers do of which some
// give up: what was acknowledged is stored once and in order, and nothing is left behind
// for which the next ones would wait.
func TestGatheringWithImpatience(t *testing.T) {
	s := startServer(t, withSync)
	topic := openTopic(t, s.open(t, SyncAlways()), "t", &driver.StoredConfig{Durability: driver.DurableStrict}).(*stored)
	const callers, calls = 40, 6
	acked := make([]int, callers) // messages
	var all sync.WaitGroup
	for c := range callers {
		all.Go(func() {
			for i := range calls {
				ctx, cancel := testContext(t), context.CancelFunc(func() {})
				if (c+i)%4 == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(c+i)*100*time.Microsecond)
				}
				texts := make([]string, 1+(c*i)%(batchLeast+4))
				for k := range texts {
					texts[k] = fmt.Sprintf("%d %02d.%02d", c, i, k)
				}
				err := topic.Publish(ctx, bare(texts...))
				cancel()
				switch {
				case err == nil:
					acked[c] += len(texts)
				case ctx.Err() == nil:
					t.Errorf("call %d of caller %d: %v", i, c, err)
				}
			}
		})
	}
	all.Wait()
	w := &topic.writer
	eventually(t, "what was given up is done with", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.writing == 0
	})
	if len(w.queue) > 0 || w.waiting != 0 || w.singly != 0 {
		t.Errorf("%d calls and %d messages wait, %d are on their way; want none", len(w.queue), w.waiting, w.singly)
	}
	publish(t, topic, "last")
	got, last := make([]int, callers), map[string]string{}
	sub := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart})
	for {
		text := string(receive(t, sub, 1)[0].Data)
		if text == "last" {
			break
		}
		caller, place, _ := strings.Cut(text, " ")
		if place <= last[caller] {
			t.Errorf("caller %s: %s after %s", caller, place, last[caller])
		}
		last[caller] = place
		var c int
		if _, err := fmt.Sscan(caller, &c); err != nil {
			t.Fatal(err)
		}
		got[c]++
	}
	for c := range callers {
		if got[c] < acked[c] {
			t.Errorf("caller %d: %d messages are stored, %d were acknowledged", c, got[c], acked[c])
		}
	}
}

// A batch of which it is not known whether it was stored, and that cannot be sent
// again, is taken for stored if its last message is. That message must not be taken for
// a repeat because its own answer was lost.
func TestUnsureBatch(t *testing.T) {
	l := openBrittle(t)
	cfg := &driver.StoredConfig{Durability: driver.DurableStrict}
	topic, beside := openTopic(t, l.conn, "t", cfg).(*stored), openTopic(t, l.beside, "t", cfg)
	stored := func() uint64 {
		stats, err := beside.Stats(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		return stats.Stored
	}
	publish(t, topic, "first") // it asks for answers
	_, ps, _ := topic.prepare(testContext(t), bare("1", "2", "3"), false)
	setNATSHeader(ps[2].msg, natsMsgID, "id")
	release := l.proxy.hold()
	defer release()
	var writing sync.WaitGroup
	writing.Go(func() { topic.writeSingly(&batch{ctx: testContext(t), msgs: ps, unsure: true}, true) })
	eventually(t, "the last message is stored", func() bool { return stored() == 2 })
	l.cut(t)
	release()
	l.mend(t)
	writing.Wait()
	for _, p := range ps {
		if p.err != nil {
			t.Fatal(p.err)
		}
	}
	if n := stored(); n != 4 {
		t.Fatalf("%d messages are stored, want 4", n)
	}
	got := texts(receive(t, subscribe(t, beside, driver.SubscribeConfig{From: driver.FromStart}), 4))
	if want := []string{"first", "3", "1", "2"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
