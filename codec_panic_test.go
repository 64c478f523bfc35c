package hark_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/memdriver"
)

// touchy panics when encoded if it is below 0, and when decoded if it is above
// 9.
type touchy int

func (n touchy) MarshalJSON() ([]byte, error) {
	if n < 0 {
		panic("not below 0")
	}
	return json.Marshal(int(n))
}

func (n *touchy) UnmarshalJSON(data []byte) error {
	err := json.Unmarshal(data, (*int)(n))
	if *n > 9 {
		panic("not above 9")
	}
	return err
}

// chanDrops passes on the drops of channels.
type chanDrops chan hark.DropEvent

func (d chanDrops) OnDrop(e hark.DropEvent) {
	if e.Kind == hark.KindChan {
		d <- e
	}
}

// wantPanic checks that the error reports a panic.
func wantPanic(t *testing.T, what string, err error) {
	t.Helper()
	if panicked := (*hark.PanicError)(nil); !errors.As(err, &panicked) {
		t.Errorf("%s: got %v, want a *PanicError", what, err)
	}
}

// TestCodecsThatPanic checks that every feature over an engine survives a codec
// that panics: whoever passed a value that cannot be encoded gets the error,
// and so does whoever would have received a value that cannot be decoded.
func TestCodecsThatPanic(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	engine, failed, dropped := memdriver.New(), make(failing, 10), make(chanDrops, 10)
	bus := hark.Over(engine.Connect(), hark.WithHooks(failed, dropped))
	other := hark.Over(engine.Connect())
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}

	topic, err := hark.NewTopic[touchy](bus, "touchy")
	ok(err)
	got := make(chan touchy, 1)
	mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[touchy]) error { got <- m.Value; return nil })
	wantPanic(t, "publish", topic.Publish(ctx, -1))
	elsewhere, err := hark.NewTopic[int](other, "touchy")
	ok(err)
	mustPublish(t, elsewhere, 10)
	wantPanic(t, "a message", <-failed)
	mustPublish(t, elsewhere, 1)
	if n := <-got; n != 1 {
		t.Errorf("got %d behind a message that panicked", n)
	}

	_, err = hark.NewValue[touchy](bus, "touchy", -1)
	wantPanic(t, "an initial value", err)
	value, err := hark.NewValue[touchy](bus, "touchy", 0)
	ok(err)
	wantPanic(t, "set", value.Set(ctx, -1))
	ok(value.Set(ctx, 1))
	shared, err := hark.NewValue(other, "touchy", 0)
	ok(err)
	ok(shared.Set(ctx, 10))
	wantPanic(t, "a change", <-failed)
	ok(shared.Set(ctx, 2))
	_, err = value.WaitUntil(ctx, func(n touchy) bool { return n == 2 })
	ok(err)

	ch, err := hark.NewChan[touchy](bus, "touchy", 8)
	ok(err)
	wantPanic(t, "send", ch.Send(ctx, -1))
	ch.In() <- -1
	if e := <-dropped; e.Reason != hark.DropUndecodable {
		t.Errorf("a value put into In: got %+v", e)
	}
	ch.In() <- 10
	ok(ch.Send(ctx, 3))
	_, err = ch.Receive(ctx)
	wantPanic(t, "receive", err)
	if n, err := ch.Receive(ctx); n != 3 || err != nil {
		t.Errorf("receive: got %d, %v", n, err)
	}

	_, err = hark.Reply(bus, "touchy", func(_ context.Context, n touchy) (touchy, error) { return n - 5, nil })
	ok(err)
	_, err = hark.Request[touchy, touchy](ctx, bus, "touchy", -1)
	wantPanic(t, "a request", err)
	for _, n := range []int{10, 4} { // cannot be decoded there; has an answer that cannot be encoded
		_, err = hark.Request[int, int](ctx, other, "touchy", n)
		wantPanic(t, "the answer", err)
	}
	if n, err := hark.Request[int, int](ctx, other, "touchy", 6); n != 1 || err != nil {
		t.Errorf("request: got %d, %v", n, err)
	}
	ok(bus.Close(ctx))
	ok(other.Close(ctx))
}
