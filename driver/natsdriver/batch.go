package natsdriver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

const (
	// maxBatch is how many messages the server accepts in a batch.
	maxBatch = 1000
	// maxBatchBytes is how many bytes of data a batch holds, unless it is a single
	// message.
	maxBatchBytes = 4 << 20
	// batchLeast is how many messages are worth a batch. For each batch, whatever
	// its size, the server creates files and syncs them and their directories,
	// which takes as long as storing some fourteen messages singly. So a topic
	// writes one batch at a time, and messages that arrive meanwhile make up the
	// next one (BenchmarkPublish).
	batchLeast = 16
	// singlyMost is how many messages of calls that send their own are on their way at
	// once. The server takes all that have come, and tells what became of them when it
	// is through: the next ones are there by then if they do not wait for who publishes
	// again.
	singlyMost = batchLeast / 2
	// maxBursts is how many bursts of a topic may be on their way at once.
	maxBursts = 2
	// syncedLeast is how many messages are worth a second burst if each burst is
	// synced: fewer had better wait for the next one, and be synced with it.
	syncedLeast = 16
)

// The headers of atomic batches.
const (
	natsBatchID     = "Nats-Batch-Id"
	natsBatchSeq    = "Nats-Batch-Sequence"
	natsBatchCommit = "Nats-Batch-Commit"
)

// The server's errors about batches.
const (
	codeBatchDuplicate  = 10201 // a message in it is already stored
	codeBatchIncomplete = 10176 // a message in it was refused, or the batch took too long
	codeBatchTooMany    = 10210 // too many batches are in progress
	codeBatchDisabled   = 10174
	codeBatchHeader     = 10177 // a message has a header that batches do not allow
)

// batches reports whether messages are gathered into atomic batches: a server that
// always syncs then does so once per batch. That a server does, somebody knew who made
// a Strict topic there.
func (t *stored) batches() bool {
	cfg, opts := t.config.Load(), &t.conn.opts
	syncs := opts.syncAlways || opts.sync == nil && cfg.Metadata[metaDurability] == durabilities[driver.DurableStrict].name
	return syncs && cfg.AllowAtomicPublish && cfg.Storage == jetstream.FileStorage && cfg.Replicas <= 1
}

// writer gathers the messages of concurrent calls into batches. As long as fewer wait
// than are worth one, calls send their own, so that the server always has a next message
// while it writes one to the disk. It has goroutines only while there is a batch to write.
type writer struct {
	topic *stored

	mu      sync.Mutex // guards the fields below, and the orders
	queue   []*order
	waiting int // messages of the queue that have not been taken
	singly  int // messages on their way that calls send themselves
	writing int // goroutines that write batches
}

// order is a call that waits for its messages to be stored.
type order struct {
	msgs  []*outMsg
	next  int           // the first message not yet taken
	left  int           // messages that are not done
	batch *batch        // the batch that it is in
	own   bool          // the call should send what has not been taken
	done  chan struct{} // closed when left is 0, or own is set
}

// rest returns the messages that have not been taken.
func (o *order) rest() []*outMsg { return o.msgs[o.next:] }

// batch is a set of messages that are stored together or not at all.
type batch struct {
	msgs    []*outMsg
	orders  []*order // with the number of their messages in counts
	counts  []int
	waiting int // orders whose callers still wait
	ctx     context.Context
	cancel  context.CancelFunc
	// unsure says that the outcome of an attempt is not known.
	unsure bool
	mu     sync.Mutex // held while messages are handed to the client
}

func (w *writer) init(t *stored) { w.topic = t }

// write returns once the outcomes of the messages are known, and they are on disk if they
// have to be. If ctx ends first it returns the cause, and the caller must not use the
// messages any more.
func (w *writer) write(ctx context.Context, ps []*outMsg) error {
	if len(ps) == 0 {
		return nil
	}
	o := &order{msgs: ps, left: len(ps), done: make(chan struct{})}
	w.mu.Lock()
	w.queue = append(w.queue, o)
	w.waiting += len(ps)
	w.proceedLocked()
	w.mu.Unlock()
	select {
	case <-o.done:
	case <-ctx.Done():
		if err := w.abandon(o, context.Cause(ctx)); err != nil {
			return err
		}
	}
	if o.own {
		w.topic.sendAll(ctx, o.rest(), nil)
		w.topic.sync(ctx, w.topic.stream, o.rest())
		w.sent(o)
	}
	return nil
}

// sent takes notice that a call has sent its own messages.
func (w *writer) sent(o *order) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.singly -= len(o.rest())
	w.proceedLocked()
}

// proceedLocked has what waits sent, if that is its turn.
func (w *writer) proceedLocked() {
	least, most := w.least(w.writing), maxBursts
	if w.topic.batches() {
		most = 1
		for w.writing == 0 && w.waiting < least && len(w.queue) > 0 && (w.singly == 0 || w.singly+len(w.queue[0].rest()) <= singlyMost) {
			w.letGoLocked()
		}
	}
	if w.waiting < least || w.writing >= most {
		return
	}
	if w.topic.conn.begin() {
		w.writing++
		go w.run()
		return
	}
	for w.writing == 0 && len(w.queue) > 0 { // it is closed, and each finds out
		w.letGoLocked()
	}
}

// least returns how many messages have to wait to be written together, while others are
// being written in a number of goroutines.
func (w *writer) least(writing int) int {
	switch {
	case w.topic.batches():
		return batchLeast
	case writing > 0 && w.topic.syncs():
		return syncedLeast
	}
	return 1
}

// letGoLocked has the first call of the queue send its own messages.
func (w *writer) letGoLocked() {
	o := w.queue[0]
	w.queue = slices.Delete(w.queue, 0, 1)
	n := len(o.rest())
	w.waiting -= n
	w.singly += n
	o.own = true
	close(o.done)
}

// abandon gives up waiting for an order; messages already sent may be stored. It
// returns nil if the order is done, or if the call should send its own messages.
func (w *writer) abandon(o *order, cause error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o.left == 0 || o.own {
		return nil
	}
	if i := slices.Index(w.queue, o); i >= 0 {
		w.queue = slices.Delete(w.queue, i, i+1)
		w.waiting -= len(o.rest())
		w.proceedLocked()
		if o.next == 0 {
			return cause
		}
	}
	if b := o.batch; b != nil {
		if b.waiting--; b.waiting == 0 {
			b.cancel()
		}
		b.mu.Lock() // the data belong to the caller again
		for _, p := range o.msgs {
			p.msg.Data = bytes.Clone(p.msg.Data)
		}
		b.mu.Unlock()
	}
	return fmt.Errorf("%w (some of the messages may be stored)", cause)
}

// run writes batches until no more are worthwhile.
func (w *writer) run() {
	defer w.topic.conn.tasks.Done()
	for {
		w.gather()
		b := w.take()
		if b == nil {
			return
		}
		w.topic.writeBatch(b)
		w.topic.sync(b.ctx, w.topic.stream, b.msgs)
		b.cancel()
		w.finish(b)
	}
}

// gather returns when no more messages come from those who publish again after what was
// written before, or enough for a batch wait.
func (w *writer) gather() {
	for before := -1; ; {
		runtime.Gosched()
		w.mu.Lock()
		now := w.waiting
		w.mu.Unlock()
		if now <= before || now >= maxBatch {
			return
		}
		before = now
	}
}

// take makes a batch of what waits; nil if nothing does, and the goroutine is to
// end.
func (w *writer) take() *batch {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting < w.least(w.writing-1) {
		w.writing--
		w.proceedLocked()
		return nil
	}
	b := &batch{}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	size := 0
	for _, o := range w.queue {
		if o.batch != nil {
			continue // a call's messages stay in order, so the rest waits
		}
		first := o.next
		for o.next < len(o.msgs) && len(b.msgs) < maxBatch {
			p := o.msgs[o.next]
			if size += p.msg.Size(); size > maxBatchBytes && len(b.msgs) > 0 {
				break
			}
			b.msgs = append(b.msgs, p)
			o.next++
		}
		if o.next > first {
			o.batch = b
			b.orders, b.counts = append(b.orders, o), append(b.counts, o.next-first)
		}
		if len(b.msgs) == maxBatch || size > maxBatchBytes {
			break
		}
	}
	w.waiting -= len(b.msgs)
	w.queue = slices.DeleteFunc(w.queue, func(o *order) bool { return o.next == len(o.msgs) })
	if len(b.msgs) == 0 {
		b.cancel()
		w.writing--
		return nil
	}
	b.waiting = len(b.orders)
	return b
}

// finish reports the outcomes to the orders of a batch.
func (w *writer) finish(b *batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, o := range b.orders {
		o.batch = nil
		if o.left -= b.counts[i]; o.left == 0 {
			close(o.done)
		}
	}
}

// writeBatch stores the messages of a batch, and records their outcomes.
func (t *stored) writeBatch(b *batch) {
	if len(b.msgs) < batchLeast || !t.batches() {
		t.send(b.ctx, b.msgs, &b.mu)
		return
	}
	last := b.msgs[len(b.msgs)-1].msg
	// The ID of the last message tells whether a batch is stored when its answer
	// was lost.
	ownID := last.Header[natsMsgID] == nil
	if ownID {
		setNATSHeader(last, natsMsgID, t.conn.ids.next())
	}
	err := t.conn.state.do(b.ctx, func(context.Context) error { return t.attempt(b) })
	var single *singlyError
	if errors.As(err, &single) {
		t.writeSingly(b, ownID)
		return
	}
	for _, p := range b.msgs {
		p.err = err
	}
}

// singlyError says that messages cannot be stored as a batch.
type singlyError struct{ cause error }

func (e *singlyError) Error() string { return e.cause.Error() }

// attempt sends a batch once and waits for the answer.
func (t *stored) attempt(b *batch) error {
	c := t.conn
	f := newFlight(1, false)
	asking, w := c.state.watchRefusals(b.ctx)
	if w != nil {
		t.watchSubjects(asking, b.msgs, &b.mu)
	}
	if err := t.sendBatch(b, f); err != nil {
		return w.end(err)
	}
	if err := w.end(f.wait(asking, &c.acks, answerTimeout)); err != nil {
		return err
	}
	defer f.free()
	switch err := f.errs[0]; {
	case err == nil:
		if f.acks[0].Count != len(b.msgs) {
			return fmt.Errorf("the server stored %d of %d messages", f.acks[0].Count, len(b.msgs))
		}
		b.place(f.acks[0].Seq)
		return nil
	case errors.Is(err, errNoAnswer):
		b.unsure = true
		return fmt.Errorf("%w: %w", driver.ErrAgain, err)
	case errors.Is(err, nats.ErrNoResponders):
		return t.absent(b.ctx, err)
	default:
		switch apiCode(err) {
		case codeBatchDuplicate, codeBatchIncomplete, codeBatchTooMany, codeBatchDisabled, codeBatchHeader:
			return &singlyError{err}
		}
		if isUnavailable(err) {
			return fmt.Errorf("%w: %w", driver.ErrAgain, err)
		}
		return storeError(err)
	}
}

// place records where the messages of a batch are, given the place of the last:
// they are stored with no others in between.
func (b *batch) place(last uint64) {
	for i, p := range b.msgs {
		p.seq = last - uint64(len(b.msgs)-1-i)
	}
}

// sendBatch hands the messages of a batch to the client.
func (t *stored) sendBatch(b *batch, f *flight) error {
	c := t.conn
	id := c.ids.next() // a new one for each attempt, because the server forgets none
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, p := range b.msgs {
		setNATSHeader(p.msg, natsBatchID, id)
		setNATSHeader(p.msg, natsBatchSeq, strconv.Itoa(i+1))
		if i == len(b.msgs)-1 {
			setNATSHeader(p.msg, natsBatchCommit, "1")
			f.tokens[0], p.msg.Reply = c.acks.expect(flightWaiter{f, 0})
		}
		if err := c.nc.PublishMsg(p.msg); err != nil {
			if f.tokens[0] != 0 {
				c.acks.forget(f.tokens[0])
			}
			return err
		}
	}
	return nil
}

// writeSingly stores the messages of a batch one by one.
func (t *stored) writeSingly(b *batch, ownID bool) {
	b.mu.Lock()
	for _, p := range b.msgs {
		delete(p.msg.Header, natsBatchID)
		delete(p.msg.Header, natsBatchSeq)
		delete(p.msg.Header, natsBatchCommit)
	}
	b.mu.Unlock()
	rest := b.msgs
	if b.unsure {
		last := rest[len(rest)-1]
		if t.send(b.ctx, rest[len(rest)-1:], &b.mu); last.err == nil && last.repeated {
			b.place(last.seq)
			return // the batch is stored
		}
		rest = rest[:len(rest)-1]
	} else if ownID {
		delete(rest[len(rest)-1].msg.Header, natsMsgID)
	}
	t.sendAll(b.ctx, rest, &b.mu)
}

func setNATSHeader(m *nats.Msg, name, value string) {
	if m.Header == nil {
		m.Header = nats.Header{}
	}
	m.Header[name] = []string{value}
}
