package guide_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark"
)

var ran atomic.Int64

type Job struct{ ID int }

func (Job) run() { ran.Add(1) }

func Example_channels() {
	ran.Store(0)
	report(channels(context.Background()))
	fmt.Println(ran.Load(), "jobs")
	// Output: 100 jobs
}

func channels(ctx context.Context) error {
	bus := hark.New()
	jobs, err := hark.NewChan[Job](bus, "jobs", 16)
	if err != nil {
		return err
	}
	var workers sync.WaitGroup
	for range 3 {
		workers.Go(func() {
			for job := range jobs.All(ctx) { // until it is closed and empty
				job.run()
			}
		})
	}
	for id := range 100 {
		if err := jobs.Send(ctx, Job{id}); err != nil {
			return err
		}
	}
	err = jobs.Close()
	workers.Wait()
	return errors.Join(err, bus.Close(ctx))
}

func Example_selecting() {
	ran.Store(0)
	report(selecting(context.Background()))
	fmt.Println(ran.Load(), "jobs")
	// Output: 2 jobs
}

func selecting(ctx context.Context) error {
	jobs, err := hark.NewChan[Job](nil, "", 16)
	if err != nil {
		return err
	}
	if err := errors.Join(jobs.Send(ctx, Job{1}), jobs.Send(ctx, Job{2})); err != nil {
		return err
	}
	select {
	case job, ok := <-jobs.Out():
		if ok {
			job.run()
		}
	case <-time.After(time.Second):
		fmt.Println("nothing to do")
	case <-ctx.Done():
	}
	taken, err := jobs.Take(ctx)
	if err != nil {
		return err
	}
	taken.Value.run()
	err = taken.Done(ctx) // or Return, for somebody else
	return errors.Join(err, jobs.Close())
}
