package exec

import "sync/atomic"

// Runner does the work of a Task.
type Runner interface {
	// Run does some of the pending work, for a fraction of a millisecond as far
	// as that is under its control, and reports whether there may be more. Runs
	// of one task never overlap.
	Run() (more bool)
}

// Task is a piece of work that sleeps until it is notified. It costs no
// goroutine while it sleeps. It is made by Init and must not be copied.
type Task struct {
	pool   *Pool
	runner Runner
	state  atomic.Uint32
	// own reports whether the runner has been seen to block and so gets a
	// goroutine of its own. fast counts its quick runs since then.
	own  atomic.Bool
	fast uint8
	// crowded says that other tasks wait behind it in its worker's share; used
	// only by the worker.
	crowded bool
}

// The states of a task. A notification moves idle to queued and running to
// again; in the other two states it is merged with an earlier one.
const (
	idle uint32 = iota
	queued
	running
	again
)

// Init makes t a sleeping task of pool p.
func (t *Task) Init(p *Pool, r Runner) {
	t.pool, t.runner = p, r
}

// Notify makes sure that Run is called after this moment, and reports whether
// the task was asleep. It never blocks for long and may be called from
// anywhere, also from within Run.
func (t *Task) Notify() bool {
	for {
		switch t.state.Load() {
		case idle:
			if t.state.CompareAndSwap(idle, queued) {
				t.pool.push(t)
				return true
			}
		case running:
			if t.state.CompareAndSwap(running, again) {
				return false
			}
		default:
			return false
		}
	}
}

// Alone reports whether no other task waits behind this one in its worker's share, or
// for any worker, so that lingering in Run costs nobody anything. Only Run may call it.
func (t *Task) Alone() bool { return !t.crowded && t.pool.waiting.Load() == 0 }

// Crowded reports, without looking at anything that other goroutines write, whether
// other tasks wait behind this one in its worker's share. Only Run may call it.
func (t *Task) Crowded() bool { return t.crowded }

// Asleep reports whether the task neither runs nor waits to.
func (t *Task) Asleep() bool { return t.state.Load() == idle }

// run runs the queued task t once. A call of settle must follow.
func (t *Task) run() (more bool) {
	t.state.Store(running)
	return t.runner.Run()
}

// settle ends a run and reports whether the task has to run again. If so, the
// task is queued but in no queue. Otherwise it may already be running elsewhere
// when settle returns.
func (t *Task) settle(more bool) bool {
	if !more && t.state.CompareAndSwap(running, idle) {
		return false
	}
	t.state.Store(queued)
	return true
}
