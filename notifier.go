package hark

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark/internal/exec"
)

// Signal tells a listener that it was notified.
type Signal struct {
	// Name is what was notified: the target given to Notify, or the name that
	// was latched. Where several notifications were merged it is the last one.
	Name string
	// Count says how many notifications the signal stands for, at least 1.
	Count int
}

// Notifier lets goroutines tell each other that something happened: listeners
// are registered under names, and a notification reaches a name, all methods of
// a type, one method, one listener or a pattern of names. Notifications carry no
// data; a Value or a Topic does.
//
// All notifiers of a bus share one name space, and so do those of all buses over
// one engine: what follows holds across processes, except where it says
// otherwise. A Notifier is safe for concurrent use. What a goroutine did before
// it called Notify is visible to the listeners and waiters that the notification
// reaches.
type Notifier struct {
	bus    *Bus   // nil for a private notifier
	hooks  *hooks // never nil
	waits  *waits
	pool   *exec.Pool
	grace  time.Duration   // how long Close waits for a running listener
	remote *remoteNotifier // nil in process

	state   atomic.Uint32 // open, sealed or stopped
	dropped atomic.Bool   // some shard has drops not yet reported to the hooks

	// present counts, by hash, the names under which someone is registered or
	// waits, so that notifying no one takes no lock.
	present [presentSlots]atomic.Uint32
	shards  [shardCount]shard
}

const (
	presentSlots = 1024
	shardCount   = 16
)

// The states of a notifier.
const (
	open    uint32 = iota
	sealed         // only handlers may notify
	stopped        // no one may notify, and no listener is left
)

// shard is the part of a notifier's names whose hash falls into it. While mu is
// held, no user code runs and nothing blocks. Several shards are locked in
// their order. The lock of a shard is acquired before that of the pool.
type shard struct {
	mu      sync.Mutex // guards the fields below, and the listeners and waiters under the names
	owners  map[string]*owner
	last    *owner // the owner looked up last; nil if it is gone
	idle    *group // a group that may have become empty, see restLocked; nil if there is none
	spare   *owner // an unused owner; nil if there is none
	waiters spares[*waiter]
	ids     map[uint32]*Listener
	strict  int // listeners for which notifications may have to wait or fail
	working int // functions that have a signal or are running
	idlers  []chan struct{}

	gone     listenerTally // sums over the listeners that have left
	notified uint64        // notifications that reached someone
	accepted uint64        // signals for functions
	dropping []*Listener   // listeners with drops not yet reported to the hooks
}

// owner is a name or a type with its methods. It exists as long as someone
// listens or waits under it, or it or one of its methods is latched.
type owner struct {
	name    string
	slot    uint16 // in Notifier.present
	bare    group
	methods map[string]*group
	shown   bool // it has had a listener, and listeners refer to their owner permanently
}

// group is everyone under one name or method.
type group struct {
	owner     *owner
	method    string
	listeners []*Listener
	wants     *want // a list of the waiters' wants
	latched   bool
}

func (g *group) name() string { return join(g.owner.name, g.method) }

func (g *group) empty() bool { return len(g.listeners) == 0 && g.wants == nil && !g.latched }

// NewNotifier returns the notifier of the bus. With a nil bus it makes a private
// one, which needs no closing: it is garbage once its listeners are closed. It
// returns ErrClosed if the bus is being closed. Over an engine, the first call
// on a bus waits for the engine, up to ten seconds; an engine that carries no
// notifications is ErrUnsupported.
func NewNotifier(b *Bus) (*Notifier, error) {
	if b == nil {
		n := newNotifier()
		n.hooks, n.waits, n.pool, n.grace = &noHooks, &waits{}, exec.NewPool(), defaultGrace
		return n, nil
	}
	signals, err := b.signals()
	if err != nil {
		return nil, fail("notifier", "", err)
	}
	n, _, err := attach(b, KindNotifier, "notifier", func() *Notifier {
		n := newNotifier()
		n.bus, n.hooks, n.waits, n.pool, n.grace = b, &b.hooks, &b.waits, b.pool, b.grace
		if signals != nil {
			n.remote = newRemoteNotifier(n, signals)
		}
		return n
	})
	if err == nil && n.remote != nil {
		err = n.remote.listen()
	}
	if err != nil {
		return nil, fail("notifier", "", err)
	}
	return n, nil
}

func newNotifier() *Notifier {
	n := &Notifier{}
	for i := range n.shards {
		n.shards[i].owners = map[string]*owner{}
		n.shards[i].ids = map[uint32]*Listener{}
	}
	return n
}

// owner returns the owner with the given name, or nil.
func (s *shard) owner(name string) *owner {
	if o := s.last; o != nil && o.name == name {
		return o // much faster than the map
	}
	o := s.owners[name]
	if o != nil {
		s.last = o
	}
	return o
}

// groupLocked returns the group of a's name or method, making it if needed. The
// caller adds someone to it, or latches it.
func (n *Notifier) groupLocked(a *address) *group {
	s := &n.shards[a.shard]
	o := s.owner(a.owner)
	if o == nil {
		if o, s.spare = s.spare, nil; o == nil {
			o = &owner{}
			o.bare.owner = o
		}
		o.name, o.slot = a.owner, a.slot
		s.owners[o.name] = o
		n.present[o.slot].Add(1)
	}
	if a.member == "" {
		return &o.bare
	}
	g := o.methods[a.member]
	if g == nil {
		g = &group{owner: o, method: a.member}
		if o.methods == nil {
			o.methods = map[string]*group{}
		}
		o.methods[g.method] = g
	}
	return g
}

// tidyLocked removes the group if no one is left in it.
func (n *Notifier) tidyLocked(s *shard, g *group) {
	if !g.empty() {
		return
	}
	if s.idle == g {
		s.idle = nil
	}
	o := g.owner
	delete(o.methods, g.method)
	if len(o.methods) > 0 || !o.bare.empty() || s.owners[o.name] != o {
		return
	}
	delete(s.owners, o.name)
	n.present[o.slot].Add(^uint32(0))
	if s.last == o {
		s.last = nil
	}
	if s.idle == &o.bare {
		s.idle = nil
	}
	if !o.shown && o.methods == nil {
		o.name = ""
		s.spare = o
	}
}

// restLocked is tidyLocked for a group whose waiters have just been woken. They
// usually come back, so the group is removed only when another group rests or a
// notification reaches no one.
func (n *Notifier) restLocked(s *shard, g *group) {
	if g.empty() && s.idle != g {
		n.endRestLocked(s)
		s.idle = g
	}
}

// endRestLocked removes the resting group, if no one has come back to it.
func (n *Notifier) endRestLocked(s *shard) {
	if g := s.idle; g != nil {
		s.idle = nil
		n.tidyLocked(s, g)
	}
}

// refuses returns the reason why nothing new is accepted from ctx, or nil.
func (n *Notifier) refuses(ctx context.Context) error {
	switch n.state.Load() {
	case open:
		return nil
	case sealed:
		if handlerOf(ctx) != nil || inHandler() {
			return nil
		}
	}
	return errBusClosed
}

var errBusClosed = fmt.Errorf("bus %w", ErrClosed)

// The notifier as a component of its bus.

func (n *Notifier) valueType() reflect.Type { return nil }

func (n *Notifier) seal() { n.state.CompareAndSwap(open, sealed) }

// drain waits until no function has a signal or is running. Signals that wait
// in channels are left to their readers.
func (n *Notifier) drain(ctx context.Context) {
	for i := range n.shards {
		s := &n.shards[i]
		s.mu.Lock()
		if s.working == 0 {
			s.mu.Unlock()
			continue
		}
		idle := make(chan struct{})
		s.idlers = append(s.idlers, idle)
		s.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
			s.mu.Lock()
			s.idlers = slices.DeleteFunc(s.idlers, func(c chan struct{}) bool { return c == idle })
			s.mu.Unlock()
			return
		}
	}
}

func (n *Notifier) work() (accepted uint64, done bool) {
	done = true
	for i := range n.shards {
		s := &n.shards[i]
		s.mu.Lock()
		accepted += s.accepted
		done = done && s.working == 0
		s.mu.Unlock()
	}
	return accepted, done
}

// cancel cancels the contexts of the functions.
func (n *Notifier) cancel(cause error) {
	var cancels []context.CancelCauseFunc
	n.eachListener(func(l *Listener) {
		if l.call != nil && l.call.cancel != nil {
			cancels = append(cancels, l.call.cancel)
		}
	})
	for _, cancel := range cancels {
		cancel(cause)
	}
}

// stop closes all listeners and ends all waits. It waits until no function is
// running or ctx ends.
func (n *Notifier) stop(ctx context.Context, cause error) []Left {
	n.state.Store(stopped)
	var all []*Listener
	n.eachListener(func(l *Listener) { all = append(all, l) })
	lefts := make([]Left, len(all))
	quiets := make([]<-chan struct{}, len(all))
	for i, l := range all {
		quiets[i], lefts[i] = l.remove(cause)
	}
	n.endWaits(cause)
	n.reportDrops()
	var left []Left
	for i, l := range lefts {
		if quiet := quiets[i]; quiet != nil {
			select {
			case <-quiet:
			case <-ctx.Done():
				l.InFlight = 1
			}
		}
		if l.any() {
			left = append(left, l)
		}
	}
	return left
}

// eachListener calls f for each listener with its shard locked.
func (n *Notifier) eachListener(f func(*Listener)) {
	n.eachGroup(func(_ *shard, g *group) {
		for _, l := range g.listeners {
			f(l)
		}
	})
}

// eachGroup calls f for each group with its shard locked.
func (n *Notifier) eachGroup(f func(*shard, *group)) {
	for i := range n.shards {
		s := &n.shards[i]
		s.mu.Lock()
		for _, o := range s.owners {
			f(s, &o.bare)
			for _, g := range o.methods {
				f(s, g)
			}
		}
		s.mu.Unlock()
	}
}

// Stats returns the numbers of the notifier.
func (n *Notifier) Stats() NotifierStats {
	var st NotifierStats
	waiters := map[*waiter]bool{} // a set, since a waiter may wait for several names
	n.eachGroup(func(_ *shard, g *group) {
		for t := g.wants; t != nil; t = t.next {
			waiters[t.waiter] = true
		}
		st.Listeners += len(g.listeners)
		for _, l := range g.listeners {
			st.add(l.statsLocked())
		}
		if g.latched {
			st.Latched = append(st.Latched, g.name())
		}
	})
	st.Waiters = len(waiters)
	slices.Sort(st.Latched)
	for i := range n.shards {
		s := &n.shards[i]
		s.mu.Lock()
		st.Notified += s.notified
		st.add(s.gone.stats())
		s.mu.Unlock()
	}
	return st
}

func (st *NotifierStats) add(l ListenerStats) {
	st.Delivered += l.Delivered
	st.Merged += l.Merged
	st.Waiting += l.Waiting
	st.Dropped += l.Dropped
	st.Failed += l.Failed
	st.BufferExceeded += l.BufferExceeded
}

func (n *Notifier) addStats(s *Stats) { s.Notifier = n.Stats() }

// addTopology adds a node for each name and method that has listeners.
func (n *Notifier) addTopology(t *Topology) {
	var nodes []Node
	n.eachGroup(func(_ *shard, g *group) {
		if len(g.listeners) == 0 {
			return
		}
		node := Node{Kind: KindNotifier, Name: g.name()}
		for _, l := range g.listeners {
			node.Ends = append(node.Ends, End{Role: "listen", Name: l.ID(), At: place(l.place)})
		}
		slices.SortFunc(node.Ends, func(x, y End) int { return cmp.Compare(x.Name, y.Name) })
		nodes = append(nodes, node)
	})
	slices.SortFunc(nodes, func(x, y Node) int { return cmp.Compare(x.Name, y.Name) })
	t.Nodes = append(t.Nodes, nodes...)
}
