package guide_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/harkbus/hark"
)

type Order struct{ ID string }

type Payment struct{ Account string }

func Example_topics() {
	report(topics(context.Background()))
	// Output:
	// audit: o-1
	// orders.placed {o-1}
}

func topics(ctx context.Context) error {
	bus := hark.New()
	orders, err := hark.NewTopic[Order](bus, "orders.placed")
	if err != nil {
		return err
	}
	audit, err := orders.Subscribe(func(ctx context.Context, m *hark.Message[Order]) error {
		fmt.Println("audit:", m.Value.ID)
		return nil
	})
	if err != nil {
		return err
	}
	bill := func(ctx context.Context, m *hark.Message[Order]) error { return nil }
	for range 3 { // three members, perhaps in three processes
		_, err := orders.Subscribe(bill, hark.Group("billing"), hark.Workers(8))
		if err != nil {
			return err
		}
	}
	payments, err := hark.NewTopic[Payment](bus, "payments",
		hark.KeyBy(func(p Payment) string { return p.Account }))
	if err != nil {
		return err
	}
	if err := payments.Publish(ctx, Payment{"a-1"}); err != nil {
		return err
	}
	if err := orders.Publish(ctx, Order{"o-1"}); err != nil {
		return err
	}
	if err := audit.Drain(ctx); err != nil {
		return err
	}
	_, err = hark.SubscribePattern(bus, "orders.>", func(ctx context.Context, m *hark.Message[any]) error {
		fmt.Println(m.Topic(), m.Value)
		return nil
	})
	if err != nil {
		return err
	}
	return errors.Join(orders.Publish(ctx, Order{"o-1"}), bus.Close(ctx))
}

func Example_durable() {
	report(durable(context.Background()))
	// Output: orders.placed o-1
}

func durable(ctx context.Context) error {
	bus := hark.New()
	placed, err := hark.NewTopic[Order](bus, "orders.placed", hark.Stored(hark.Retention{}))
	if err != nil {
		return err
	}
	if err := placed.Publish(ctx, Order{"o-1"}); err != nil {
		return err
	}
	audit := func(ctx context.Context, m *hark.Message[Order]) error {
		fmt.Println(m.Topic(), m.Value.ID)
		return nil
	}
	_, err = hark.SubscribePattern(bus, "orders.>", audit, hark.Durable(), hark.Group("audit"), hark.FromStart())
	if err != nil {
		return err
	}
	return bus.Close(ctx)
}

func Example_deadLetters() {
	report(deadLetters(context.Background()))
	// Output: o-1 given up by orders.placed#1 after 1 attempts: no such customer
}

func deadLetters(ctx context.Context) error {
	bus := hark.New()
	orders, err := hark.NewTopic[Order](bus, "orders.placed")
	if err != nil {
		return err
	}
	_, err = orders.Subscribe(func(ctx context.Context, m *hark.Message[Order]) error {
		return hark.Reject(errors.New("no such customer"))
	})
	if err != nil {
		return err
	}
	dead, err := hark.NewTopic[Order](bus, "orders.placed.dead")
	if err != nil {
		return err
	}
	_, err = dead.Subscribe(func(ctx context.Context, m *hark.Message[Order]) error {
		f := m.Failure()
		fmt.Printf("%s given up by %s after %d attempts: %s\n", m.Value.ID, f.Subscription, f.Attempts, f.Reason)
		return nil
	})
	if err != nil {
		return err
	}
	return errors.Join(orders.Publish(ctx, Order{"o-1"}), bus.Close(ctx))
}

func Example_stored() {
	report(stored(context.Background()))
	// Output:
	// 2 21
	// 3 21.5
}

func stored(ctx context.Context) error {
	bus := hark.New()
	defer bus.Close(ctx)
	readings, err := hark.NewTopic[float64](bus, "readings",
		hark.Stored(hark.Retention{MaxMessages: 1000, MaxAge: 24 * time.Hour}))
	if err != nil {
		return err
	}
	if err := readings.PublishAll(ctx, []float64{20.5, 21, 21.5}); err != nil {
		return err
	}
	for m, err := range readings.Messages(ctx, hark.Last(2), hark.UntilNow()) {
		if err != nil {
			return err
		}
		fmt.Println(m.Seq(), m.Value)
	}
	return nil
}

type Quote struct{ Quantity int }

type Price struct{ Cents int }

func Example_requests() {
	report(requests(context.Background()))
	// Output: 300
}

func requests(ctx context.Context) error {
	bus := hark.New()
	var err error
	_, err = hark.Reply(bus, "price.quote", func(ctx context.Context, q Quote) (Price, error) {
		return Price{Cents: 100 * q.Quantity}, nil
	})
	if err != nil {
		return err
	}
	price, err := hark.Request[Quote, Price](ctx, bus, "price.quote", Quote{Quantity: 3})
	fmt.Println(price.Cents)
	return errors.Join(err, bus.Close(ctx))
}

// report prints an error, which no example expects.
func report(err error) {
	if err != nil {
		fmt.Println(err)
	}
}
