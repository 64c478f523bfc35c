package hark_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/harkbus/hark"
	_ "github.com/harkbus/hark/driver/filedriver" // for file: URLs
)

type OrderPlaced struct {
	ID, Customer string
	Total        int
}

func bill(_ context.Context, o OrderPlaced) error {
	fmt.Printf("%s pays %d\n", o.Customer, o.Total)
	return nil
}

func Example() {
	ctx := context.Background()
	bus := hark.New()
	orders, err := hark.NewTopic[OrderPlaced](bus, "orders.placed",
		hark.KeyBy(func(o OrderPlaced) string { return o.Customer }),
		hark.Stored(hark.Retention{MaxAge: 24 * time.Hour}))
	if err != nil {
		log.Fatal(err)
	}
	_, err = orders.Subscribe(func(ctx context.Context, m *hark.Message[OrderPlaced]) error {
		return bill(ctx, m.Value) // nil: done; an error: again later, then a dead letter
	}, hark.Group("billing"), hark.Workers(8), hark.MaxAttempts(5))
	if err != nil {
		log.Fatal(err)
	}
	err = orders.Publish(ctx, OrderPlaced{ID: "o-1", Customer: "ada", Total: 42})
	err = errors.Join(err, bus.Close(ctx)) // waits until everything is handled
	if err != nil {
		log.Fatal(err)
	}
	// Output: ada pays 42
}

// The same with another first line: what is published is on disk, and who is not
// there yet gets it later.
func Example_open() {
	defer elsewhere()()
	ctx := context.Background()
	bus, err := hark.Open(ctx, "file:./data") // or "nats://10.0.0.5:4222", "hark://broker:7422"
	if err != nil {
		log.Fatal(err)
	}
	orders, err := hark.NewTopic[OrderPlaced](bus, "orders.placed",
		hark.KeyBy(func(o OrderPlaced) string { return o.Customer }),
		hark.Stored(hark.Retention{MaxAge: 24 * time.Hour}))
	if err != nil {
		log.Fatal(err)
	}
	_, err = orders.Subscribe(func(ctx context.Context, m *hark.Message[OrderPlaced]) error {
		return bill(ctx, m.Value) // nil: done; an error: again later, then a dead letter
	}, hark.Group("billing"), hark.Workers(8), hark.MaxAttempts(5))
	if err != nil {
		log.Fatal(err)
	}
	err = orders.Publish(ctx, OrderPlaced{ID: "o-1", Customer: "ada", Total: 42})
	err = errors.Join(err, bus.Close(ctx)) // waits until everything is handled
	if err != nil {
		log.Fatal(err)
	}
	// Output: ada pays 42
}

// elsewhere changes to a new directory, and back when what it returns is called.
func elsewhere() (back func()) {
	was, err1 := os.Getwd()
	dir, err2 := os.MkdirTemp("", "hark-example-")
	if err := errors.Join(err1, err2, os.Chdir(dir)); err != nil {
		log.Fatal(err)
	}
	return func() {
		if err := errors.Join(os.Chdir(was), os.RemoveAll(dir)); err != nil {
			log.Fatal(err)
		}
	}
}

func Example_faces() {
	ctx := context.Background()
	bus := hark.New()
	defer bus.Close(ctx)
	jobs, err1 := hark.NewChan[Job](bus, "jobs", 16)      // a channel; or 0, or hark.Unbounded
	notifier, err2 := hark.NewNotifier(bus)               // signals between goroutines
	done, err3 := hark.NewValue(bus, "jobs.done", Job{0}) // shared state that others observe
	if err := errors.Join(err1, err2, err3); err != nil {
		log.Fatal(err)
	}
	go func() {
		for job := range jobs.All(ctx) { // each job to one receiver; Out is for select
			if err := done.Set(ctx, job); err != nil {
				log.Print(err)
			}
		}
		if err := notifier.Latch(ctx, "idle"); err != nil { // who waits later sees it too
			log.Print(err)
		}
	}()
	err := errors.Join(jobs.Send(ctx, Job{1}), jobs.Send(ctx, Job{2}), jobs.Close(), notifier.Wait(ctx, "idle"))
	fmt.Println(done.Get(), err) // {2} <nil>
	// Output: {2} <nil>
}

func ExampleTopic_Messages() {
	ctx := context.Background()
	bus := hark.New()
	readings, _ := hark.NewTopic[int](bus, "readings", hark.Stored(hark.Retention{MaxMessages: 100}))
	_ = readings.PublishAll(ctx, []int{20, 21, 22})
	for m, err := range readings.Messages(ctx, hark.Last(2), hark.UntilNow()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Seq(), m.Value)
	}
	// Output:
	// 2 21
	// 3 22
}

func ExampleRequest() {
	ctx := context.Background()
	bus := hark.New()
	_, _ = hark.Reply(bus, "math.square", func(_ context.Context, n int) (int, error) { return n * n, nil })
	nine, err := hark.Request[int, int](ctx, bus, "math.square", 3)
	fmt.Println(nine, err)
	_, err = hark.Request[int, int](ctx, bus, "math.cube", 3)
	fmt.Println(errors.Is(err, hark.ErrNoResponders))
	// Output:
	// 9 <nil>
	// true
}
