package faults_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/drivertest"
	"github.com/harkbus/hark/driver/faults"
	"github.com/harkbus/hark/driver/memdriver"
	"github.com/harkbus/hark/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// The clauses of Promises hold over an engine with faults. Drops and repeats
// affect only groups, so without HARK_LONG=1 only the clauses about groups run
// with them.
func TestClausesUnderFaults(t *testing.T) {
	for _, p := range faults.Promises() {
		t.Run(p.Fault, func(t *testing.T) {
			t.Parallel() // the tests mostly wait
			seed := uint64(0)
			open := func(testing.TB) *hark.Bus {
				seed++
				config := p.Config
				config.Seed = seed
				return hark.Over(faults.New(memdriver.New().Connect(), config))
			}
			for _, c := range drivertest.Clauses() {
				if p.Config.Drop+p.Config.Repeat > 0 && os.Getenv("HARK_LONG") == "" && !slices.Contains([]string{"BAT", "CLS", "GRP", "ITR", "KEY"}, c.ID[:3]) {
					continue
				}
				if p.Holds(c.ID) {
					t.Run(c.ID, func(t *testing.T) { c.Test(t, open) })
				}
			}
		})
	}
}

// TestPromisesDoc compares docs/drivers.md with the table of Promises.
func TestPromisesDoc(t *testing.T) {
	var b strings.Builder
	b.WriteString("| Fault | Clauses | Because |\n| --- | --- | --- |\n")
	for _, p := range faults.Promises() {
		clauses := "all"
		if p.Only != nil {
			clauses = strings.Join(p.Only, ", ")
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", p.Fault, clauses, p.Why)
	}
	text, err := os.ReadFile("../../docs/drivers.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), b.String()) {
		t.Errorf("docs/drivers.md is to have\n%s", &b)
	}
}

// Messages that are dropped or repeated still reach a group, and faults of each
// kind have occurred.
func TestFaultsHappen(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn := faults.New(memdriver.New().Connect(), faults.Config{
		Seed: 1, Delay: time.Millisecond, Cut: time.Millisecond, Drop: 10, Repeat: 10, Reorder: true, Again: 5,
	})
	var downs atomic.Int64
	bus := hark.Over(conn, hark.WithHooks(connHook(func(e hark.ConnEvent) {
		if !e.Up && errors.Is(e.Err, faults.ErrCut) {
			downs.Add(1)
		}
	})))
	const n = 500
	topic, err := hark.NewTopic[int](bus, "a.b", hark.Stored(hark.Retention{}))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[int]int{}
	all := make(chan struct{})
	for range 2 {
		if _, err := topic.Subscribe(func(_ context.Context, m *hark.Message[int]) error {
			mu.Lock()
			defer mu.Unlock()
			if seen[m.Value]++; seen[m.Value] == 1 && len(seen) == n {
				close(all)
			}
			return nil
		}, hark.Group("g")); err != nil {
			t.Fatal(err)
		}
	}
	counter, err := hark.NewValue(bus, "counter", 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := topic.Publish(ctx, i); err != nil {
			t.Fatal(err)
		}
		if _, err := counter.Update(ctx, func(n int) int { return n + 1 }); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-all:
	case <-ctx.Done():
		t.Fatalf("%d of %d messages came", len(seen), n)
	}
	if got := counter.Get(); got != n {
		t.Errorf("%d updates made %d", n, got)
	}
	if err := bus.Close(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("close: %v, and its context: %v", err, ctx.Err())
	}
	counts := conn.Counts()
	if counts.Delays == 0 || counts.Cuts == 0 || counts.Drops == 0 || counts.Repeats == 0 || counts.Agains == 0 {
		t.Errorf("got %+v, want some of each", counts)
	}
	if downs.Load() == 0 {
		t.Error("nobody was told that the connection is lost")
	}
}

type connHook func(hark.ConnEvent)

func (f connHook) OnConn(e hark.ConnEvent) { f(e) }

// The same seed produces the same faults.
func TestSeed(t *testing.T) {
	run := func(seed uint64) faults.Counts {
		conn := faults.New(memdriver.New().Connect(), faults.Config{Seed: seed, Delay: time.Microsecond})
		for range 200 {
			if err := conn.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		return conn.Counts()
	}
	first := run(7)
	if again := run(7); again != first || first.Delays == 0 {
		t.Errorf("got %+v and then %+v", first, again)
	}
	if other := run(8); other == first {
		t.Errorf("another seed has the same faults: %+v", other)
	}
}

// A cut blocks a call no longer than its context allows, and does not block
// Close at all.
func TestCutWaitsInTheContext(t *testing.T) {
	conn := faults.New(memdriver.New().Connect(), faults.Config{Seed: 3, Cut: 24 * time.Hour})
	var err error
	for err == nil {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err = conn.Flush(ctx)
		cancel()
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of the context", err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

var (
	_ driver.Requester = (*faults.Conn)(nil)
	_ driver.Signals   = (*faults.Conn)(nil)
	_ driver.Values    = (*faults.Conn)(nil)
	_ driver.Chans     = (*faults.Conn)(nil)
)
