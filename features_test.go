package hark_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/harkbus/hark"
)

// failures is a hook that records where something failed.
type failures struct {
	mu  sync.Mutex // guards at
	at  []hark.Source
	err []error
}

func (f *failures) OnFail(e hark.FailEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.err = append(f.at, e.Source), append(f.err, e.Err)
}

// TestFeaturesShareABus uses a topic, a channel, a notifier and a value with the
// same name on one bus.
func TestFeaturesShareABus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, hook := t.Context(), &failures{}
		bus := hark.New(hark.WithHooks(hook))
		topic, errTopic := hark.NewTopic[int](bus, "jobs")
		ch, errChan := hark.NewChan[int](bus, "jobs", 1)
		value, errValue := hark.NewValue(bus, "jobs", 0)
		notifier, errNotifier := hark.NewNotifier(bus)
		if err := errors.Join(errTopic, errChan, errValue, errNotifier); err != nil {
			t.Fatal(err)
		}

		// A panic is reported to the one hook, with its source.
		_, errTopic = topic.Subscribe(func(context.Context, *hark.Message[int]) error { panic("topic") }, hark.MaxAttempts(1))
		_, errNotifier = notifier.Register("jobs", func(context.Context, hark.Signal) { panic("notifier") })
		_, errValue = value.Observe(func(_, _ int) { panic("value") })
		if err := errors.Join(errTopic, errNotifier, errValue); err != nil {
			t.Fatal(err)
		}
		_, errNotifier = notifier.Notify(ctx, "jobs")
		if err := errors.Join(topic.Publish(ctx, 1), ch.Send(ctx, 1), value.Set(ctx, 1), errNotifier); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		hook.mu.Lock()
		for _, kind := range []hark.Kind{hark.KindTopic, hark.KindNotifier, hark.KindValue} {
			i := slices.IndexFunc(hook.at, func(s hark.Source) bool { return s.Kind == kind })
			var panicked *hark.PanicError
			if i < 0 || hook.at[i].Name != "jobs" || !errors.As(hook.err[i], &panicked) || panicked.Value != string(kind) {
				t.Errorf("the panic of the %s is not reported as it was: %+v %v", kind, hook.at, hook.err)
			}
		}
		if len(hook.at) != 3 {
			t.Errorf("%d failures are reported, want 3: %+v", len(hook.at), hook.at)
		}
		hook.mu.Unlock()

		s := bus.Stats()
		i := slices.IndexFunc(s.Topics, func(t hark.TopicStats) bool { return t.Name == "jobs" })
		if i < 0 || s.Topics[i].Published != 1 || len(s.Chans) != 1 || s.Chans[0].Sent != 1 || s.Notifier.Notified != 1 || s.Notifier.Failed != 1 ||
			len(s.Values) != 1 || s.Values[0].Version != 2 || s.Values[0].Failed != 1 {
			t.Errorf("got numbers %+v", s)
		}
		var kinds []hark.Kind
		for _, n := range bus.Topology().Nodes {
			if n.Name == "jobs" {
				kinds = append(kinds, n.Kind)
			}
		}
		if want := []hark.Kind{hark.KindChan, hark.KindNotifier, hark.KindTopic, hark.KindValue}; !slices.Equal(kinds, want) {
			t.Errorf("the topology has %v, want %v", kinds, want)
		}

		if err := bus.Close(ctx); err != nil {
			t.Error(err)
		}
		_, errNotifier = notifier.Notify(ctx, "jobs")
		for kind, err := range map[hark.Kind]error{
			hark.KindTopic: topic.Publish(ctx, 2), hark.KindChan: ch.Send(ctx, 2), hark.KindValue: value.Set(ctx, 2), hark.KindNotifier: errNotifier,
		} {
			if !errors.Is(err, hark.ErrClosed) {
				t.Errorf("%s after the close: %v, want ErrClosed", kind, err)
			}
		}
	})
}

// TestFeaturesShareTheRulesForNames checks that every feature refuses the same names
// with the same words.
func TestFeaturesShareTheRulesForNames(t *testing.T) {
	bus := hark.New()
	for name, ok := range map[string]bool{
		"jobs": true, "jobs.new": true, "größe.x-1_": true,
		"": false, ".": false, "jobs.": false, ".jobs": false, "a..b": false, "a b": false, "a.*": false, "a.>": false, "a\x00": false,
	} {
		_, errTopic := hark.NewTopic[int](bus, name)
		_, errChan := hark.NewChan[int](bus, name, 0)
		_, errValue := hark.NewValue(bus, name, 0)
		notifier, err := hark.NewNotifier(bus)
		if err != nil {
			t.Fatal(err)
		}
		_, errListen := notifier.Listen(name)
		for feature, err := range map[string]error{"topic": errTopic, "channel": errChan, "value": errValue, "listener": errListen} {
			if ok && err != nil || !ok && !errors.Is(err, hark.ErrInvalidName) {
				t.Errorf("%s %q: %v", feature, name, err)
			}
		}
	}
	if err := bus.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
