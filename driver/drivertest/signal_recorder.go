package drivertest

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/harkbus/hark"
)

// signalRecorder provides a listener function that records signals and can be blocked.
type signalRecorder struct {
	mu      sync.Mutex // guards the fields below
	got     []hark.Signal
	changed chan struct{} // closed when the next signal is recorded
	held    chan struct{} // blocks the function until closed; nil: does not block
}

func newSignalRecorder() *signalRecorder { return &signalRecorder{changed: make(chan struct{})} }

func (e *signalRecorder) hear(s hark.Signal) {
	e.mu.Lock()
	e.got = append(e.got, s)
	close(e.changed)
	e.changed = make(chan struct{})
	held := e.held
	e.mu.Unlock()
	if held != nil {
		<-held
	}
}

func (e *signalRecorder) call(_ context.Context, s hark.Signal) { e.hear(s) }

// hold blocks the next call of the function until the returned function is
// called or the test ends.
func (e *signalRecorder) hold(t *testing.T) (release func()) {
	held := make(chan struct{})
	e.mu.Lock()
	e.held = held
	e.mu.Unlock()
	release = sync.OnceFunc(func() {
		e.mu.Lock()
		e.held = nil
		e.mu.Unlock()
		close(held)
	})
	t.Cleanup(release)
	return release
}

func (e *signalRecorder) signals() []hark.Signal {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.got)
}

// count returns the number of notifications received.
func (e *signalRecorder) count() (n int) {
	for _, s := range e.signals() {
		n += s.Count
	}
	return n
}

// wait waits until signals for n notifications have been received.
func (e *signalRecorder) wait(ctx context.Context, t *testing.T, n int) []hark.Signal {
	t.Helper()
	for {
		e.mu.Lock()
		changed := e.changed
		e.mu.Unlock()
		if e.count() >= n {
			return e.signals()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("heard %v, want %d notifications", e.signals(), n)
		}
	}
}

func (e *signalRecorder) register(t *testing.T, n *hark.Notifier, name string, opts ...hark.ListenOption) *hark.Listener {
	t.Helper()
	l, err := n.Register(name, e.call, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func listen(t *testing.T, n *hark.Notifier, name string, opts ...hark.ListenOption) *hark.Listener {
	t.Helper()
	l, err := n.Listen(name, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// receive takes a signal from a listener's channel.
func receive(ctx context.Context, t *testing.T, l *hark.Listener) hark.Signal {
	t.Helper()
	select {
	case s, ok := <-l.C():
		if !ok {
			t.Fatalf("the channel of %s is closed", l.ID())
		}
		return s
	case <-ctx.Done():
		t.Fatalf("no signal for %s", l.ID())
	}
	return hark.Signal{}
}

func wantSignals(t *testing.T, what string, got []hark.Signal, want ...hark.Signal) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
