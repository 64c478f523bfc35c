package hark_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/memdriver"
)

// burials passes on which messages failed and which became dead letters.
type burials struct{ failed, dead chan string }

func (b burials) OnFail(e hark.FailEvent)       { b.failed <- string(e.Message.Data().([]byte)) }
func (b burials) OnDeadLetter(e hark.FailEvent) { b.dead <- e.Message.Topic() }

// TestUndecodable checks that a subscription over an engine makes a dead letter
// of a message that it cannot decode: one, with the message's bytes and the
// record, even if a pattern takes the dead letter.
func TestUndecodable(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	engine, seen := memdriver.New(), burials{make(chan string, 10), make(chan string, 10)}
	from, to := hark.Over(engine.Connect()), hark.Over(engine.Connect(), hark.WithHooks(seen))
	kept := hark.Stored(hark.Retention{})
	words, err1 := hark.NewTopic[string](from, "o.words", kept)
	numbers, err2 := hark.NewTopic[int](to, "o.words", kept)
	dead, err3 := hark.NewTopic[string](from, "o.words.dead", kept)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	ignore := func(context.Context, *hark.Message[int]) error { return nil }
	group := mustSubscribe(t, numbers, ignore, hark.Group("g"))
	letters := make(chan *hark.Message[string], 10)
	mustSubscribe(t, dead, func(_ context.Context, m *hark.Message[string]) error { letters <- m.Clone(); return nil })
	mustPublish(t, words, "one", hark.ID("id-1"))
	if m := <-letters; m.Value != "one" || m.ID() != "id-1" || m.Failure() == nil || m.Failure().Subscription != "g" ||
		!strings.Contains(m.Failure().Reason, "decode int as application/json") {
		t.Errorf("got %v %q %+v", m.Value, m.ID(), m.Failure())
	}
	if failed, dead := <-seen.failed, <-seen.dead; failed != `"one"` || dead != "o.words" {
		t.Errorf("hooks: %s failed, of %s a dead letter was made", failed, dead)
	}
	if err := group.Close(); err != nil {
		t.Error(err)
	}

	pattern, err := hark.SubscribePattern(to, "o.>", ignore)
	if err != nil {
		t.Fatal(err)
	}
	mustPublish(t, words, "two")
	if m := <-letters; m.Value != "two" || m.Failure() == nil || m.Failure().Before != nil {
		t.Errorf("got %v %+v", m.Value, m.Failure())
	}
	if err := to.Settle(ctx); err != nil {
		t.Error(err)
	}
	if s := pattern.Stats(); s.Failed != 2 || s.Dead != 1 || s.Dropped != 1 {
		t.Errorf("pattern: got %+v, want one dead letter, and that dropped when it came", s)
	}
	if err := errors.Join(from.Close(ctx), to.Close(ctx)); err != nil {
		t.Error(err)
	}
}

// narrow is a connection that accepts messages of at most the given number of
// bytes, including headers.
type narrow struct {
	driver.Conn
	most int
}

func (n narrow) Info() driver.Info {
	info := n.Conn.Info()
	info.MaxPayload = n.most
	return info
}

func (n narrow) OpenTopic(ctx context.Context, c driver.TopicConfig) (driver.Topic, error) {
	topic, err := n.Conn.OpenTopic(ctx, c)
	return narrowTopic{topic, n.most}, err
}

type narrowTopic struct {
	driver.Topic
	most int
}

func (n narrowTopic) Publish(ctx context.Context, ms []*driver.Message) error {
	for _, m := range ms {
		size := len(m.Data)
		for name, value := range m.Headers {
			size += len(name) + len(value)
		}
		if size > n.most {
			return fmt.Errorf("%w: %d bytes", driver.ErrTooLarge, size)
		}
	}
	return n.Topic.Publish(ctx, ms)
}

// allDrops passes on what was dropped.
type allDrops chan hark.DropEvent

func (d allDrops) OnDrop(e hark.DropEvent) { d <- e }

// TestDeadLettersThatBarelyFit checks dead letters whose size is near the
// largest message that the engine accepts. They are made with as much of their
// record as fits, or dropped and counted if none of it does.
func TestDeadLettersThatBarelyFit(t *testing.T) {
	const most = 4096
	t.Run("decoded", func(t *testing.T) {
		testBarelyFits(t, most, "want a failure", func(context.Context, *hark.Message[string]) error {
			return hark.Reject(errors.New("want a failure" + strings.Repeat(".", 2*most)))
		})
	})
	t.Run("undecodable", func(t *testing.T) {
		testBarelyFits(t, most, "decode int", func(context.Context, *hark.Message[int]) error { return nil })
	})
}

func testBarelyFits[T any](t *testing.T, most int, reason string, h hark.Handler[T]) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	engine, dropped := memdriver.New(), make(allDrops, 10)
	from := hark.Over(engine.Connect())
	to := hark.Over(narrow{engine.Connect(), most}, hark.WithHooks(dropped))
	kept := hark.Stored(hark.Retention{})
	words, err1 := hark.NewTopic[string](from, "words", kept)
	dead, err2 := hark.NewTopic[string](from, "words.dead", kept)
	topic, err3 := hark.NewTopic[T](to, "words", kept)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	letters := make(chan *hark.Message[string], 10)
	mustSubscribe(t, dead, func(_ context.Context, m *hark.Message[string]) error { letters <- m.Clone(); return nil })
	sub := mustSubscribe(t, topic, h, hark.Group("g"))
	mustPublish(t, words, strings.Repeat("a", most-10))
	mustPublish(t, words, strings.Repeat("b", most-1000))
	for dropped != nil || letters != nil {
		select {
		case e := <-dropped:
			if e.Reason != hark.DropGivenUp || e.Count != 1 || e.Name != "words" {
				t.Errorf("dropped: got %+v", e)
			}
			dropped = nil
		case m := <-letters:
			if f := m.Failure(); m.Value[0] != 'b' || f == nil || !strings.HasPrefix(f.Reason, reason) {
				t.Errorf("dead letter: got %.10s... with %+v", m.Value, f)
			}
			letters = nil
		case <-ctx.Done():
			t.Fatalf("got no drop or no dead letter: %+v", sub.Stats())
		}
	}
	if err := errors.Join(to.Close(ctx), from.Close(ctx)); err != nil {
		t.Error(err)
	}
}

// TestDeadLettersOfAny checks that a subscription to values of any type makes
// dead letters of the bytes that it received, on a topic that is still free to
// carry their type.
func TestDeadLettersOfAny(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	buried := make(deadOnly, 10)
	bus := hark.Over(memdriver.New().Connect(), hark.WithHooks(buried))
	for _, tt := range []struct{ topic, pattern string }{{"o.x", "o.*"}, {"plain", "plain"}} {
		numbers, err := hark.NewTopic[int](bus, tt.topic, hark.Bare())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hark.SubscribePattern(bus, tt.pattern, func(context.Context, *hark.Message[any]) error { return hark.Reject(errTrap) }); err != nil {
			t.Fatal(err)
		}
		mustPublish(t, numbers, 7)
		select {
		case <-buried:
		case <-ctx.Done():
			t.Fatal("got no dead letter")
		}
		dead, err := hark.NewTopic[int](bus, tt.topic+".dead", hark.Stored(hark.Retention{MaxMessages: 10000}), hark.DedupWindow(0))
		if err != nil {
			t.Fatal(err)
		}
		for m, err := range dead.Messages(ctx, hark.FromStart()) {
			if err != nil {
				t.Fatal(err)
			}
			if f := m.Failure(); m.Value != 7 || f == nil || f.Topic != tt.topic || f.Reason != errTrap.Error() {
				t.Errorf("got %v with %+v", m.Value, f)
			}
			break
		}
	}
	closeBus(t, bus)
}

// deadOnly passes on the topics of messages that became dead letters.
type deadOnly chan string

func (d deadOnly) OnDeadLetter(e hark.FailEvent) { d <- e.Message.Topic() }
