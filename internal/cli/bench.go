package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

var benchCommand = command{
	name: "bench", args: "[URL...]", about: "measure engines side by side",
	long: `It measures each URL, or if there is none the broker in use: mem: is the engine in
this process, file:DIR one in a directory, nats: and hark: are servers.

  pubsub    messages of an ephemeral topic, from --clients goroutines to one
            subscription, at most 4,096 on their way, as handled a second
  stored    messages of a stored topic, each acknowledged before a client sends the
            next one, as handled a second
  request   requests, each answered before a client sends the next one
  chan      values through a channel of capacity 64, with as many receivers

Every engine has a turn in each round, and the median of the rounds counts. At the end
it removes what it has stored, except a channel and a topic on an engine that cannot
remove them.`,
	setup: func(fs *flag.FlagSet) action {
		f := urlFlags(fs)
		b := benching{}
		of := fs.String("of", strings.Join(benchNames(), ","), "`tests` to run")
		fs.IntVar(&b.size, "size", 128, "`bytes` in a message")
		fs.IntVar(&b.clients, "clients", 4, "`goroutines` that send")
		fs.IntVar(&b.rounds, "rounds", 3, "`number` of rounds")
		b.time = time.Second
		timeVar(fs, &b.time, "time", "`time` for each engine in a round of a test")
		output := outputFlag(fs, "text", "json")
		return func(ctx context.Context, words []string, s Streams) error {
			if b.size < 1 || b.size > 1<<20 || b.clients < 1 || b.rounds < 1 || b.time <= 0 {
				return usageError{errors.New("--clients, --rounds and --time must be above 0, --size from 1 to 1048576")}
			}
			for name := range strings.SplitSeq(*of, ",") {
				i := slices.IndexFunc(benchTests, func(t benchTest) bool { return t.name == name })
				if i < 0 {
					return usageError{fmt.Errorf("--of: unknown test %q%s", name, suggestion(name, benchNames()))}
				}
				b.tests = append(b.tests, benchTests[i])
			}
			if len(words) > 0 && (f.url != "" || f.context != "") {
				return usageError{errors.New("give URLs either as arguments, or with --url or --context")}
			}
			if len(words) == 0 {
				p, err := f.place()
				if err != nil {
					return err
				}
				words = []string{p.URL}
			}
			for _, url := range words {
				p := place{URL: url}
				if err := p.readURL(true); err != nil && url != "mem:" {
					return usageError{err}
				}
			}
			b.urls, b.notes = words, s.Err
			return b.run(ctx, *output, s)
		}
	},
}

// benching is one run of hark bench.
type benching struct {
	urls                  []string
	tests                 []benchTest
	size, clients, rounds int
	time                  time.Duration
	notes                 io.Writer

	now     atomic.Pointer[string] // the running test
	turn    atomic.Int64           // how many turns are done
	samples map[[2]int][]sample    // by test and URL
}

// sample is the outcome of one turn of an engine.
type sample struct {
	rate     float64       // per second
	p50, p99 time.Duration // latencies; 0 if not measured
	err      error
}

// benchResult is a result in printable form.
type benchResult struct {
	Test    string  `json:"test"`
	URL     string  `json:"url"`
	Rate    float64 `json:"perSecond,omitempty"`
	P50     float64 `json:"p50Microseconds,omitempty"`
	P99     float64 `json:"p99Microseconds,omitempty"`
	Size    int     `json:"size"`
	Clients int     `json:"clients"`
	Error   string  `json:"error,omitempty"`
}

func (b *benching) run(ctx context.Context, output string, s Streams) error {
	b.samples = map[[2]int][]sample{}
	stop := func() {}
	if terminalWidth(s.Err) > 0 {
		stop = showProgress(s.Err, b.progress).stop
	}
	err := b.measure(ctx)
	stop()
	if err != nil {
		return err
	}
	var results []benchResult
	failed := 0
	for i, t := range b.tests {
		for j, url := range b.urls {
			r := b.result(t.name, url, b.samples[[2]int{i, j}])
			if r.Error != "" {
				failed++
			}
			results = append(results, r)
		}
	}
	if output == "json" {
		err = printJSON(s.Out, results)
	} else {
		err = b.table(s, results)
	}
	if err == nil && failed > 0 {
		err = fmt.Errorf("%s failed", plural(failed, "measurement", "measurements"))
	}
	return err
}

// measure runs the turns of each engine.
func (b *benching) measure(ctx context.Context) error {
	for round := range b.rounds {
		for i, t := range b.tests {
			for j, url := range b.urls {
				k := [2]int{i, j}
				if s := b.samples[k]; len(s) > 0 && s[len(s)-1].err != nil {
					b.turn.Add(1) // a test that failed once is not tried again
					continue
				}
				what := fmt.Sprintf("%s over %s, round %d", t.name, redacted(url), round+1)
				b.now.Store(&what)
				b.samples[k] = append(b.samples[k], b.turnOf(ctx, t, url))
				b.turn.Add(1)
				if err := ctx.Err(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (b *benching) progress(width int) string {
	all := b.rounds * len(b.tests) * len(b.urls)
	line := fmt.Sprintf("%d of %d", b.turn.Load(), all)
	if what := b.now.Load(); what != nil {
		line += ": " + *what
	}
	return withGauge(width, float64(b.turn.Load())/float64(all), line)
}

// result returns the median of samples; if one has failed, the result has.
func (b *benching) result(test, url string, samples []sample) benchResult {
	r := benchResult{Test: test, URL: redacted(url), Size: b.size, Clients: b.clients}
	for _, s := range samples {
		if s.err != nil {
			r.Error = s.err.Error()
			return r
		}
	}
	slices.SortFunc(samples, func(x, y sample) int {
		switch {
		case x.rate < y.rate:
			return -1
		case x.rate > y.rate:
			return 1
		}
		return 0
	})
	m := samples[len(samples)/2]
	r.Rate = math.Round(m.rate)
	r.P50, r.P99 = float64(m.p50.Nanoseconds())/1e3, float64(m.p99.Nanoseconds())/1e3
	return r
}

func (b *benching) table(s Streams, results []benchResult) error {
	w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TEST\tENGINE\tA SECOND\tP50\tP99")
	var errs []string
	for _, r := range results {
		if r.Error != "" {
			fmt.Fprintf(w, "%s\t%s\tfailed\t\t\n", r.Test, r.URL)
			errs = append(errs, fmt.Sprintf("%s over %s: %s", r.Test, r.URL, r.Error))
			continue
		}
		us := func(f float64) string {
			if f == 0 {
				return ""
			}
			d := time.Duration(f * 1e3)
			if d > time.Microsecond {
				d = d.Round(100 * time.Nanosecond)
			}
			return d.String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Test, r.URL, thousands(int(r.Rate)), us(r.P50), us(r.P99))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, e := range errs {
		fmt.Fprintln(s.Err, e)
	}
	return nil
}

// thousands writes a number with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
