// Package harktest helps to test programs that use hark. Nothing in it sleeps or
// polls: it waits for facts, and fails the test with what is missing when they do
// not come.
//
//	bus := harktest.NewBus(t)                            // closed when the test ends
//	placed := harktest.Record[Order](t, bus, "orders.*") // what is published
//	shop.PlaceOrder(ctx, order)                          // the program at work
//	got := placed.Values()                               // once all handlers are done
//
// # Time
//
// In a bubble of testing/synctest the clock is virtual: retries with backoff,
// delays, TTLs and timeouts take no time, and Settle returns once they are over.
// docs/guide/testing.md shows how. Outside of a bubble Settle takes as long as the
// handlers do.
//
// # Engines
//
// Everything works on a bus over an engine too: take one in place of NewBus's and
// give it to Close, Record and Settle.
package harktest
