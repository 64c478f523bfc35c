package broker

import (
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"time"
)

const (
	// passwordsAtOnce is how many passwords are checked at a time, each on a core.
	passwordsAtOnce = 2
	// passwordsOfHost is how many of one address wait for that, and passwordsWaiting how
	// many of all: as many as are checked while a client is waited for.
	passwordsOfHost, passwordsWaiting = 32, 128
	// passwordPatience is how long somebody waits until a password is checked, which is less
	// than the server waits until a client is let in.
	passwordPatience = 4 * time.Second
)

// passwordQueue bounds the work that strangers can cause: a password takes some 50 ms to
// check. Addresses take turns, so that nobody waits for more than one password of each of
// the others, and where too many wait, those go that came last from where most come from.
// Who comes from one address with the same name and password at the same time waits for one
// check, such as the clients of a program that have lost their broker.
type passwordQueue struct {
	patience time.Duration // passwordPatience

	mu      sync.Mutex // guards what follows
	checked int        // how many are checked now
	waiting int
	checks  map[passwordKey]*passwordCheck // those too
	hosts   map[string][]*passwordCheck    // that wait, by where they come from
	turns   []string                       // the keys of hosts; the next turn is that of the first
}

// passwordKey says whose password is checked.
type passwordKey struct {
	host string
	mark [sha256.Size]byte // see verified
}

type passwordCheck struct {
	passwordKey
	turn    chan struct{} // has something for one of the callers when it is to check
	done    chan struct{} // closed when it is known what follows
	user    *user         // nil for a wrong password, and for none that is checked
	err     error         // why it is not checked
	callers int
}

func newPasswordQueue() *passwordQueue {
	return &passwordQueue{patience: passwordPatience, checks: map[passwordKey]*passwordCheck{}, hosts: map[string][]*passwordCheck{}}
}

// do calls prove when it is somebody's turn, and returns what it has found, or it returns
// errBusyChecking: at once if too many wait, or when that takes too long or ctx ends.
func (q *passwordQueue) do(ctx context.Context, key passwordKey, prove func() *user) (*user, error) {
	c := q.join(key)
	if c == nil {
		return nil, errBusyChecking()
	}
	ctx, cancel := context.WithTimeout(ctx, q.patience)
	defer cancel()
	select {
	case <-c.turn:
		q.finish(c, prove())
		return c.user, nil
	case <-c.done:
		return c.user, c.err
	case <-ctx.Done():
		q.leave(c)
		return nil, errBusyChecking()
	}
}

// join returns what somebody is to wait for, nil if that is too much.
func (q *passwordQueue) join(key passwordKey) *passwordCheck {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.checks[key]
	if c == nil {
		c = &passwordCheck{passwordKey: key, turn: make(chan struct{}, 1), done: make(chan struct{})}
		if !q.enterLocked(c) {
			return nil
		}
		q.checks[key] = c
		q.nextLocked()
	}
	c.callers++
	return c
}

// enterLocked has a check wait. It reports whether there is room for it.
func (q *passwordQueue) enterLocked(c *passwordCheck) bool {
	own := len(q.hosts[c.host])
	if own == passwordsOfHost {
		return false
	}
	if q.waiting == passwordsWaiting {
		var most []*passwordCheck
		for _, of := range q.hosts {
			if len(of) > len(most) {
				most = of
			}
		}
		if len(most) <= own+1 {
			return false // this one is no better
		}
		last := most[len(most)-1]
		last.err = errBusyChecking()
		q.removeLocked(last)
		q.endLocked(last)
	}
	if own == 0 {
		q.turns = append(q.turns, c.host)
	}
	q.hosts[c.host] = append(q.hosts[c.host], c)
	q.waiting++
	return true
}

// removeLocked has a check wait no longer. It reports whether it did.
func (q *passwordQueue) removeLocked(c *passwordCheck) bool {
	of := q.hosts[c.host]
	i := slices.Index(of, c)
	if i < 0 {
		return false
	}
	q.waiting--
	if len(of) > 1 {
		q.hosts[c.host] = slices.Delete(of, i, i+1)
		return true
	}
	delete(q.hosts, c.host)
	q.turns = slices.DeleteFunc(q.turns, func(host string) bool { return host == c.host })
	return true
}

// nextLocked has those checked whose turn it is.
func (q *passwordQueue) nextLocked() {
	for q.checked < passwordsAtOnce && q.waiting > 0 {
		host := q.turns[0]
		c := q.hosts[host][0]
		if q.removeLocked(c); len(q.hosts[host]) > 0 {
			q.turns = append(q.turns[1:], host)
		}
		q.checked++
		c.turn <- struct{}{}
	}
}

// endLocked tells those who wait for a check.
func (q *passwordQueue) endLocked(c *passwordCheck) {
	delete(q.checks, c.passwordKey)
	close(c.done)
}

// finish is for who has checked.
func (q *passwordQueue) finish(c *passwordCheck, u *user) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c.user = u
	q.endLocked(c)
	q.checked--
	q.nextLocked()
}

// leave is for who waits no longer.
func (q *passwordQueue) leave(c *passwordCheck) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.callers--; c.callers > 0 || q.checks[c.passwordKey] != c {
		return
	}
	if !q.removeLocked(c) { // it is its turn, and nobody has taken it
		q.checked--
	}
	q.endLocked(c)
	q.nextLocked()
}
