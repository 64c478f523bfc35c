package cli

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/harkbus/hark"
)

// ledger holds the demo's own counts, which do not rely on the bus. It is a hook of
// the bus.
type ledger struct {
	published atomic.Int64
	routed    atomic.Int64 // by the reviews subscription, to reviews.wanted
	accounts  []*account   // complete before the first message
	bySub     map[string]*account

	mu     sync.Mutex // guards the fields below
	events map[string]int64
	causes map[string]int // of drops, and of dead letters that have been read
}

// account is the ledger's record of one subscription.
type account struct {
	name, to string
	sub      *hark.Subscription
	meant    func() int64 // how many messages were published for it

	handled atomic.Int64 // handlers that returned no error
	retried atomic.Int64 // repeated calls of a handler for a message
	refused atomic.Int64 // messages that the predicate rejected
	dropped atomic.Int64 // according to the hook
	dead    atomic.Int64 // according to the hook
}

func newLedger() *ledger {
	return &ledger{bySub: map[string]*account{}, events: map[string]int64{}, causes: map[string]int{}}
}

// subscribe opens an account and subscribes h to the topics that match to.
func (l *ledger) subscribe(b *hark.Bus, name, to string, h hark.Handler[webhook], meant func() int64, opts ...hark.SubscribeOption) (err error) {
	a := l.account(name)
	a.to, a.meant = to, meant
	a.sub, err = hark.SubscribePattern(b, to, func(ctx context.Context, m *hark.Message[webhook]) error {
		if m.Attempt() > 1 {
			a.retried.Add(1)
		}
		if err := h(ctx, m); err != nil {
			return err
		}
		a.handled.Add(1)
		return nil
	}, opts...)
	if err == nil {
		l.bySub[a.sub.Name()] = a
	}
	return err
}

// account returns the account with a name, opening it if needed.
func (l *ledger) account(name string) *account {
	for _, a := range l.accounts {
		if a.name == name {
			return a
		}
	}
	a := &account{name: name}
	l.accounts = append(l.accounts, a)
	return a
}

// watch wraps e so that its rejections count on the account with a name.
func (l *ledger) watch(name string, e hark.Evaluator) hark.Predicate {
	return watched{e, l.account(name)}
}

type watched struct {
	hark.Evaluator
	account *account
}

// Eval implements hark.Evaluator.
func (w watched) Eval(m hark.Envelope) (bool, error) {
	ok, err := w.Evaluator.Eval(m)
	if !ok || err != nil {
		w.account.refused.Add(1)
	}
	return ok, err
}

// note records that a delivery of an event has been published.
func (l *ledger) note(event string) {
	l.published.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events[event]++
}

// sent returns how many deliveries of an event have been published.
func (l *ledger) sent(event string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events[event]
}

// bury records a dead letter that has been read.
func (l *ledger) bury(f *hark.Failure) {
	cause := "no record of the failure"
	if f != nil {
		cause = f.Reason
	}
	l.because("dead: "+cause, 1)
}

func (l *ledger) because(cause string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.causes[cause] += n
}

// deadLetters returns how many messages became dead letters.
func (l *ledger) deadLetters() (n int64) {
	for _, a := range l.accounts {
		n += a.dead.Load()
	}
	return n
}

// OnDrop implements hark.DropHook.
func (l *ledger) OnDrop(e hark.DropEvent) {
	if a := l.bySub[e.Subscription]; a != nil {
		a.dropped.Add(int64(e.Count))
		l.because("dropped by "+a.name+": "+string(e.Reason), e.Count)
	}
}

// OnDeadLetter implements hark.DeadLetterHook.
func (l *ledger) OnDeadLetter(e hark.FailEvent) {
	if a := l.bySub[e.Subscription]; a != nil {
		a.dead.Add(1)
	}
}

// faults checks an account by itself and against the statistics of the bus, and
// returns what is wrong.
func (a *account) faults(s hark.SubscriptionStats) (faults []string) {
	meant := a.meant()
	if sum := a.handled.Load() + a.refused.Load() + a.dropped.Load() + a.dead.Load(); sum != meant {
		faults = append(faults, fmt.Sprintf("%s: %d messages were published for it, and %d accounted for", a.name, meant, sum))
	}
	for _, c := range []struct {
		what string
		bus  uint64
		own  int64
	}{
		{"delivered", s.Delivered, a.handled.Load()},
		{"filtered", s.Filtered, a.refused.Load()},
		{"dropped", s.Dropped, a.dropped.Load()},
		{"dead-lettered", s.Dead, a.dead.Load()},
		{"retried", s.Redelivered, a.retried.Load()},
	} {
		if c.bus != uint64(c.own) {
			faults = append(faults, fmt.Sprintf("%s: the bus has %s %d, the demo counted %d", a.name, c.what, c.bus, c.own))
		}
	}
	return faults
}
