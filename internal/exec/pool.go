// Package exec runs very many mostly sleeping tasks on few goroutines, and on
// none while all of them sleep.
//
// A notified task joins a ready list that is served by at most GOMAXPROCS
// workers; a worker ends when the list is empty. A worker that sits in one run
// for more than a tick while others wait is replaced, and the task that held
// it gets a goroutine of its own from then on, until it has been quick for a
// while: handlers that compute share a core without switching goroutines,
// handlers that wait never hold up the others for long.
package exec

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tick is how often a pool with waiting tasks looks for held workers. A
	// worker counts as held if its run has lasted from one look to the next.
	tick = time.Millisecond
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
	ready   list       // tasks for the workers
	owned   list       // tasks that get a goroutine of their own
	running int        // workers that are not held
	workers []*worker
	spare   []*worker
	ticks   uint64
	ticking bool
	timer   *time.Timer
}

// worker is a goroutine that serves the ready list. Pool.mu guards its fields.
type worker struct {
	task  *Task
	began uint64 // Pool.ticks when task was taken
	held  bool   // another worker has taken its place
	index int    // in Pool.workers
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
		p.ended.Broadcast()
	}
}

func (p *Pool) push(t *Task) {
	p.mu.Lock()
	p.pushLocked(t)
	p.mu.Unlock()
}

// readyLocked adds t to the ready list.
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

// look replaces the workers that have been held since before the last look.
func (p *Pool) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ticking = false
	p.ticks++
	if p.ready.n == 0 {
		return
	}
	for _, w := range p.workers {
		if w.task != nil && !w.held && w.began+1 < p.ticks {
			w.held = true
			w.task.own.Store(true)
			p.running--
		}
	}
	for i := 0; i < p.ready.n && p.running < p.max; i++ {
		p.startLocked()
	}
	p.tickLocked()
}

func (p *Pool) runWorker() {
	p.mu.Lock()
	w := p.joinLocked()
	defer func() {
		// There is a task only if a handler ended the goroutine
		// (runtime.Goexit). The task continues on another goroutine.
		if t := w.task; t != nil && t.settle(true) {
			p.mu.Lock()
			p.leaveLocked(w)
			p.pushLocked(t)
		}
		p.endLocked()
		p.mu.Unlock()
	}()
	for rested := false; ; {
		if w.held {
			w.held = false
			if p.running++; p.running > p.max {
				break
			}
		}
		w.task, w.began = p.ready.pop(), p.ticks
		p.waiting.Store(int32(p.ready.n))
		if w.task == nil {
			if rested {
				break
			}
			p.mu.Unlock()
			runtime.Gosched()
			rested = true
			p.mu.Lock()
			continue
		}
		p.mu.Unlock()
		rested = false
		more := w.task.settle(w.task.run())
		p.mu.Lock()
		if more {
			p.requeueLocked(w.task)
		}
	}
	w.task = nil
	p.leaveLocked(w)
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
	w.task, w.held = nil, false
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
