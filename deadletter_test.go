package hark_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/memdriver"
)

// burials passes on which messages failed, and which became dead letters.
type burials struct{ failed, dead chan string }

func (b burials) OnFail(e hark.FailEvent)       { b.failed <- string(e.Message.Data().([]byte)) }
func (b burials) OnDeadLetter(e hark.FailEvent) { b.dead <- e.Message.Topic() }

// TestUndecodable holds subscriptions over an engine to making a dead letter of
// what they cannot decode: its bytes, with the record, once, also if a pattern
// takes what becomes of it.
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
