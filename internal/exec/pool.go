// Package exec runs very many mostly sleeping tasks on few goroutines, and on
// none while all of them sleep.
//
// A notified task joins a ready queue that is served by at most GOMAXPROCS
// workers, which take their share of it at a time and, when it is empty, from
// each other; a worker ends when nothing is left. A worker that sits in one run
// for more than a tick while others wait is replaced, and the task that held
// it gets a goroutine of its own from then on, until it has been quick for a
// while: handlers that compute share a core without switching goroutines,
// handlers that wait never hold up the others for long.
package exec

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tick is how often a pool with waiting tasks looks for held workers. A
	// worker counts as held if its run has lasted from one look to the next.
	tick = time.Millisecond
	// maxShare is the most tasks that a worker takes at a time. With very many
	// ready tasks it makes taking them from the other core that notifies them
	// cheap.
	maxShare = 32
	// crowd is the number of waiting tasks that justifies starting another
	// worker. Fewer tasks are served sooner by the workers already running.
	crowd = 8
	// quick is the longest time that a run may take and still count as one that
	// did not block. quickRuns is the number of such runs in a row that returns
	// a task to the shared workers.
	quick     = 100 * time.Microsecond
	quickRuns = 32
)

// Pool runs tasks. Make one with NewPool.
type Pool struct {
	max       int          // limit on running workers, not counting held ones
	waiting   atomic.Int32 // ready.n, readable without mu
	work, own func()       // goroutine bodies, created once so that starting one does not allocate

	mu      sync.Mutex // guards the fields below
	live    int        // number of goroutines
	ended   sync.Cond  // signaled when live becomes 0
	ready   queue      // tasks for the workers
	owned   queue      // tasks that get a goroutine of their own
	running int        // workers that are not held
	workers []*worker
	spare   []*worker
	ticking bool
	timer   *time.Timer
}

// worker is a goroutine that serves the ready queue.
type worker struct {
	// Guarded by Pool.mu.
	held  bool   // another worker has taken its place
	seen  uint64 // runs at the last look
	index int    // in Pool.workers

	mu       sync.Mutex // guards the fields below; may be locked with Pool.mu held
	task     *Task      // being run; nil between two shares
	runs     uint64     // number of tasks run
	share    [maxShare]*Task
	from, to int // share[from:to] waits
}

// NewPool returns a pool without a goroutine.
func NewPool() *Pool {
	p := &Pool{max: runtime.GOMAXPROCS(0)}
	p.work, p.own = p.runWorker, p.runOwned
	p.ended.L = &p.mu
	return p
}

// Wait blocks until no task runs or waits. The caller must see to it that none
// is notified any more.
func (p *Pool) Wait() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.live > 0 {
		p.ended.Wait()
	}
}

// endLocked records the end of a goroutine.
func (p *Pool) endLocked() {
	if p.live--; p.live == 0 {
		p.ready.release()
		p.owned.release()
		p.ended.Broadcast()
	}
}

// end records the end of a goroutine.
func (p *Pool) end() {
	p.mu.Lock()
	p.endLocked()
	p.mu.Unlock()
}

func (p *Pool) push(t *Task) {
	p.mu.Lock()
	p.pushLocked(t)
	p.mu.Unlock()
}

// readyLocked adds t to the ready queue.
func (p *Pool) readyLocked(t *Task) {
	p.ready.push(t)
	p.waiting.Store(int32(p.ready.n))
}

func (p *Pool) pushLocked(t *Task) {
	if t.own.Load() {
		p.owned.push(t)
		p.live++
		go p.own()
		return
	}
	p.readyLocked(t)
	if p.running == 0 || p.ready.n > crowd && p.running < p.max {
		p.startLocked()
	} else if !p.ticking {
		p.tickLocked()
	}
}

func (p *Pool) startLocked() {
	p.running++
	p.live++
	go p.work()
}

func (p *Pool) tickLocked() {
	p.ticking = true
	if p.timer == nil {
		p.timer = time.AfterFunc(tick, p.look)
	} else {
		p.timer.Reset(tick)
	}
}

// look replaces the workers that have been held since before the last look, if
// anybody waits for that.
func (p *Pool) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ticking = false
	if p.ready.n == 0 && !slices.ContainsFunc(p.workers, (*worker).loaded) {
		return
	}
	for _, w := range p.workers {
		w.mu.Lock()
		if w.task != nil && !w.held && w.runs == w.seen {
			w.held = true
			w.task.own.Store(true)
			p.running--
			p.returnLocked(w)
		}
		w.seen = w.runs
		w.mu.Unlock()
	}
	for i := 0; i < p.ready.n && p.running < p.max; i++ {
		p.startLocked()
	}
	p.tickLocked()
}

// loaded reports whether tasks wait in w's share.
func (w *worker) loaded() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.from < w.to
}

// returnLocked gives back what waits in w's share. w.mu is held, too.
func (p *Pool) returnLocked(w *worker) {
	for ; w.from < w.to; w.from++ {
		p.readyLocked(w.share[w.from])
		w.share[w.from] = nil
	}
}

func (p *Pool) runWorker() {
	p.mu.Lock()
	w := p.joinLocked()
	p.mu.Unlock()
	var t *Task
	defer func() {
		p.mu.Lock()
		// There is a task only if a handler ended the goroutine
		// (runtime.Goexit). The task continues on another goroutine.
		if t != nil && t.settle(true) {
			p.leaveLocked(w)
			p.pushLocked(t)
		}
		p.endLocked()
		p.mu.Unlock()
	}()
	for {
		if t = w.next(); t == nil {
			if t = p.take(w); t == nil {
				return
			}
		}
		if t.settle(t.run()) {
			p.mu.Lock()
			p.requeueLocked(t)
			p.mu.Unlock()
		}
	}
}

// next returns the next task of w's share, or nil.
func (w *worker) next() *Task {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.beginLocked(w.popLocked())
	return w.task
}

func (w *worker) popLocked() *Task {
	if w.from == w.to {
		return nil
	}
	t := w.share[w.from]
	w.share[w.from] = nil
	w.from++
	return t
}

// beginLocked records that w runs t, unless it is nil.
func (w *worker) beginLocked(t *Task) {
	if w.task = t; t != nil {
		w.runs++
		t.crowded = w.from < w.to
	}
}

// take returns the next task for a worker that has nothing left. If there is none,
// w has left.
func (p *Pool) take(w *worker) *Task {
	p.mu.Lock()
	defer p.mu.Unlock()
	for rested := false; ; rested = true {
		if w.held {
			w.held = false
			if p.running++; p.running > p.max {
				break
			}
		}
		if t := p.takeLocked(w); t != nil {
			return t
		}
		if rested {
			break
		}
		p.mu.Unlock()
		runtime.Gosched()
		p.mu.Lock()
	}
	p.leaveLocked(w)
	return nil
}

// takeLocked takes w's share of the ready queue, or else one task from the share
// of another worker, and returns the first, or nil.
func (p *Pool) takeLocked(w *worker) *Task {
	n := min(1+p.ready.n/(2*p.max), maxShare)
	t := p.ready.pop()
	if t == nil {
		t = p.stealLocked()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.from, w.to = 0, 0; w.to < n-1; w.to++ {
		w.share[w.to] = p.ready.pop()
	}
	w.beginLocked(t)
	p.waiting.Store(int32(p.ready.n))
	if w.to > 0 && !p.ticking {
		p.tickLocked()
	}
	return t
}

func (p *Pool) stealLocked() *Task {
	for _, w := range p.workers {
		w.mu.Lock()
		t := w.popLocked()
		w.mu.Unlock()
		if t != nil {
			return t
		}
	}
	return nil
}

// requeueLocked puts a task that has more to do behind the others.
func (p *Pool) requeueLocked(t *Task) {
	if t.own.Load() {
		p.pushLocked(t)
		return
	}
	p.readyLocked(t)
}

func (p *Pool) joinLocked() *worker {
	var w *worker
	if n := len(p.spare); n > 0 {
		w, p.spare = p.spare[n-1], p.spare[:n-1]
	} else {
		w = &worker{}
	}
	w.index = len(p.workers)
	p.workers = append(p.workers, w)
	return w
}

func (p *Pool) leaveLocked(w *worker) {
	if !w.held {
		p.running--
	}
	last := len(p.workers) - 1
	p.workers[w.index] = p.workers[last]
	p.workers[w.index].index = w.index
	p.workers[last] = nil
	p.workers = p.workers[:last]
	w.held = false
	w.mu.Lock()
	w.task = nil
	p.returnLocked(w)
	w.mu.Unlock()
	if len(p.spare) < p.max {
		p.spare = append(p.spare, w)
	}
}

// runOwned runs one task that has been seen to block, until it sleeps or has
// been quick for long enough to return to the shared workers.
func (p *Pool) runOwned() {
	p.mu.Lock()
	t := p.owned.pop()
	p.mu.Unlock()
	defer func() {
		if t != nil && t.settle(true) { // a handler called runtime.Goexit
			p.push(t)
		}
		p.mu.Lock()
		p.endLocked()
		p.mu.Unlock()
	}()
	for {
		t.crowded = false
		start := time.Now()
		more := t.run()
		switch {
		case time.Since(start) > quick:
			t.fast = 0
		case t.fast < quickRuns:
			t.fast++
		default:
			t.fast = 0
			t.own.Store(false)
		}
		own := t.own.Load()
		if !t.settle(more) {
			t = nil
			return
		}
		if !own {
			p.push(t)
			t = nil
			return
		}
	}
}
