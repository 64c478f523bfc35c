package broker

import (
	"context"
	"hash/maphash"
	"maps"
	"sync"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// A reload may declare a topic, or a store, from which routes took messages as they were
// published, or take such a declaration out. Then one reader follows another that reads
// the same messages in another way, and each message is to be routed once. The two have no
// common count of them, but see the same messages:
//
//   - Before the next readers begin to listen, the present ones begin to record what they
//     route of the topics that change hands, and what they have routed is stored.
//   - When everything else has succeeded, the present readers route what they have
//     received, by the plan that they had: those that go on pause, the others end.
//   - The next readers begin, and skip what was recorded.

// routedMarks are the marks of the messages that a reader has routed, with how often.
// Only the reader uses them, until it pauses.
type routedMarks struct {
	seed    maphash.Seed
	changes func(topic string) bool // reports whether a topic changes hands
	marks   map[uint64]int
}

// mark returns a hash of what two copies of a message have in common: the topic and
// ID, or the topic, key and data if there is no ID.
func mark(seed maphash.Seed, m *driver.Received) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	text := func(s string) { _, _ = h.WriteString(s); _ = h.WriteByte(0) } // a hash never fails
	text(m.Topic)
	if text(m.ID); m.ID == "" {
		text(m.Key)
		_, _ = h.Write(m.Data)
	}
	return h.Sum64()
}

// add records that a message is routed, if its topic changes hands.
func (n *routedMarks) add(m *driver.Received) {
	if n != nil && n.changes(m.Topic) {
		n.marks[mark(n.seed, m)]++
	}
}

// skipSet holds the marks of the messages that a reader must skip because another
// reader has routed them. They are among the first that it receives.
type skipSet struct {
	seed  maphash.Seed
	marks map[uint64]int
	last  uint64 // for a store: the sequence of the last of them
	left  int    // otherwise: how many messages may be among them
	over  time.Time
}

// sameIDFor is how long messages with an ID are still compared beyond last and
// left: the server may store a message later than it delivers it.
const sameIDFor = time.Minute

// add merges the marks of a reader. Readers that have routed the same message, for
// different routes, have each recorded it.
func (d *skipSet) add(n *routedMarks) {
	if n == nil {
		return
	}
	for mark, count := range n.marks {
		d.marks[mark] = max(d.marks[mark], count)
	}
}

// until returns a copy for one reader.
func (d *skipSet) until(last uint64, left int) *skipSet {
	return &skipSet{d.seed, maps.Clone(d.marks), last, left, time.Now().Add(sameIDFor)}
}

// has reports whether a received message has been routed.
func (d *skipSet) has(m *driver.Received) bool {
	if d == nil || len(d.marks) == 0 {
		return false
	}
	if d.left--; m.Seq > d.last || m.Seq == 0 && d.left < 0 {
		if time.Now().After(d.over) {
			clear(d.marks)
		}
		if m.ID == "" {
			return false
		}
	}
	mark := mark(d.seed, m)
	count := d.marks[mark]
	if count > 1 {
		d.marks[mark]--
	} else {
		delete(d.marks, mark)
	}
	return count > 0
}

// recordLocked makes the present readers record what they route of the topics that
// change hands.
func (step *routingChange) recordLocked() {
	old := step.of.plan.Load()
	if old == nil {
		return
	}
	changes := func(topic string) bool { return old.declared(topic) != step.plan.declared(topic) }
	for _, reader := range step.of.readers {
		reader.record(&routedMarks{step.seed, changes, map[uint64]int{}})
	}
}

// forgetLocked stops that.
func (step *routingChange) forgetLocked() {
	for _, reader := range step.of.readers {
		reader.record(nil)
	}
}

// handOverLocked makes the present readers route the messages that they have
// received. It ends those that are not needed any more, if their topics change
// hands. Readers of topics that were not stored pause until begin is called, by which
// time the next plan is in force.
func (step *routingChange) handOverLocked(ctx context.Context) (begin func()) {
	r, p := step.of, step.plan
	live, stored := &skipSet{seed: step.seed, marks: map[uint64]int{}}, &skipSet{seed: step.seed, marks: map[uint64]int{}}
	brief, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var all sync.WaitGroup // any of them may be stuck
	var pausing, ending, endingStored []*reader
	for key, reader := range r.readers {
		switch {
		case !key.stored && p.tasks[key] != nil:
			pausing = append(pausing, reader)
		case !key.stored:
			ending = append(ending, reader)
		case p.tasks[key] == nil && !p.declared(key.from) && len(p.router.groupsOver(key.from)) > 0:
			endingStored = append(endingStored, reader)
			if !r.shared { // otherwise the other brokers go on
				all.Go(func() { r.catchUp(ctx, key.from) })
			}
		}
	}
	paused, resume := make([]bool, len(pausing)), make([]func(), len(pausing))
	for i, reader := range pausing {
		all.Go(func() { resume[i], paused[i] = reader.pause(ctx, r.patience) })
	}
	r.endLocked(ctx, ending...)
	all.Wait()
	r.endLocked(ctx, endingStored...)
	for i, reader := range pausing {
		if paused[i] {
			live.add(reader.routed)
		}
	}
	for _, reader := range ending {
		live.add(reader.routed)
	}
	for _, reader := range endingStored {
		stored.add(reader.routed)
	}
	for key, reader := range step.fresh {
		switch {
		case !key.stored:
			reader.skip.Store(stored.until(0, reader.waiting()))
		case len(live.marks) > 0:
			last, err := r.lastStored(brief, key.from)
			if err != nil {
				r.log.Warn("messages may be routed twice", "from", key.from, "err", err)
			}
			reader.skip.Store(live.until(last, 0))
		}
	}
	return func() {
		for i, reader := range pausing {
			reader.skip.Store(stored.until(0, reader.waiting()))
			resume[i]()
		}
	}
}

// lastStored returns the sequence of the last message published to a topic, or
// store, before the call.
func (r *routing) lastStored(ctx context.Context, from string) (uint64, error) {
	if err := r.conn.AwaitStored(ctx, from); err != nil {
		return 0, err
	}
	info, err := r.conn.TopicInfo(ctx, from)
	return info.Last, err
}

const (
	catchUpPoll = 10 * time.Millisecond
	// catchUpIdle is how many times in a row a group must have nothing to do to
	// count as idle: the server tells it of a message a little after storing it,
	// and the last message may be gone.
	catchUpIdle = 30
)

// catchUp waits until routes have read what is in a topic or store at the time, or the
// patience for that is at an end. Messages that they do not get to are not routed.
func (r *routing) catchUp(ctx context.Context, from string) {
	wait, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	last, err := r.lastStored(wait, from)
	for idle := 0; err == nil; {
		var g natsdriver.GroupInfo
		g, err = r.conn.GroupInfo(wait, from, routesGroup)
		if idle++; g.Waiting > 0 || g.InFlight > 0 {
			idle = 0
		}
		if err == nil && (g.Done >= last || idle >= catchUpIdle) {
			return
		}
		if err == nil && !sleep(wait, catchUpPoll) {
			r.log.Warn("messages are not routed any more, because the topic is not declared", "from", from, "messages", g.Waiting+uint64(g.InFlight))
			return
		}
	}
	r.log.Warn("it is not known whether all messages of a topic that is not declared any more are routed", "from", from, "err", err)
}
