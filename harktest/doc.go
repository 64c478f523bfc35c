// Package harktest helps to test programs that use hark. Nothing in it sleeps or
// polls: it waits for facts, and if they do not come it fails the test and says
// what is missing.
//
//	bus := harktest.NewBus(t)                            // closed when the test ends
//	placed := harktest.Record[Order](t, bus, "orders.*") // what is published
//	shop.PlaceOrder(ctx, order)                          // the program at work
//	got := placed.Values()                               // once all handlers are done
//
// # Time
//
// In a testing/synctest bubble the clock is virtual: retries with backoff,
// delays, TTLs and timeouts take no time, and Settle returns once they are over.
// docs/guide/testing.md shows how. Outside a bubble Settle takes as long as the
// handlers do.
//
// # Engines
//
// Everything works on a bus over an engine too: instead of calling NewBus, open
// one and pass it to Close, Record and Settle.
package harktest
