package hark

import "slices"

// How workers get messages from their consumer.

// take moves messages to w's buffer and returns how many. If last is true, it
// puts sources without messages to sleep; otherwise they are left to be looked
// at once more.
func (c *consumer[T]) take(w *worker[T], last bool) int {
	var few, some [4]source[T]
	asleep := few[:0]
	c.mu.Lock()
	n, keyed, from := c.takeLocked(w, some[:0])
	entered := false
	for keyed {
		entered, c.keying = true, true
		c.mu.Unlock()
		for _, src := range from {
			src.opened()
		}
		c.enterKeyed(w.buf[:n])
		c.mu.Lock()
		n, keyed, from = c.takeLocked(w, from[:0])
	}
	if n == 0 && last {
		asleep = c.sleepLocked(asleep)
	}
	more := (n > 0 || entered) && (c.pending.any() || c.ready.any())
	c.mu.Unlock()
	for _, src := range from {
		src.opened()
	}
	for _, src := range asleep {
		c.tidy(src)
	}
	if more {
		c.share(&w.waker)
	}
	c.report()
	return n
}

// takeLocked takes a message from pending, or else messages from the source whose
// turn it is, which it appends to from unless it is there. If keyed is true,
// the messages must go through pending before they are handled.
func (c *consumer[T]) takeLocked(w *worker[T], from []source[T]) (n int, keyed bool, _ []source[T]) {
	if c.over.Load() || w.member.state.Load()&memberHalts != 0 {
		return 0, false, from
	}
	h := c.pending.pop(c.lone)
	c.setTimerLocked()
	if h != nil {
		w.buf[0], w.held = h.Message, h
		return 1, false, from
	}
	if c.keying || c.pending.len() >= c.window() {
		return 0, false, from // the worker that makes keys will wake others, and so will messages that are done
	}
	chunk := c.fair(w)
	if chunk > len(w.buf) {
		w.buf = make([]Message[T], chunk)
	}
	n, src := c.claimLocked(w.buf[:chunk])
	w.used = max(w.used, n)
	if src != nil && !slices.Contains(from, src) {
		from = append(from, src)
	}
	return n, n > 0 && c.ordered(w.buf[:n]), from
}

// enterKeyed adds messages to pending that were claimed with keying set. The
// program makes their keys, so no lock is held. The order is kept because no
// one else claims meanwhile.
func (c *consumer[T]) enterKeyed(ms []Message[T]) {
	line := make([]*held[T], len(ms))
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, h := range line {
			if h == nil { // the goroutine ended while making a key
				h = &held[T]{Message: ms[i], fault: errGoexit}
			}
			c.pendingLocked().enter(h)
		}
		c.keying = false
		c.busy.Store(true)
	}()
	for i := range ms {
		line[i] = hold(&ms[i])
	}
}

// claimLocked claims messages from the next source that has any, and returns
// that source.
func (c *consumer[T]) claimLocked(dst []Message[T]) (n int, from source[T]) {
	first := c.ready.first()
	for node := first; node != nil; {
		src := node.source.(source[T])
		n = src.claim(dst)
		c.ready.rotate()
		if n > 0 {
			return n, src
		}
		if node = c.ready.head; node == first {
			break
		}
	}
	return 0, nil
}

// sleepLocked puts the sources that have nothing to read to sleep, and appends
// them to asleep.
func (c *consumer[T]) sleepLocked(asleep []source[T]) []source[T] {
	if c.over.Load() || c.keying || c.pending.len() >= c.window() {
		return asleep // they have not been looked at
	}
	for node := c.ready.first(); node != nil; node = c.ready.first() {
		src := node.source.(source[T])
		// Remove it from the list first: once asleep, it may join the list
		// again at once.
		c.ready.drop()
		if !src.arm() {
			c.arrive(node)
			break
		}
		asleep = append(asleep, src)
	}
	return asleep
}

// tidy cleans up behind a sleeping source. No lock is held.
func (c *consumer[T]) tidy(src source[T]) {
	src.tidy()
	if src.over() {
		c.retire(src)
	}
}

// retire drops a source that has nothing more to give.
func (c *consumer[T]) retire(src source[T]) {
	c.mu.Lock()
	at := &c.node
	for *at != nil && (*at).source != any(src) {
		at = &(*at).sibling
	}
	there := *at != nil
	if there {
		*at = (*at).sibling
		_, passed := src.lag()
		c.passed += passed
	}
	c.mu.Unlock()
	if there {
		src.detach()
	}
}

// ordered reports whether one of the messages has to wait for others with its
// key. With several workers that is always so if it has a key. With one worker
// it is so only while a message with some key waits for another attempt.
func (c *consumer[T]) ordered(ms []Message[T]) bool {
	if c.lone && c.pending.empty() {
		return false
	}
	for i := range ms {
		if m := &ms[i]; m.topic.keyOf != nil || m.meta != nil && m.meta.hasKey {
			return true
		}
	}
	return false
}

// fair returns how many messages worker w may take at a time: no more than its
// share of those that wait.
func (c *consumer[T]) fair(w *worker[T]) int {
	if c.sole || w.chunk == 1 {
		return int(w.chunk)
	}
	if c.limits().policy != Block && c.limits().buffer != Unbounded {
		return 1 // decide what to drop as late as possible
	}
	var waiting uint64
	for src := range c.sources {
		n, _ := src.lag()
		waiting += n
	}
	workers := 1
	if !c.lone {
		workers = len(*c.wakers.Load())
	}
	return int(min(uint64(w.chunk), 1+waiting/uint64(2*workers)))
}

// window returns how many messages may be outside the log, waiting for another
// attempt or for their key.
func (c *core) window() int {
	if c.limits().buffer == Unbounded {
		return defaultBuffer
	}
	return max(c.limits().buffer, minWindow)
}

const minWindow = 64

// share wakes a worker other than w, if one sleeps. Workers that run look once
// more before they sleep.
func (c *core) share(w *waker) {
	if c.lone {
		return
	}
	for _, other := range *c.wakers.Load() {
		if other != w && other.Notify() {
			return
		}
	}
}
