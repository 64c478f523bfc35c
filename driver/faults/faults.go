// Package faults makes an engine behave as badly as it is allowed to: it wraps a
// driver.Conn and delays, cuts, drops, repeats and reorders, as a seed decides. A
// program, or an engine's suite, that passes over it relies on nothing but what
// is promised:
//
//	conn, err := natsdriver.Open(ctx, url)
//	bus := hark.Over(faults.New(conn, faults.Config{Seed: 1, Cut: 20 * time.Millisecond, Drop: 10}))
//
// # What is allowed
//
// Faults are put in where the contract (package driver) allows them, so that all
// promises of hark still have to hold, but those that are weaker by themselves:
//
//   - A call may take long: Delay.
//   - A connection may be lost. The engine mends it, and calls wait for that in
//     their contexts: Cut. What a real loss takes with it (answers, ephemeral
//     messages) is below the contract, where the tests of engines cut real
//     connections.
//   - A message of a stored topic may be lost on its way to a member of a group.
//     It is given out again, to any member, behind others: Drop. Not in groups
//     that keep the order of keys, nor on subscriptions without a group, where
//     order is promised; nor on ephemeral topics, where nobody would send it
//     again, and the contract speaks of none that are lost but to the window.
//   - What a member of a group has acknowledged may be given out again, because the
//     acknowledgement was lost: Repeat. Delivery is at least once.
//   - Messages of different topics have no order: Reorder, of what a pattern
//     receives at once.
//   - A change of a value may have to be tried again: Again.
//
// Never allowed, and so never done: an accepted message that is lost, one that is
// refused without an error, and another order within a topic without a group.
package faults

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/harkbus/hark/driver"
)

// Config says which faults there are. Zero is none of a kind. What is 1 in n is so
// on average.
type Config struct {
	// Seed decides which calls and messages are hit. The same seed hits the same
	// ones as long as calls come in the same order.
	Seed uint64
	// Delay is how much longer a call may take, at most; 1 in 20 does.
	Delay time.Duration
	// Cut is how long the connection may be lost, at most; 1 in 200 calls loses it.
	Cut time.Duration
	// Drop drops 1 in so many messages on their way to a group.
	Drop int
	// Repeat gives 1 in so many acknowledged messages of groups out again.
	Repeat int
	// Reorder changes the order between the topics of a pattern.
	Reorder bool
	// Again fails 1 in so many changes of values with driver.ErrAgain.
	Again int
}

// The average number of calls per delay and per cut.
const (
	delayEvery = 20
	cutEvery   = 200
)

// ErrCut is the reason of a lost connection that Watch is told.
var ErrCut = errors.New("cut by package faults")

// Conn is a connection with faults. It fulfils all interfaces of connections; what
// the engine does not have is driver.ErrUnsupported when it is asked for.
type Conn struct {
	driver.Conn
	config Config

	mu     sync.Mutex // guards the fields below
	random *rand.Rand
	up     chan struct{} // closed when the connection is restored; nil while it is up
	mend   *time.Timer
	closed bool
	counts Counts

	telling sync.Mutex // held while watcher is called
	watcher func(up bool, reason error)
}

// Counts says how often there was a fault of a kind.
type Counts struct{ Delays, Cuts, Drops, Repeats, Reorders, Agains int }

// New puts faults into a connection, which Close of the Conn closes.
func New(conn driver.Conn, config Config) *Conn {
	return &Conn{Conn: conn, config: config, random: rand.New(rand.NewPCG(config.Seed, 0))}
}

// Counts returns how many faults there have been.
func (c *Conn) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}

// hit reports whether a fault that occurs once in n times occurs this time.
func (c *Conn) hit(n int, count func(*Counts) *int) bool {
	if n <= 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.random.IntN(n) > 0 {
		return false
	}
	*count(&c.counts)++
	return true
}

// pass runs before each call: it may cut the connection, waits until the
// connection is up, and may delay the call.
func (c *Conn) pass(ctx context.Context) error {
	c.cut()
	if err := c.await(ctx); err != nil {
		return err
	}
	return c.delay(ctx)
}

func (c *Conn) delay(ctx context.Context) error {
	if c.config.Delay <= 0 || !c.hit(delayEvery, func(n *Counts) *int { return &n.Delays }) {
		return nil
	}
	c.mu.Lock()
	d := time.Duration(c.random.Int64N(int64(c.config.Delay) + 1))
	c.mu.Unlock()
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// cut may cut the connection.
func (c *Conn) cut() {
	if c.config.Cut <= 0 || !c.hit(cutEvery, func(n *Counts) *int { return &n.Cuts }) {
		return
	}
	c.telling.Lock() // report the changes in order
	defer c.telling.Unlock()
	c.mu.Lock()
	if c.closed || c.up != nil {
		c.counts.Cuts--
		c.mu.Unlock()
		return
	}
	c.up = make(chan struct{})
	c.mend = time.AfterFunc(time.Duration(c.random.Int64N(int64(c.config.Cut)+1)), c.restore)
	c.mu.Unlock()
	if c.watcher != nil {
		c.watcher(false, ErrCut)
	}
}

// restore restores the connection.
func (c *Conn) restore() {
	c.telling.Lock()
	defer c.telling.Unlock()
	c.mu.Lock()
	up := c.up
	c.up = nil
	c.mu.Unlock()
	if up == nil {
		return
	}
	close(up)
	if c.watcher != nil {
		c.watcher(true, nil)
	}
}

// await waits until the connection is up.
func (c *Conn) await(ctx context.Context) error {
	for {
		c.mu.Lock()
		up := c.up
		c.mu.Unlock()
		if up == nil {
			return nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Watch implements driver.Conn.
func (c *Conn) Watch(f func(up bool, reason error)) {
	c.telling.Lock()
	defer c.telling.Unlock()
	c.watcher = f
	c.Conn.Watch(func(up bool, reason error) {
		c.telling.Lock()
		defer c.telling.Unlock()
		f(up, reason)
	})
}

// Info implements driver.Conn. The engine's name says that there are faults.
func (c *Conn) Info() driver.Info {
	info := c.Conn.Info()
	info.Engine += " under faults"
	return info
}

// Flush implements driver.Conn.
func (c *Conn) Flush(ctx context.Context) error {
	if err := c.pass(ctx); err != nil {
		return err
	}
	return c.Conn.Flush(ctx)
}

// Close implements driver.Conn. It has no faults, and ends a cut.
func (c *Conn) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	mend := c.mend
	c.mu.Unlock()
	if mend != nil {
		mend.Stop() // if it has already fired, it finds nothing to do
	}
	c.restore()
	return c.Conn.Close(ctx)
}
