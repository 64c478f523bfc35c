package producer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/internal/leak"
)

// page records the lines that Run prints, and their times.
type page struct {
	t     *testing.T
	begin time.Time
	after int // number of lines after which full is called
	full  func()

	mu    sync.Mutex // guards the fields below
	lines []string
	times []time.Duration
	over  bool // Run has returned
}

func (p *page) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		p.t.Errorf("printed after the stop: %q", text)
	}
	p.lines = append(p.lines, strings.TrimSuffix(string(text), "\n"))
	p.times = append(p.times, time.Since(p.begin))
	if len(p.lines) == p.after {
		p.full()
	}
	return len(text), nil
}

// run runs the program and returns the printed numbers, sorted. It checks that
// the last line, and only that, sums them up correctly.
func (p *page) run(ctx context.Context, o Options) (numbers []int, err error) {
	p.t.Helper()
	p.begin = time.Now()
	err = Run(ctx, p, o)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	if len(p.lines) == 0 {
		p.t.Fatalf("%+v: nothing is printed", o)
	}
	last := len(p.lines) - 1
	received := map[int][]int{}
	for _, line := range p.lines[:last] {
		var consumer, n int
		if _, err := fmt.Sscanf(line, "consumer %d: %d", &consumer, &n); err != nil || consumer < 1 || consumer > o.Consumers {
			p.t.Errorf("%+v: got line %q", o, line)
		}
		numbers = append(numbers, n)
		received[consumer] = append(received[consumer], n)
	}
	if want := fmt.Sprintf("%d sent, %d received", len(numbers), len(numbers)); p.lines[last] != want {
		p.t.Errorf("%+v: the last line is %q, want %q", o, p.lines[last], want)
	}
	for consumer, got := range received { // the numbers of each producer arrive in order
		latest := map[int]int{}
		for _, n := range got {
			if from := n % o.Producers; n <= latest[from] {
				p.t.Errorf("%+v: consumer %d printed %d after %d", o, consumer, n, latest[from])
			} else {
				latest[from] = n
			}
		}
	}
	slices.Sort(numbers)
	return numbers, err
}

// shapes are options for the given count of numbers, or without end.
func shapes(interval time.Duration, count int) (all []Options) {
	for _, capacity := range []int{0, 1, 16, hark.Unbounded} {
		for _, ends := range [][2]int{{1, 1}, {1, 4}, {4, 1}, {4, 4}, {20, 20}} {
			all = append(all, Options{Interval: interval, Count: count, Producers: ends[0], Consumers: ends[1], Capacity: capacity})
		}
	}
	return all
}

func TestEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{t: t}
		if _, err := p.run(t.Context(), Options{Interval: time.Second, Count: 3, Producers: 1, Consumers: 1}); err != nil {
			t.Fatal(err)
		}
		if want := []string{"consumer 1: 1", "consumer 1: 2", "consumer 1: 3", "3 sent, 3 received"}; !slices.Equal(p.lines, want) {
			t.Errorf("got %q, want %q", p.lines, want)
		}
		if want := []time.Duration{0, time.Second, 2 * time.Second, 2 * time.Second}; !slices.Equal(p.times, want) {
			t.Errorf("printed at %v, want %v", p.times, want)
		}
	})
}

// TestCount sends the same count of numbers with every shape. Each number is
// printed once.
func TestCount(t *testing.T) {
	const count = 101
	for _, o := range shapes(time.Second, count) {
		synctest.Test(t, func(t *testing.T) {
			p := &page{t: t}
			numbers, err := p.run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			for i, n := range numbers {
				if n != i+1 {
					t.Fatalf("%+v: printed %v, want 1 to %d", o, numbers, count)
				}
			}
			if len(numbers) != count {
				t.Errorf("%+v: printed %d numbers, want %d", o, len(numbers), count)
			}
			// The first producer has the most to send.
			if want := time.Duration((count-1)/o.Producers) * time.Second; p.times[len(p.times)-1] != want {
				t.Errorf("%+v: took %v, want %v", o, p.times[len(p.times)-1], want)
			}
		})
	}
}

// sentWhole checks that the numbers are what the producers sent, one after the
// other: no number is missing before another from the same producer, and none
// occurs twice.
func sentWhole(t *testing.T, o Options, numbers []int) {
	t.Helper()
	next := make([]int, o.Producers)
	for _, n := range numbers { // numbers are sorted
		i := (n - 1) % o.Producers
		if want := next[i]*o.Producers + i + 1; n != want {
			t.Errorf("%+v: producer %d sent %d, want %d", o, i+1, n, want)
		}
		next[i]++
	}
}

func TestStopAtATime(t *testing.T) {
	for _, o := range shapes(time.Second, 0) {
		synctest.Test(t, func(t *testing.T) {
			enough := errors.New("enough")
			ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second+time.Millisecond, enough)
			defer cancel()
			p := &page{t: t}
			numbers, err := p.run(ctx, o)
			if !errors.Is(err, enough) {
				t.Errorf("%+v: got %v, want the cause", o, err)
			}
			sentWhole(t, o, numbers)
			if want := 11 * o.Producers; len(numbers) != want {
				t.Errorf("%+v: printed %d numbers, want %d", o, len(numbers), want)
			}
			if want := 10*time.Second + time.Millisecond; p.times[len(p.times)-1] != want {
				t.Errorf("%+v: stopped at %v, want %v", o, p.times[len(p.times)-1], want)
			}
		})
	}
}

// TestStopInTheMiddle stops the program in real time, while numbers are sent
// and printed as fast as possible.
func TestStopInTheMiddle(t *testing.T) {
	leak.Check(t)
	for i, o := range shapes(time.Nanosecond, 0) {
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		p := &page{t: t, after: 50 + 37*i, full: func() { cancel(enough) }}
		numbers, err := p.run(ctx, o)
		if !errors.Is(err, enough) {
			t.Errorf("%+v: got %v, want the cause", o, err)
		}
		if len(numbers) < p.after {
			t.Errorf("%+v: printed %d numbers, want %d and more", o, len(numbers), p.after)
		}
		sentWhole(t, o, numbers)
	}
}

func TestErrors(t *testing.T) {
	leak.Check(t)
	good := Options{Interval: 1, Producers: 3, Consumers: 3}
	for _, change := range []func(*Options){
		func(o *Options) { o.Interval = 0 },
		func(o *Options) { o.Interval = -1 },
		func(o *Options) { o.Count = -1 },
		func(o *Options) { o.Producers = 0 },
		func(o *Options) { o.Consumers = 0 },
		func(o *Options) { o.Capacity = -2 },
	} {
		o := good
		change(&o)
		var out strings.Builder
		if err := Run(t.Context(), &out, o); err == nil || out.Len() > 0 {
			t.Errorf("%+v: got %v and %q, want an error and nothing else", o, err, &out)
		}
	}
	disk := errors.New("disk full")
	if err := Run(t.Context(), failing{disk}, good); !errors.Is(err, disk) {
		t.Errorf("got %v, want the error of the writer", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
