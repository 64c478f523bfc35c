package memdriver

import (
	"context"
	"errors"
	"sync"

	"github.com/harkbus/hark/driver"
)

// signals are the notifications and latches of an engine.
type signals struct {
	mu        sync.Mutex // guards the fields below
	listeners map[*conn]*listener
	latches   map[string]bool

	// changing is held while a latch changes, so that everyone sees the changes
	// in the same order. It is locked before mu.
	changing sync.Mutex
}

// listener is a connection that listens.
type listener struct {
	mu sync.Mutex // held while f runs
	f  func(driver.Signal) int
}

func (l *listener) tell(s driver.Signal) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f(s)
}

// others returns the listeners of all connections but c.
func (s *signals) others(c *conn) []*listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*listener
	for other, l := range s.listeners {
		if other != c {
			all = append(all, l)
		}
	}
	return all
}

func (s *signals) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, c)
}

// Notify implements driver.Signals.
func (c *conn) Notify(ctx context.Context, target string) (reached int, err error) {
	if err := c.check(ctx); err != nil {
		return 0, err
	}
	for _, l := range c.engine.signals.others(c) {
		reached += l.tell(driver.Signal{Target: target})
	}
	return reached, nil
}

// Latch implements driver.Signals.
func (c *conn) Latch(ctx context.Context, name string, set bool) error {
	if err := c.check(ctx); err != nil {
		return err
	}
	s := &c.engine.signals
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	if set {
		s.latches[name] = true
	} else {
		delete(s.latches, name)
	}
	s.mu.Unlock()
	for _, l := range s.others(nil) {
		l.tell(driver.Signal{Target: name, Latch: true, Set: set})
	}
	return nil
}

// Listen implements driver.Signals.
func (c *conn) Listen(ctx context.Context, f func(driver.Signal) int) error {
	if err := c.check(ctx); err != nil {
		return err
	}
	s := &c.engine.signals
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	if s.listeners[c] != nil {
		s.mu.Unlock()
		return errors.New("the connection listens already")
	}
	l := &listener{f: f}
	s.listeners[c] = l
	l.mu.Lock()
	latches := s.latches // does not change while changing is locked
	s.mu.Unlock()
	defer l.mu.Unlock()
	for name := range latches {
		f(driver.Signal{Target: name, Latch: true, Set: true})
	}
	return nil
}
