package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// listener records what a connection hears.
type listener struct {
	conn *Conn

	mu      sync.Mutex // guards the fields below
	heard   []string   // targets
	latched map[string]bool
	changes int           // of latches
	hold    chan struct{} // signals wait until it is closed; nil for no wait
}

// listen makes a connection listen. Each signal reaches one listener.
func listen(t *testing.T, c *Conn) *listener {
	t.Helper()
	l := &listener{conn: c, latched: map[string]bool{}}
	if err := c.Listen(testContext(t), l.take); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *listener) take(s driver.Signal) int {
	l.mu.Lock()
	hold := l.hold
	defer l.mu.Unlock()
	if s.Latch {
		l.changes++
		if delete(l.latched, s.Target); s.Set {
			l.latched[s.Target] = true
		}
		return 0
	}
	l.heard = append(l.heard, s.Target)
	if hold != nil {
		l.mu.Unlock()
		<-hold
		l.mu.Lock()
	}
	return 1
}

func (l *listener) signals() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.heard)
}

func (l *listener) isLatched(names ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.latched) != len(names) {
		return false
	}
	for _, name := range names {
		if !l.latched[name] {
			return false
		}
	}
	return true
}

func (l *listener) notify(t *testing.T, target string, want int) {
	t.Helper()
	if got, err := l.conn.Notify(testContext(t), target); got != want || err != nil {
		t.Errorf("notify %s: got %d, %v, want %d", target, got, err, want)
	}
}

func (l *listener) latch(t *testing.T, name string, set bool) {
	t.Helper()
	if err := l.conn.Latch(testContext(t), name, set); err != nil {
		t.Errorf("latch %s %t: %v", name, set, err)
	}
}

// Many connections begin to listen at the same time. As soon as two of them listen,
// each counts the other.
func TestListenAtTheSameTime(t *testing.T) {
	const n = 8
	for range 5 {
		s := startServer(t)
		conns := make([]*Conn, n)
		for i := range conns {
			conns[i] = s.open(t)
		}
		all := make([]*listener, n)
		var wg sync.WaitGroup
		for i, c := range conns {
			wg.Go(func() { all[i] = listen(t, c) })
		}
		wg.Wait()
		for _, l := range all {
			l.notify(t, "x", n-1)
		}
	}
}

// Notify does not wait for a connection that ended without notice.
func TestNotifyTheDead(t *testing.T) {
	s := startServer(t)
	p := s.startProxy(t)
	a, b := listen(t, s.open(t)), listen(t, s.open(t))
	dead, err := Open(testContext(t), p.url())
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(t, dead)
	listen(t, dead)
	a.notify(t, "x", 2)
	p.cut()
	eventually(t, "the server has seen it", func() bool { return s.srv.NumClients() == 2 })
	begun := time.Now()
	a.notify(t, "x", 1)
	b.notify(t, "x", 1)
	if took := time.Since(begun); took > signalTimeout {
		t.Errorf("it was waited for %v", took)
	}
	p.mend() // it comes back
	eventually(t, "it counts again", func() bool {
		n, err := a.conn.Notify(testContext(t), "y")
		return n == 2 && err == nil
	})
	b.notify(t, "x", 2)
}

// Notify waits only once for a connection that does not answer in time.
func TestNotifyTheSilent(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	a, b, silent := listen(t, s.open(t)), listen(t, s.open(t)), listen(t, s.open(t))
	hold := make(chan struct{})
	silent.mu.Lock()
	silent.hold = hold
	silent.mu.Unlock()
	begun := time.Now()
	a.notify(t, "x", 1)
	if took := time.Since(begun); took < signalTimeout {
		t.Errorf("it was waited for %v only", took)
	}
	begun = time.Now()
	for range 5 {
		a.notify(t, "x", 1)
	}
	if took := time.Since(begun); took > 4*signalTimeout {
		t.Errorf("after that it was waited for %v", took)
	}
	close(hold)
	eventually(t, "it counts again", func() bool {
		n, err := a.conn.Notify(testContext(t), "y")
		return n == 2 && err == nil
	})
	eventually(t, "it has heard of all", func() bool {
		return strings.HasPrefix(strings.Join(silent.signals(), ""), "xxxxxxy")
	})
	if got := b.signals(); len(got) < 7 {
		t.Errorf("the other heard %v", got)
	}
	silent.mu.Lock()
	silent.hold = make(chan struct{})
	hold = silent.hold
	silent.mu.Unlock()
	ctx, cancel := context.WithTimeout(testContext(t), signalTimeout/2)
	defer cancel()
	if got, err := a.conn.Notify(ctx, "z"); got != 1 || err != nil {
		t.Errorf("a context that ends while it waits: got %d, %v, want 1", got, err)
	}
	close(hold)
}

// While all connections notify, the server is stopped and restarted. Nothing is
// heard twice or out of order, and afterwards each counts all the others.
func TestNotifyWhenTheServerRestarts(t *testing.T) {
	s := startServer(t)
	const n = 3
	all := make([]*listener, n)
	for i := range all {
		all[i] = listen(t, s.open(t))
	}
	ctx, stop := context.WithCancel(testContext(t))
	defer stop()
	var wg sync.WaitGroup
	for i, l := range all {
		wg.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				_, err := l.conn.Notify(ctx, fmt.Sprintf("n%d.%d", i, k))
				if err != nil && ctx.Err() == nil && !errors.Is(err, driver.ErrUnsure) {
					t.Errorf("notify: %v", err)
				}
			}
		})
	}
	heardMore := func() {
		t.Helper()
		for _, l := range all {
			begun := len(l.signals())
			eventually(t, "signals", func() bool { return len(l.signals()) > begun+50 })
		}
	}
	heardMore()
	for range 3 {
		s.stop()
		s.start()
		heardMore()
	}
	stop()
	wg.Wait()
	for _, l := range all {
		last := map[string]int{}
		for _, target := range l.signals() {
			from, number, _ := strings.Cut(target, ".")
			k, err := strconv.Atoi(number)
			if before, ok := last[from]; err != nil || ok && k <= before {
				t.Fatalf("%s came after %d", target, before)
			}
			last[from] = k
		}
	}
	for _, l := range all {
		eventually(t, "all count", func() bool {
			got, err := l.conn.Notify(testContext(t), "x")
			return got == n-1 && err == nil
		})
	}
}

func TestNotifyWithoutConnection(t *testing.T) {
	s := startServer(t)
	a, b := listen(t, s.open(t)), listen(t, s.open(t))
	s.stop()
	eventually(t, "down", func() bool { return !a.conn.state.connected() && !b.conn.state.connected() })
	ctx, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
	defer cancel()
	if n, err := a.conn.Notify(ctx, "lost"); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %d, %v, want the end of the context", n, err)
	}
	done := make(chan error)
	go func() {
		_, err := a.conn.Notify(testContext(t), "kept")
		done <- err
	}()
	s.start()
	if err := <-done; err != nil {
		t.Errorf("got %v: it is to wait for the connection", err)
	}
	eventually(t, "signals", func() bool {
		_, err := a.conn.Notify(testContext(t), "more")
		return err == nil && slices.Contains(b.signals(), "more")
	})
	if slices.Contains(b.signals(), "lost") {
		t.Error("a signal came whose context had ended")
	}
}

// A connection is cut off while latches change. Afterwards it knows their states,
// and is told only about latches that have changed.
func TestLatchesAfterAnInterruption(t *testing.T) {
	s := startServer(t, withJetStream)
	p := s.startProxy(t)
	a := listen(t, s.open(t))
	for _, name := range []string{"stays", "goes", "flickers"} {
		a.latch(t, name, true)
	}
	cutOff, err := Open(testContext(t), p.url())
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(t, cutOff)
	b := listen(t, cutOff)
	if !b.isLatched("stays", "goes", "flickers") || b.changes != 3 {
		t.Errorf("a late one sees %v after %d changes", b.latched, b.changes)
	}
	p.cut()
	eventually(t, "down", func() bool { return !cutOff.state.connected() })
	a.latch(t, "goes", false)
	a.latch(t, "comes", true)
	a.latch(t, "flickers", false)
	a.latch(t, "flickers", true)
	a.latch(t, "never", false)
	p.mend()
	eventually(t, "it has been told", func() bool { return b.isLatched("stays", "comes", "flickers") })
	a.latch(t, "last", true)
	eventually(t, "it goes on", func() bool { return b.isLatched("stays", "comes", "flickers", "last") })
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changes != 6 {
		t.Errorf("it was told of %d changes, want 3 at first, 2 after the interruption, 1 at last", b.changes)
	}
}

// While latches change, the server is stopped and restarted, and connections are
// cut. In the end all agree on what was acknowledged last.
func TestLatchesWhenTheServerRestarts(t *testing.T) {
	s := startServer(t, withJetStream)
	const n, rounds = 3, 30
	all := make([]*listener, n)
	for i := range all {
		all[i] = listen(t, s.open(t))
	}
	var wg sync.WaitGroup
	for i, l := range all {
		wg.Go(func() {
			for k := range rounds {
				l.latch(t, fmt.Sprintf("n%d", i), k%2 == 0)
				l.latch(t, fmt.Sprintf("m%d", i), k%2 == 1)
				if k%10 == 9 {
					if err := l.conn.Client().ForceReconnect(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for range 2 {
		begun := func() int { all[0].mu.Lock(); defer all[0].mu.Unlock(); return all[0].changes }
		at := begun()
		eventually(t, "changes", func() bool { return begun() > at+5 })
		s.stop()
		s.start()
	}
	wg.Wait()
	for _, l := range append(all, listen(t, s.open(t))) {
		eventually(t, "all agree", func() bool { return l.isLatched("m0", "m1", "m2") })
	}
}

// Somebody removes the stream of latches. That clears the latches, and they can be
// set again.
func TestLatchesAreRemoved(t *testing.T) {
	s := startServer(t, withJetStream)
	a, b := listen(t, s.open(t)), listen(t, s.open(t))
	for i := range 20 {
		a.latch(t, fmt.Sprintf("n%d", i), true)
	}
	if err := a.conn.js.DeleteStream(testContext(t), latchStream); err != nil {
		t.Fatal(err)
	}
	a.latch(t, "x", true)
	for _, l := range []*listener{a, b} {
		eventually(t, "only the new one is set", func() bool { return l.isLatched("x") })
	}
}

func TestLatchesWithoutJetStream(t *testing.T) {
	a := listen(t, startServer(t).open(t))
	if err := a.conn.Latch(testContext(t), "x", true); !errors.Is(err, driver.ErrUnsupported) {
		t.Errorf("got %v, want ErrUnsupported", err)
	}
	if a.conn.info.Has(driver.Latches) {
		t.Error("latches are declared")
	}
	a.notify(t, "x", 0)
}

func TestListenOnce(t *testing.T) {
	s := startServer(t)
	a := s.open(t)
	if _, err := a.Notify(testContext(t), "x"); err == nil {
		t.Error("Notify of who does not listen: got no error")
	}
	listen(t, a)
	if err := a.Listen(testContext(t), nil); err == nil {
		t.Error("listening twice: got no error")
	}
}

var _ driver.Signals = (*Conn)(nil)
