package exec

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// feed is a feeder whose loop gets its work from a channel, and puts it into a slice
// that the task empties.
type feed struct {
	Feeder
	source chan int
	passed []int // between the loop and the task, which are never both at work on it in these tests
	task   *job
	loops  atomic.Int32 // how often the loop has been started
	served atomic.Int32 // how often Serve has returned to its loop
}

func startFeed(p *Pool, body func(int)) *feed {
	f := &feed{source: make(chan int)}
	f.task = newJob(p, func() bool {
		for _, n := range f.passed {
			f.passed = f.passed[1:]
			body(n)
		}
		return false
	})
	f.Start(&f.task.Task, func() {
		f.loops.Add(1)
		for n := range f.source {
			f.Claim()
			f.passed = append(f.passed, n)
			f.task.Notify()
			if !f.Serve() {
				return
			}
			f.served.Add(1)
		}
	})
	return f
}

// quit ends the loop.
func (f *feed) quit(p *Pool) {
	close(f.source)
	synctest.Wait()
	p.Wait()
}

func TestFeederRunsTheTaskItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		var got []int
		f := startFeed(p, func(n int) {
			if p.live != 0 {
				t.Error("a worker runs")
			}
			got = append(got, n)
		})
		for n := range 100 {
			f.source <- n
		}
		synctest.Wait()
		if len(got) != 100 || !f.task.Asleep() {
			t.Errorf("%d of 100 are done, asleep %v", len(got), f.task.Asleep())
		}
		if n := f.loops.Load(); n != 1 {
			t.Errorf("the loop was started %d times, want once", n)
		}
		f.quit(p)
		checkAtRest(t, p)
	})
}

// TestFeederGoesOnWhileARunBlocks checks that the loop is started anew when a run
// lasts, and that the task then has a goroutine of its own until it is quick again.
func TestFeederGoesOnWhileARunBlocks(t *testing.T) {
	for _, how := range []string{"waiting", "asking"} {
		synctest.Test(t, func(t *testing.T) {
			p := NewPool()
			gate := make(chan struct{})
			var got []int
			f := startFeed(p, func(n int) {
				if n == 1 {
					<-gate
				}
				got = append(got, n)
			})
			f.source <- 0
			f.source <- 1
			start := time.Now()
			if how == "asking" {
				synctest.Wait()
				f.Relieve()
				f.Relieve() // does nothing more
			}
			for time.Sleep(patience); f.loops.Load() < 2; time.Sleep(patience) {
				if time.Since(start) > 3*patience {
					t.Fatal("the loop does not go on after 3 looks")
				}
			}
			if how == "asking" && time.Since(start) > patience {
				t.Errorf("the loop was started anew after %v, want at once", time.Since(start))
			}
			close(gate)
			synctest.Wait()
			if n := f.served.Load(); n != 1 {
				t.Errorf("Serve has returned true %d times, want once", n)
			}
			f.source <- 2
			synctest.Wait()
			if f.Claim() {
				t.Error("a task that has blocked can be claimed at once")
			}
			for n := range 2 * quickRuns {
				f.source <- 3 + n
				synctest.Wait()
			}
			if f.task.own.Load() {
				t.Error("the task is still considered slow")
			}
			for i, n := range got {
				if i != n {
					t.Fatalf("got %v, want the numbers in order", got)
				}
			}
			if n := f.loops.Load(); n != 2 {
				t.Errorf("the loop was started %d times, want twice", n)
			}
			f.quit(p)
			checkAtRest(t, p)
		})
	}
}

// TestFeederRests checks that nothing looks at a loop that waits.
func TestFeederRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		f := startFeed(p, func(int) {})
		for range 3 {
			f.source <- 0
			if time.Sleep(5 * patience); f.looking.Load() {
				t.Fatal("looks go on while nothing runs")
			}
		}
		f.quit(p)
	})
}

// TestFeederReleases checks that a claimed task is run by others while the loop waits.
func TestFeederReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		done := make(chan struct{})
		j := newJob(p, func() bool { close(done); return false })
		var f Feeder
		f.Start(&j.Task, func() {
			f.Claim()
			j.Notify()
			f.Release()
			<-done
			if !f.Serve() {
				t.Error("Serve without a claim returns false")
			}
		})
		synctest.Wait()
		p.Wait()
		if n := j.runs.Load(); n != 1 {
			t.Errorf("%d runs, want 1", n)
		}
		checkAtRest(t, p)
	})
}

func TestFeederSurvivesGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		var got []int
		f := startFeed(p, func(n int) {
			if got = append(got, n); n%2 == 1 {
				runtime.Goexit()
			}
		})
		for n := range 10 {
			f.source <- n
			synctest.Wait()
		}
		if len(got) != 10 || !f.task.Asleep() {
			t.Errorf("got %v, asleep %v; want ten numbers", got, f.task.Asleep())
		}
		if n := f.loops.Load(); n != 6 {
			t.Errorf("the loop was started %d times, want six times", n)
		}
		f.quit(p)
		checkAtRest(t, p)
	})
}

// TestFeederStorm mixes everything that can happen to a feeder, from a seed that a
// failure prints.
func TestFeederStorm(t *testing.T) {
	seed := newSeed(t)
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		own := rand.New(rand.NewPCG(seed, 1)) // used by the task only, whose runs never overlap
		var passed, done atomic.Int64
		var loops atomic.Int32
		j := newJob(p, func() bool {
			got := passed.Load()
			switch own.IntN(20) {
			case 0:
				time.Sleep(time.Duration(own.Int64N(int64(5 * patience))))
			case 1:
				runtime.Goexit()
			case 2:
				return true
			}
			done.Store(got)
			return false
		})
		source := make(chan int)
		var f Feeder
		f.Start(&j.Task, func() {
			if loops.Add(1) != 1 {
				t.Error("two loops at a time")
			}
			for n := range source {
				f.Claim()
				passed.Add(1)
				j.Notify()
				if n%7 == 0 {
					f.Release()
				}
				loops.Add(-1)
				if !f.Serve() {
					return
				}
				loops.Add(1)
			}
			loops.Add(-1)
		})
		var wg sync.WaitGroup
		for n := range 3 {
			rnd := rand.New(rand.NewPCG(seed, uint64(10+n)))
			wg.Go(func() {
				for i := range 300 {
					switch n {
					case 0:
						source <- i
					case 1:
						j.Notify()
					case 2:
						f.Relieve()
					}
					if rnd.IntN(10) == 0 {
						time.Sleep(time.Duration(rnd.Int64N(int64(3 * patience))))
					}
				}
			})
		}
		wg.Wait()
		close(source)
		synctest.Wait()
		time.Sleep(100 * patience)
		p.Wait()
		if n := done.Load(); n != 300 || !j.Asleep() {
			t.Errorf("%d of 300 are done, asleep %v", n, j.Asleep())
		}
		checkAtRest(t, p)
	})
}
