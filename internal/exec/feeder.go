package exec

import (
	"math"
	"sync/atomic"
	"time"
)

// patience is how often a feeder looks whether a run lasts. Each look starts a goroutine.
// Of messages that come alone over the loopback interface, each by itself, looks after a
// millisecond took a tenth of the processor time.
const patience = 10 * time.Millisecond

// Feeder is a loop that brings work to a task from outside the process, and runs the
// task itself if it sleeps, so that no other goroutine is woken for work that came
// alone. When a run lasts, the loop goes on in another goroutine, as it must: what it
// brings may be what the run waits for.
type Feeder struct {
	task    *Task
	loop    func()
	claimed bool // used only by the loop
	// turn is odd while the loop runs the task. Whoever makes it even has the loop.
	turn    atomic.Uint64
	looking atomic.Bool // a look is due
	seen    uint64      // turn at the last look
	timer   *time.Timer
}

// Start starts the loop. Each time it has got something it calls Claim, passes that
// on, and calls Serve; between the two it must not wait, unless it calls Release.
// If Serve returns false it has been started anew, and must return.
func (f *Feeder) Start(t *Task, loop func()) {
	f.task, f.loop = t, loop
	f.timer = time.AfterFunc(math.MaxInt64, f.look)
	f.timer.Stop() // until the first run
	go loop()
}

// Claim makes sure that no worker is woken before the next call of Serve or Release.
// It reports false if the task is awake, or has been seen to block: then workers run
// it as usual.
func (f *Feeder) Claim() bool {
	t := f.task
	f.claimed = !t.own.Load() && t.state.CompareAndSwap(idle, queued)
	return f.claimed
}

// Release leaves a claimed task to the workers.
func (f *Feeder) Release() {
	if f.claimed {
		f.claimed = false
		f.task.pool.push(f.task)
	}
}

// Serve runs the task if it is claimed. It returns false if the loop has been started
// anew meanwhile.
func (f *Feeder) Serve() (mine bool) {
	if !f.claimed {
		return true
	}
	f.claimed = false
	turn := f.turn.Add(1)
	f.watch()
	more := true
	returned := false
	defer func() {
		if f.task.settle(more) {
			f.task.pool.push(f.task)
		}
		switch mine = f.turn.CompareAndSwap(turn, turn+1); {
		case !mine:
			f.task.pool.end()
		case !returned: // a handler called runtime.Goexit
			mine = false
			go f.loop()
		}
	}()
	f.task.crowded = true // the loop has other work than to linger
	more = f.task.run()
	returned = true
	return
}

// Relieve starts the loop anew if it is running the task.
func (f *Feeder) Relieve() { f.relieve(f.turn.Load()) }

func (f *Feeder) relieve(turn uint64) {
	if turn%2 == 0 {
		return
	}
	p := f.task.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.turn.CompareAndSwap(turn, turn+1) {
		f.task.own.Store(true)
		p.live++ // the goroutine that runs the task
		go f.loop()
	}
}

// watch makes sure that look is called while runs last, and once more.
func (f *Feeder) watch() {
	if !f.looking.Load() && f.looking.CompareAndSwap(false, true) {
		f.timer.Reset(patience)
	}
}

// look starts the loop anew if it has been in one run since the last look. It sleeps
// when nothing has run since then.
func (f *Feeder) look() {
	turn := f.turn.Load()
	if turn != f.seen {
		f.seen = turn
		f.timer.Reset(patience)
		return
	}
	f.relieve(turn)
	f.looking.Store(false)
	if f.turn.Load() != turn+turn%2 { // a run has begun that relied on this look
		f.watch()
	}
}
