package guide_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/faults"
	"github.com/harkbus/hark/driver/filedriver"
	"github.com/harkbus/hark/harktest"
)

// TestWithFaults has a group get everything although the engine is as bad as it may be.
func TestWithFaults(t *testing.T) {
	conn, err := filedriver.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	bus := hark.Over(faults.New(conn, faults.Config{Seed: 1, Delay: time.Millisecond, Cut: 5 * time.Millisecond, Repeat: 3}))
	harktest.Close(t, bus)

	numbers, err := hark.NewTopic[int](bus, "numbers", hark.Stored(hark.Retention{Durability: hark.Memory}))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen, calls := map[int]bool{}, 0
	_, err = numbers.Subscribe(func(_ context.Context, m *hark.Message[int]) error {
		mu.Lock()
		defer mu.Unlock()
		seen[m.Value] = true
		calls++
		return nil
	}, hark.Group("all"))
	if err != nil {
		t.Fatal(err)
	}
	const n = 200
	for i := range n {
		if err := numbers.Publish(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	harktest.Settle(t, bus)
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != n || calls == n {
		t.Errorf("got %d numbers in %d calls, want %d, some of them again", len(seen), calls, n)
	}
}
