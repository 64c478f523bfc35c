package natsdriver

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/harkbus/hark/driver"
)

// Calls that come while another one waits for the disk share a sync, and none returns
// before its own.
func TestOneSyncForManyCalls(t *testing.T) {
	syncs := make(chan chan error)
	s := startServer(t, withJetStream)
	c := s.open(t, Sync(func(ctx context.Context, _ string) error {
		result := make(chan error)
		select {
		case syncs <- result:
			return <-result
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}))
	topic := openTopic(t, c, "t", &driver.StoredConfig{}).(*stored)
	next := func() chan error {
		t.Helper()
		select {
		case result := <-syncs:
			return result
		case <-testContext(t).Done():
			t.Fatal("nobody waits for the disk")
			return nil
		}
	}
	const more = syncedLeast - 1 // they are not worth a second burst beside the first
	outcomes := make(chan error, 1+more)
	var calls sync.WaitGroup
	publish := func(n int) {
		for range n {
			calls.Go(func() { outcomes <- topic.Publish(testContext(t), bare("m")) })
		}
	}
	publish(1)
	first := next()
	publish(more)
	second := next()
	stats, err := topic.Stats(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	inSecond := int(stats.Stored) - 1
	eventually(t, "the others wait for the next burst", func() bool {
		w := &topic.writer
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.waiting == more-inSecond
	})
	if n := len(outcomes); n > 0 {
		t.Errorf("%d calls have returned, and nothing is on disk", n)
	}
	first <- nil
	if err := <-outcomes; err != nil {
		t.Errorf("the first call: %v", err)
	}
	broken := errors.New("input/output error")
	second <- broken
	for range inSecond {
		if err := <-outcomes; !errors.Is(err, broken) {
			t.Errorf("a call of the burst whose sync failed: got %v, want %v", err, broken)
		}
	}
	if inSecond < more {
		next() <- nil
	}
	calls.Wait()
	for range more - inSecond {
		if err := <-outcomes; err != nil {
			t.Errorf("a call of the last burst: %v", err)
		}
	}
}

// A call that sends its own messages because the connection is being closed does not
// return before they are on disk either.
func TestSyncWhileClosing(t *testing.T) {
	s := startServer(t, withJetStream)
	broken := errors.New("input/output error")
	c := s.open(t, Sync(func(context.Context, string) error { return broken }))
	topic := openTopic(t, c, "t", &driver.StoredConfig{}).(*stored)
	topic.calls.Add(1) // another call is under way
	c.mu.Lock()
	c.closing = make(chan struct{})
	c.mu.Unlock()
	if err := topic.Publish(testContext(t), bare("m")); !errors.Is(err, broken) {
		t.Errorf("Publish: got %v, want %v", err, broken)
	}
	c.mu.Lock()
	c.closing = nil
	c.mu.Unlock()
}

// However many messages keep coming, those that wait are written.
func TestGatherEnds(t *testing.T) {
	var w writer
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			default:
				w.mu.Lock()
				w.waiting++
				w.mu.Unlock()
			}
		}
	}()
	w.gather()
	close(end)
	<-ended
}
