package broker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/filter"
)

// hub takes the messages of a topic, or of a pattern, from the engine once, for all
// clients over HTTP that follow it. It holds each filter against a message once,
// however many clients have it, makes each message into a frame once, and keeps the
// newest frames. A client that falls behind them loses nothing of a stored topic,
// which it reads from the store until it has caught up; of other topics it misses
// what is gone, and is told how much that is.
type hub struct {
	owner  *fanout
	topic  string // or pattern
	stored bool
	sub    driver.Subscription
	ready  chan struct{} // closed when it is open, or has failed to
	failed error         // why; read after ready
	made   time.Time     // when a stored topic was; read after ready
	mark   string        // of made

	clients int // guarded by fanout.mu

	set *filter.Set[*lane] // of the lanes that have a filter

	mu    sync.RWMutex // guards what follows, and the lanes
	lanes map[string]*lane
	kept  []*frame // the newest that lanes hold, oldest first
	head  int
	size  int
	// taken is the sequence of the newest message of a stored topic that may not
	// be in a lane that is made now, and passed that up to which lanes have all.
	taken, passed uint64
	lost          uint64 // messages that the engine had no room for
	ended         error  // why there is nothing more to come; nil before
}

// hubBatch is how many messages a hub takes from the engine at once.
const hubBatch = 256

// run passes messages on until the subscription ends, or ctx.
func (h *hub) run(ctx context.Context) error {
	for pause := minBackoff; ; {
		ms, err := h.sub.Receive(ctx, hubBatch)
		switch {
		case err == nil:
			pause = minBackoff
		case errors.Is(err, driver.ErrEnded), errors.Is(err, driver.ErrClosed), ctx.Err() != nil:
			return err
		default:
			h.owner.log.Warn("messages cannot be received", "from", h.topic, "err", err, "retry_in", pause)
			if !sleep(ctx, pause) {
				return ctx.Err()
			}
			pause = min(2*pause, maxBackoff)
			continue
		}
		if h.stored && h.restarted(ms) {
			return errTopicReplaced
		}
		h.pass(ms)
		if !h.stored {
			h.noteLost(ctx)
		}
	}
}

// errTopicReplaced says that sequences have begun again.
var errTopicReplaced = errors.New("the topic was created again")

// restarted reports whether sequences have begun again, and otherwise notes that
// messages have been taken.
func (h *hub) restarted(ms []*driver.Received) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ms[0].Seq <= h.taken {
		return true
	}
	h.taken = ms[len(ms)-1].Seq
	return false
}

// pass gives messages to the lanes whose filters they match.
func (h *hub) pass(ms []*driver.Received) {
	h.mu.RLock()
	plain := h.lanes[""]
	h.mu.RUnlock()
	frames := make([]*frame, 0, len(ms))
	for _, m := range ms {
		var lanes []*lane
		if plain != nil {
			lanes = append(lanes, plain)
		}
		lanes = h.set.Match(&Event{Message: m}, lanes)
		if len(lanes) == 0 {
			continue
		}
		f, err := h.owner.maker.frame(m, h.mark)
		if err != nil {
			h.owner.log.Error("message not sent to clients", "topic", m.Topic, "seq", m.Seq, "err", err)
			continue
		}
		f.lanes = lanes
		frames = append(frames, f)
	}
	h.keep(frames, ms[len(ms)-1].Seq)
}

// keep adds frames to their lanes, and wakes who waits for them. They are those of
// messages up to sequence passed.
func (h *hub) keep(frames []*frame, passed uint64) {
	// They are woken when they can have the mutex, which all of them want.
	wakeAll(h.keepLocked(frames, passed))
}

func (h *hub) keepLocked(frames []*frame, passed uint64) (asleep []chan struct{}) {
	count, size := h.owner.share()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.passed = passed
	for _, f := range frames {
		for _, l := range f.lanes {
			l.push(f)
		}
		h.kept = append(h.kept, f)
		h.size += f.size()
		for len(h.kept)-h.head > count || h.size > size && len(h.kept)-h.head > 1 {
			h.forgetOldestLocked()
		}
	}
	for _, f := range frames {
		for _, l := range f.lanes {
			asleep = append(asleep, l.rouse())
		}
	}
	return asleep
}

func (h *hub) forgetOldestLocked() {
	f := h.kept[h.head]
	h.kept[h.head] = nil
	h.head++
	h.size -= f.size()
	for _, l := range f.lanes {
		l.pop()
	}
	if h.head > 64 && h.head > len(h.kept)/2 {
		n := copy(h.kept, h.kept[h.head:])
		clear(h.kept[n:])
		h.kept, h.head = h.kept[:n], 0
	}
}

// noteLost tells clients of messages for which the engine had no room.
func (h *hub) noteLost(ctx context.Context) {
	lag, err := h.sub.Lag(ctx)
	if err != nil {
		return // it is asked again
	}
	h.mu.Lock()
	asleep := []chan struct{}(nil)
	if lag.Lost != h.lost {
		h.lost = lag.Lost
		asleep = h.rouseLocked()
	}
	h.mu.Unlock()
	wakeAll(asleep)
}

func (h *hub) rouseLocked() (asleep []chan struct{}) {
	for _, l := range h.lanes {
		asleep = append(asleep, l.rouse())
	}
	return asleep
}

// end tells all clients that there is nothing more to come.
func (h *hub) end(why error) {
	h.mu.Lock()
	h.ended = why
	asleep := h.rouseLocked()
	h.mu.Unlock()
	wakeAll(asleep)
}

// enter returns the lane of a filter, for one more client.
func (h *hub) enter(where string, f *filter.Filter) (*lane, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lanes[where]
	if l == nil {
		l = newLane(where, f, h.taken+1)
		if f != nil {
			if err := h.set.Add(l, f); err != nil {
				return nil, err
			}
		}
		h.lanes[where] = l
	}
	l.clients++
	return l, nil
}

// leave is called for each client that has entered.
func (h *hub) leave(l *lane) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.clients--; l.clients > 0 {
		return
	}
	delete(h.lanes, l.where)
	if l.filter != nil {
		h.set.Remove(l)
	}
	// Frames that are in other lanes stay; the lane itself is popped with them.
}

// sleep pauses, and reports false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
