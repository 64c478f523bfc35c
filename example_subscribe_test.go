package hark_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/harkbus/hark"
)

// One handler for all topics that match, those made later included.
func ExampleSubscribePattern() {
	ctx := context.Background()
	bus := hark.New()
	_, err := hark.SubscribePattern(bus, "orders.*", func(ctx context.Context, m *hark.Message[any]) error {
		fmt.Println(m.Topic(), m.Value)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	paid, err := hark.NewTopic[string](bus, "orders.paid")
	if err != nil {
		log.Fatal(err)
	}
	if err := errors.Join(paid.Publish(ctx, "o-1"), bus.Close(ctx)); err != nil {
		log.Fatal(err)
	}
	// Output: orders.paid o-1
}

// A handler that writes many rows at once: as soon as there are three, or a second
// after the first.
func ExampleTopic_SubscribeBatch() {
	ctx := context.Background()
	bus := hark.New()
	readings, err := hark.NewTopic[float64](bus, "readings")
	if err != nil {
		log.Fatal(err)
	}
	_, err = readings.SubscribeBatch(func(ctx context.Context, batch []*hark.Message[float64]) error {
		fmt.Println("insert", len(batch), "rows") // a *BatchError retries only some of them
		return nil
	}, hark.Batch(3, time.Second))
	if err != nil {
		log.Fatal(err)
	}
	if err := errors.Join(readings.PublishAll(ctx, []float64{20.5, 21, 21.5}), bus.Close(ctx)); err != nil {
		log.Fatal(err)
	}
	// Output: insert 3 rows
}

// What cannot succeed becomes a dead letter, with the record of its failure.
func ExampleReject() {
	ctx := context.Background()
	bus := hark.New()
	orders, err := hark.NewTopic[string](bus, "orders")
	if err != nil {
		log.Fatal(err)
	}
	_, err = orders.Subscribe(func(ctx context.Context, m *hark.Message[string]) error {
		return hark.Reject(errors.New("no such customer"))
	}, hark.Group("billing"))
	if err != nil {
		log.Fatal(err)
	}
	dead, err := hark.NewTopic[string](bus, "orders.dead")
	if err != nil {
		log.Fatal(err)
	}
	_, err = dead.Subscribe(func(ctx context.Context, m *hark.Message[string]) error {
		f := m.Failure()
		fmt.Printf("%s: %s gave it up: %s\n", m.Value, f.Subscription, f.Reason)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := errors.Join(orders.Publish(ctx, "o-1"), bus.Close(ctx)); err != nil {
		log.Fatal(err)
	}
	// Output: o-1: billing gave it up: no such customer
}

// Middleware around all handlers of a bus.
func ExampleBus_Use() {
	ctx := context.Background()
	bus := hark.New()
	bus.Use(func(next hark.MessageHandler) hark.MessageHandler {
		return func(ctx context.Context, m hark.AnyMessage) error {
			err := next(ctx, m)
			fmt.Printf("%s, attempt %d: %v\n", m.Topic(), m.Attempt(), err)
			return err
		}
	})
	jobs, err := hark.NewTopic[string](bus, "jobs")
	if err != nil {
		log.Fatal(err)
	}
	_, err = jobs.Subscribe(func(ctx context.Context, m *hark.Message[string]) error { return nil })
	if err != nil {
		log.Fatal(err)
	}
	if err := errors.Join(jobs.Publish(ctx, "j-1"), bus.Close(ctx)); err != nil {
		log.Fatal(err)
	}
	// Output: jobs, attempt 1: <nil>
}

// failLog is told of each handler that has failed.
type failLog struct{}

func (failLog) OnFail(e hark.FailEvent) {
	fmt.Printf("%s, attempt %d: %v, another one follows: %v\n", e.Name, e.Attempt, e.Err, e.Retry)
}

// The bus does not log: hooks say what happens on it.
func ExampleWithHooks() {
	ctx := context.Background()
	bus := hark.New(hark.WithHooks(failLog{}))
	jobs, err := hark.NewTopic[string](bus, "jobs")
	if err != nil {
		log.Fatal(err)
	}
	_, err = jobs.Subscribe(func(ctx context.Context, m *hark.Message[string]) error {
		if m.Attempt() == 1 {
			return errors.New("busy")
		}
		return nil
	}, hark.Backoff(hark.BackoffPolicy{Max: time.Millisecond}))
	if err != nil {
		log.Fatal(err)
	}
	if err := errors.Join(jobs.Publish(ctx, "j-1"), bus.Close(ctx)); err != nil {
		log.Fatal(err)
	}
	// Output: jobs, attempt 1: busy, another one follows: true
}
