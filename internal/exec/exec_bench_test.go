package exec

import (
	"runtime"
	"sync/atomic"
	"testing"
)

// BenchmarkNotify measures the time from a notification to the run that answers
// it, and compares it with a goroutine that waits on a channel of capacity one.
func BenchmarkNotify(b *testing.B) {
	b.Run("task", func(b *testing.B) {
		p := NewPool()
		done := make(chan struct{}, 1)
		j := newJob(p, func() bool { done <- struct{}{}; return false })
		b.ReportAllocs()
		for b.Loop() {
			j.Notify()
			<-done
		}
		p.Wait()
	})
	b.Run("channel", func(b *testing.B) {
		wake, done := make(chan struct{}, 1), make(chan struct{}, 1)
		go func() {
			for range wake {
				done <- struct{}{}
			}
			close(done)
		}()
		b.ReportAllocs()
		for b.Loop() {
			wake <- struct{}{}
			<-done
		}
		close(wake)
		for range done {
		}
	})
	b.Run("task awake", func(b *testing.B) {
		p := NewPool()
		var stop atomic.Bool
		j := newJob(p, func() bool { runtime.Gosched(); return !stop.Load() })
		j.Notify()
		b.ReportAllocs()
		for b.Loop() {
			j.Notify()
		}
		stop.Store(true)
		p.Wait()
	})
}

// BenchmarkManyTasks measures how long it takes to notify 1,000 sleeping tasks
// until all have run.
func BenchmarkManyTasks(b *testing.B) {
	const tasks = 1000
	p := NewPool()
	jobs := make([]*job, tasks)
	for i := range jobs {
		jobs[i] = newJob(p, func() bool { return false })
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, j := range jobs {
			j.Notify()
		}
		p.Wait()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/tasks, "ns/task")
}
