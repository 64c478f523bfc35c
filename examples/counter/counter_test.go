package counter

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/harkbus/hark/internal/leak"
)

func TestTwoGoroutines(t *testing.T) {
	leak.Check(t)
	var out, want strings.Builder
	if err := Run(t.Context(), &out, Options{Rounds: 3, Goroutines: 2, Start: 5}); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(&want, "initialized with 5")
	for range 3 {
		fmt.Fprintln(&want, "6 was incremented by another goroutine")
		fmt.Fprintln(&want, "5 was decremented by another goroutine")
	}
	fmt.Fprintln(&want, "the final value is 5 after 6 changes")
	if out.String() != want.String() {
		t.Errorf("got:\n%s\nwant:\n%s", &out, &want)
	}
}

// TestManyGoroutines checks that each printed number was true when it was
// printed. A walk from 0 to 0 steps from v-1 to v as often as back, for every
// v.
func TestManyGoroutines(t *testing.T) {
	leak.Check(t)
	for _, goroutines := range []int{2, 20, 200} {
		const rounds = 20
		var out bytes.Buffer
		if err := Run(t.Context(), &out, Options{Rounds: rounds, Goroutines: goroutines}); err != nil {
			t.Fatal(err)
		}
		crossed := map[int]int{} // steps from v-1 to v, minus those back
		n := 0
		var last string
		for in := bufio.NewScanner(&out); in.Scan(); {
			last = in.Text()
			var v int
			var what string
			if _, err := fmt.Sscanf(last, "%d was %s by another goroutine", &v, &what); err != nil {
				continue
			}
			n++
			switch what {
			case "incremented":
				crossed[v]++
			case "decremented":
				crossed[v+1]--
			default:
				t.Errorf("got line %q", last)
			}
		}
		if n != goroutines*rounds {
			t.Errorf("%d goroutines: %d steps are printed, want %d", goroutines, n, goroutines*rounds)
		}
		for v, more := range crossed {
			if more != 0 {
				t.Errorf("%d goroutines: %d steps more from %d to %d than back", goroutines, more, v-1, v)
			}
		}
		if want := fmt.Sprintf("the final value is 0 after %d changes", goroutines*rounds); last != want {
			t.Errorf("got %q, want %q", last, want)
		}
	}
}

// TestNothingToCount runs workers that are done before their partners look for
// them.
func TestNothingToCount(t *testing.T) {
	leak.Check(t)
	for range 200 {
		if err := Run(t.Context(), io.Discard, Options{Goroutines: 20}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRunStops(t *testing.T) {
	leak.Check(t)
	for _, goroutines := range []int{2, 20} {
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		w := &stopper{after: 50, stop: func() { cancel(enough) }}
		if err := Run(ctx, w, Options{Rounds: 1_000_000_000, Goroutines: goroutines}); !errors.Is(err, enough) {
			t.Errorf("%d goroutines: got %v, want the cause", goroutines, err)
		}
		// At any time, at most one of each pair is a step ahead.
		var n, changes int
		if _, err := fmt.Sscanf(w.last, "stopped with %d after %d changes", &n, &changes); err != nil || n < 0 || n > goroutines/2 || changes < 49 {
			t.Errorf("%d goroutines: the last line is %q", goroutines, w.last)
		}
	}
}

// stopper calls stop after the given number of lines.
type stopper struct {
	after int
	stop  func()
	last  string
}

func (s *stopper) Write(p []byte) (int, error) {
	s.last = string(p)
	if s.after--; s.after == 0 {
		s.stop()
	}
	return len(p), nil
}

func TestRunReportsErrors(t *testing.T) {
	leak.Check(t)
	for _, o := range []Options{{}, {Goroutines: 3}, {Goroutines: -2}, {Goroutines: 2, Rounds: -1}} {
		var out strings.Builder
		if err := Run(t.Context(), &out, o); err == nil || out.Len() > 0 {
			t.Errorf("%+v: got %v and %q, want an error and nothing else", o, err, &out)
		}
	}
	full := errors.New("disk full")
	if err := Run(t.Context(), failing{full}, Options{Rounds: 10, Goroutines: 2}); !errors.Is(err, full) {
		t.Errorf("got %v, want the error of the writer", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
