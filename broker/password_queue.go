package broker

import (
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"time"
)

const (
	// passwordsAtOnce is how many passwords are checked in parallel, each on one
	// core.
	passwordsAtOnce = 2
	// passwordsOfHost is how many checks of one address may wait, and
	// passwordsWaiting how many of all: as many as can be done in the time that a
	// client is waited for.
	passwordsOfHost, passwordsWaiting = 32, 128
	// passwordTimeout is how long a client waits for its password to be checked.
	// It is shorter than the server waits for a client to log in.
	passwordTimeout = 4 * time.Second
)

// passwordQueue limits the work that strangers can cause: checking a password takes
// some 50 ms. Addresses take turns, so that nobody waits for more than one password
// of each other address. When too many checks wait, the latest of the address with
// the most waiting ones is dropped. Clients from one address with the same name and
// password, such as those of a program that has lost its broker, wait for the same
// check.
type passwordQueue struct {
	timeout time.Duration // passwordTimeout, except in tests

	mu      sync.Mutex // guards the fields below
	checked int        // checks in progress
	waiting int
	checks  map[passwordKey]*passwordCheck // waiting and in progress
	hosts   map[string][]*passwordCheck    // waiting checks, by address
	turns   []string                       // the keys of hosts, in the order of their turns
}

// passwordKey identifies a check.
type passwordKey struct {
	host string
	mark [sha256.Size]byte // see verified
}

type passwordCheck struct {
	passwordKey
	turn    chan struct{} // has a token for one of the callers when it should check
	done    chan struct{} // closed once the outcome is known
	user    *user         // nil for a wrong password, or if it was not checked
	err     error         // why it was not checked
	callers int
}

func newPasswordQueue() *passwordQueue {
	return &passwordQueue{timeout: passwordTimeout, checks: map[passwordKey]*passwordCheck{}, hosts: map[string][]*passwordCheck{}}
}

// do calls prove when it is the caller's turn, and returns its result. It returns
// errBusyChecking at once if too many checks wait, and later if the wait takes too
// long or ctx ends.
func (q *passwordQueue) do(ctx context.Context, key passwordKey, prove func() *user) (*user, error) {
	c := q.join(key)
	if c == nil {
		return nil, errBusyChecking()
	}
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
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

// join returns the check to wait for, or nil if too many wait.
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

// enterLocked adds a check to the queue. It reports whether there was room.
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
			return false // this address would then have as many
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

// removeLocked removes a check from the queue. It reports whether it was there.
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

// nextLocked starts the checks whose turn it is.
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

// endLocked ends the wait of a check's callers.
func (q *passwordQueue) endLocked(c *passwordCheck) {
	delete(q.checks, c.passwordKey)
	close(c.done)
}

// finish reports the result of a check.
func (q *passwordQueue) finish(c *passwordCheck, u *user) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c.user = u
	q.endLocked(c)
	q.checked--
	q.nextLocked()
}

// leave is called by a caller that gives up waiting.
func (q *passwordQueue) leave(c *passwordCheck) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.callers--; c.callers > 0 || q.checks[c.passwordKey] != c {
		return
	}
	if !q.removeLocked(c) { // its turn has come, but no caller has taken it
		q.checked--
	}
	q.endLocked(c)
	q.nextLocked()
}
