package exec

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// job is a task whose Run calls a function.
type job struct {
	Task
	body   func() (more bool)
	inside atomic.Int32
	runs   atomic.Int64
}

func newJob(p *Pool, body func() bool) *job {
	j := &job{body: body}
	j.Init(p, j)
	return j
}

func (j *job) Run() bool {
	if j.inside.Add(1) != 1 {
		panic("two runs of one task overlap")
	}
	defer j.inside.Add(-1)
	j.runs.Add(1)
	return j.body()
}

// checkAtRest fails the test if anything is left in an idle pool.
func checkAtRest(t *testing.T, p *Pool) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != 0 || len(p.workers) != 0 || p.ready.n != 0 || p.owned.n != 0 {
		t.Errorf("at rest: %d running, %d workers, %d ready, %d owned; want none",
			p.running, len(p.workers), p.ready.n, p.owned.n)
	}
}

// TestNotifyIsNeverLost notifies a few tasks from many goroutines. The runs of
// a task use plain variables, so the race detector reports any overlap.
func TestNotifyIsNeverLost(t *testing.T) {
	const tasks, notifiers, each = 20, 8, 400
	p := NewPool()
	var sent [tasks]atomic.Int64
	var seen [tasks]int64
	jobs := make([]*job, tasks)
	for i := range jobs {
		jobs[i] = newJob(p, func() bool {
			seen[i] = sent[i].Load()
			return false
		})
	}
	var wg sync.WaitGroup
	for range notifiers {
		wg.Go(func() {
			for range each {
				for i, j := range jobs {
					sent[i].Add(1)
					j.Notify()
				}
			}
		})
	}
	wg.Wait()
	p.Wait()
	for i, j := range jobs {
		if seen[i] != notifiers*each {
			t.Errorf("task %d saw %d of %d notifications", i, seen[i], notifiers*each)
		}
		if n := j.runs.Load(); n < 1 || n > notifiers*each {
			t.Errorf("task %d ran %d times for %d notifications", i, n, notifiers*each)
		}
		if !j.Asleep() {
			t.Errorf("task %d is not asleep", i)
		}
	}
	checkAtRest(t, p)
}

func TestNotifyReportsWhoWasAsleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		gate := make(chan struct{})
		j := newJob(p, func() bool { <-gate; return false })
		if !j.Asleep() {
			t.Error("a task that was never notified is not asleep")
		}
		if !j.Notify() {
			t.Error("Notify of a sleeping task = false")
		}
		synctest.Wait()
		for range 3 { // during the run: merged into one more run
			if j.Notify() {
				t.Error("Notify of a running task = true")
			}
		}
		if j.Asleep() {
			t.Error("a running task is asleep")
		}
		gate <- struct{}{}
		synctest.Wait()
		if got := j.runs.Load(); got != 2 {
			t.Errorf("%d runs have begun, want 2", got)
		}
		gate <- struct{}{}
		p.Wait()
		if got := j.runs.Load(); got != 2 {
			t.Errorf("%d runs, want 2", got)
		}
		checkAtRest(t, p)
	})
}

func TestNotifyFromWithinRun(t *testing.T) {
	p := NewPool()
	var j *job
	left := 100
	j = newJob(p, func() bool {
		if left--; left > 0 {
			j.Notify()
		}
		return false
	})
	j.Notify()
	p.Wait()
	if got := j.runs.Load(); got != 100 {
		t.Errorf("%d runs, want 100", got)
	}
}

func TestMoreRunsAgainBehindTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		p.max = 1
		var order []string
		var a, b, c *job
		steps := func(name string, n int) func() bool {
			return func() bool {
				order = append(order, name)
				n--
				return n > 0
			}
		}
		b, c = newJob(p, steps("b", 2)), newJob(p, steps("c", 1))
		first := steps("a", 3)
		a = newJob(p, func() bool {
			if len(order) == 0 {
				b.Notify()
				c.Notify()
			}
			return first()
		})
		a.Notify()
		p.Wait()
		if got, want := strings.Join(order, ""), "abcaba"; got != want {
			t.Errorf("order %s, want %s", got, want)
		}
	})
}

// TestAloneSaysWhetherOthersWait checks what Run's argument promises.
func TestAloneSaysWhetherOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		p.max = 1
		got := map[string]bool{}
		b := &aloneTask{name: "b", got: got}
		b.Init(p, b)
		c := &aloneTask{name: "c", got: got}
		c.Init(p, c)
		a := newJob(p, func() bool { b.Notify(); c.Notify(); return false })
		a.Notify()
		p.Wait()
		if got["b"] || !got["c"] {
			t.Errorf("alone: b %v, c %v; want false, true", got["b"], got["c"])
		}
	})
}

type aloneTask struct {
	Task
	name string
	got  map[string]bool
}

func (a *aloneTask) Run() bool {
	a.got[a.name] = a.Alone()
	return false
}

func TestIdleTasksHaveNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		jobs := make([]*job, 1000)
		for i := range jobs {
			jobs[i] = newJob(p, func() bool { return false })
			jobs[i].own.Store(i%100 == 0)
		}
		for _, j := range jobs {
			j.Notify()
		}
		p.Wait()
		checkAtRest(t, p)
		if len(p.spare) > p.max {
			t.Errorf("%d spare workers, want at most %d", len(p.spare), p.max)
		}
		synctest.Wait() // until goroutines that have finished their work are gone
		buf := make([]byte, 1<<20)
		buf = buf[:runtime.Stack(buf, true)]
		for g := range strings.SplitSeq(string(buf), "\n\n") {
			if strings.Contains(g, "exec.(*Pool).run") {
				t.Errorf("an idle pool has a goroutine:\n%s", g)
			}
		}
	})
}

// TestBlockedRunIsReplaced blocks every worker. A waiting task must run within
// a few ticks. The blockers get goroutines of their own, and return to the
// shared workers once they have been quick for long enough.
func TestBlockedRunIsReplaced(t *testing.T) {
	for _, workers := range []int{1, 2, 5} {
		synctest.Test(t, func(t *testing.T) {
			p := NewPool()
			p.max = workers
			gate := make(chan struct{})
			blockers := make([]*job, workers)
			for i := range blockers {
				blockers[i] = newJob(p, func() bool {
					<-gate
					return false
				})
				blockers[i].Notify()
			}
			for synctest.Wait(); blocked(blockers) < workers; synctest.Wait() {
				time.Sleep(tick) // until each blocker holds a worker
			}
			start := time.Now()
			var took time.Duration
			quickOne := newJob(p, func() bool { took = time.Since(start); return false })
			quickOne.Notify()
			time.Sleep(10 * tick)
			synctest.Wait()
			if quickOne.runs.Load() != 1 {
				t.Fatalf("max %d: the waiting task has not run after 10 ticks", workers)
			}
			if took > 3*tick {
				t.Errorf("max %d: the waiting task ran after %v, want at most 3 ticks", workers, took)
			}
			// One replacement was enough for the task that waited.
			blockers = slices.DeleteFunc(blockers, func(j *job) bool { return !j.own.Load() })
			if len(blockers) == 0 {
				t.Fatalf("max %d: no blocker has a goroutine of its own", workers)
			}
			close(gate) // from here on their runs are quick
			p.Wait()
			checkAtRest(t, p)
			for i, j := range blockers {
				for range quickRuns {
					if !j.own.Load() {
						t.Fatalf("max %d: blocker %d came back after fewer than %d quick runs", workers, i, quickRuns)
					}
					j.Notify()
					p.Wait()
				}
				j.Notify()
				p.Wait()
				if j.own.Load() {
					t.Errorf("max %d: blocker %d still owns its goroutine after %d quick runs", workers, i, quickRuns+1)
				}
				if got := j.runs.Load(); got != quickRuns+2 {
					t.Errorf("max %d: blocker %d ran %d times, want %d", workers, i, got, quickRuns+2)
				}
			}
			checkAtRest(t, p)
		})
	}
}

func blocked(jobs []*job) (n int) {
	for _, j := range jobs {
		n += int(j.inside.Load())
	}
	return n
}

// TestOwnedTaskNeverWaitsForWorkers checks that a task that has been seen to
// block does not queue behind others, nor they behind it.
func TestOwnedTaskNeverWaitsForWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		p.max = 1
		gate := make(chan struct{})
		owned := newJob(p, func() bool { <-gate; return false })
		owned.own.Store(true)
		owned.Notify()
		start := time.Now()
		j := newJob(p, func() bool { return false })
		j.Notify()
		synctest.Wait()
		if owned.runs.Load() != 1 || j.runs.Load() != 1 {
			t.Errorf("runs: owned %d, other %d; want 1, 1", owned.runs.Load(), j.runs.Load())
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("it took %v of waiting, want none", d)
		}
		gate <- struct{}{}
		p.Wait()
		checkAtRest(t, p)
	})
}

// TestSlowRunKeepsItsGoroutine checks that a task that keeps blocking stays off
// the shared workers.
func TestSlowRunKeepsItsGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		n := 0
		j := newJob(p, func() bool {
			if n++; n%8 == 0 {
				time.Sleep(2 * quick)
			}
			return n < 4*quickRuns
		})
		j.own.Store(true)
		j.Notify()
		p.Wait()
		if !j.own.Load() {
			t.Error("a task that blocks every eighth run went back to the shared workers")
		}
		if got := j.runs.Load(); got != 4*quickRuns {
			t.Errorf("%d runs, want %d", got, 4*quickRuns)
		}
	})
}

func TestGoexitIsSurvived(t *testing.T) {
	for _, own := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := NewPool()
			left := 5
			j := newJob(p, func() bool {
				if left--; left >= 0 {
					runtime.Goexit()
				}
				return false
			})
			j.own.Store(own)
			j.Notify()
			p.Wait()
			if got := j.runs.Load(); got != 6 {
				t.Errorf("own %v: %d runs, want 6: five that exited and one that returned", own, got)
			}
			if !j.Asleep() {
				t.Errorf("own %v: not asleep", own)
			}
			j.Notify()
			p.Wait()
			if got := j.runs.Load(); got != 7 {
				t.Errorf("own %v: %d runs after another Notify, want 7", own, got)
			}
			checkAtRest(t, p)
		})
	}
}

// TestGoexitOfHeldWorker ends a worker that has been replaced while its
// replacement is stuck too, so that only the task itself can bring the pool
// back to life.
func TestGoexitOfHeldWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		p.max = 1
		gate, stuck := make(chan struct{}), make(chan struct{})
		exits := true
		j := newJob(p, func() bool {
			if <-gate; exits {
				exits = false
				runtime.Goexit()
			}
			return false
		})
		j.Notify()
		synctest.Wait()
		other := newJob(p, func() bool { <-stuck; return false })
		other.Notify()
		time.Sleep(20 * tick) // other has taken the place of j, and no look is due
		if other.runs.Load() != 1 {
			t.Fatal("the held worker was not replaced")
		}
		close(gate)
		time.Sleep(20 * tick)
		synctest.Wait()
		if got := j.runs.Load(); got != 2 {
			t.Errorf("%d runs 20 ticks after the exit, want 2", got)
		}
		close(stuck)
		p.Wait()
		checkAtRest(t, p)
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		p.Wait() // on a pool that has never run anything
		j := newJob(p, func() bool { time.Sleep(time.Second); return false })
		start := time.Now()
		j.Notify()
		p.Wait()
		if got := time.Since(start); got != time.Second {
			t.Errorf("Wait returned after %v, want 1s", got)
		}
		if !j.Asleep() {
			t.Error("Wait returned while a task runs")
		}
	})
}

// newSeed returns a seed that is printed if the test fails.
func newSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return seed
}

// TestStorm mixes everything that can happen, from a seed that a failure
// prints.
func TestStorm(t *testing.T) {
	seed := newSeed(t)
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		p := NewPool()
		p.max = 1 + rnd.IntN(4)
		const tasks = 30
		var sent, seen [tasks]atomic.Int64
		jobs := make([]*job, tasks)
		for i := range jobs {
			own := rand.New(rand.NewPCG(seed, uint64(100+i)))
			jobs[i] = newJob(p, func() bool {
				got := sent[i].Load()
				switch own.IntN(20) {
				case 0:
					time.Sleep(time.Duration(own.Int64N(int64(5 * tick))))
				case 1:
					runtime.Goexit()
				case 2:
					return true
				case 3:
					k := own.IntN(tasks)
					sent[k].Add(1)
					jobs[k].Notify()
				}
				seen[i].Store(got)
				return false
			})
		}
		var wg sync.WaitGroup
		for n := range 4 {
			own := rand.New(rand.NewPCG(seed, uint64(10+n)))
			wg.Go(func() {
				for range 300 {
					k := own.IntN(tasks)
					sent[k].Add(1)
					jobs[k].Notify()
					if own.IntN(50) == 0 {
						time.Sleep(time.Duration(own.Int64N(int64(3 * tick))))
					}
				}
			})
		}
		wg.Wait()
		p.Wait()
		for i := range jobs {
			if got, want := seen[i].Load(), sent[i].Load(); got != want {
				t.Errorf("task %d saw %d of %d", i, got, want)
			}
		}
		checkAtRest(t, p)
	})
}

// TestSharesAreTakenOver makes one worker take a share of tasks each of which
// takes some time, while the other has nothing to do.
func TestSharesAreTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tasks, each = 64, 9 * tick / 10 // too short to count as held
		p := NewPool()
		p.max = 2
		var slow atomic.Int32
		start := time.Now()
		p.mu.Lock()
		for range tasks {
			j := newJob(p, func() bool {
				if slow.Add(1) <= tasks/4 { // the first share
					time.Sleep(each)
				}
				return false
			})
			j.state.Store(queued)
			p.readyLocked(&j.Task)
		}
		for range p.max {
			p.startLocked()
		}
		p.mu.Unlock()
		p.Wait()
		if took, want := time.Since(start), tasks/4/2*each; took > want {
			t.Errorf("two workers took %v, want %v", took, want)
		}
		checkAtRest(t, p)
	})
}

// TestShareOfHeldWorkerIsServed blocks a worker that has taken a share.
func TestShareOfHeldWorkerIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		p.max = 1
		gate := make(chan struct{})
		var ran atomic.Int32
		p.mu.Lock()
		for i := range 40 {
			j := newJob(p, func() bool {
				if i == 0 {
					<-gate
				}
				ran.Add(1)
				return false
			})
			j.state.Store(queued)
			p.readyLocked(&j.Task)
		}
		p.startLocked()
		p.mu.Unlock()
		time.Sleep(5 * tick)
		if got := ran.Load(); got != 39 {
			t.Errorf("%d tasks have run while one blocks, want 39", got)
		}
		close(gate)
		p.Wait()
		checkAtRest(t, p)
	})
}
