package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

// benchTest is one kind of measurement.
type benchTest struct {
	name string
	run  func(ctx context.Context, l *load) error
}

var benchTests = []benchTest{
	{"pubsub", benchPubsub},
	{"stored", benchStored},
	{"request", benchRequest},
	{"chan", benchChan},
}

func benchNames() (names []string) {
	for _, t := range benchTests {
		names = append(names, t.name)
	}
	return names
}

// load is the work of one turn.
type load struct {
	bus     *hark.Bus
	name    string // of the objects that it creates
	data    []byte
	clients int
	until   time.Time

	done      atomic.Int64
	latencies [][]time.Duration // by client
}

// benchTimeout is how long a turn may take beyond its set time.
const benchTimeout = 30 * time.Second

// turnOf runs one turn of a test over an engine, on a connection of its own.
func (b *benching) turnOf(ctx context.Context, t benchTest, url string) (s sample) {
	ctx, cancel := context.WithTimeout(ctx, b.time+benchTimeout)
	defer cancel()
	l := &load{bus: hark.New(), name: "bench." + strings.ToLower(rand.Text()[:10]), data: slices.Repeat([]byte("x"), b.size), clients: b.clients}
	l.latencies = make([][]time.Duration, b.clients)
	if url != "mem:" {
		p := place{URL: url, Said: "the argument"}
		conn, err := p.connect(ctx, b.notes)
		if err != nil {
			return sample{err: err}
		}
		defer func() { s.err = errors.Join(s.err, l.clean(ctx, url, b.notes)) }()
		l.bus = hark.Over(conn)
	}
	start := time.Now()
	l.until = start.Add(b.time)
	err := t.run(ctx, l)
	took := time.Since(start)
	if err := errors.Join(err, l.bus.Close(ctx)); err != nil {
		return sample{err: err}
	}
	s.rate = float64(l.done.Load()) / took.Seconds()
	if all := slices.Concat(l.latencies...); len(all) > 0 {
		slices.Sort(all)
		s.p50, s.p99 = all[len(all)/2], all[len(all)*99/100]
	}
	return s
}

// clean removes what was stored, over another connection because that of the bus is
// closed.
func (l *load) clean(ctx context.Context, url string, notes io.Writer) error {
	p := place{URL: url, Said: "the argument"}
	conn, err := p.connect(ctx, notes)
	if err != nil {
		return err
	}
	if c, ok := conn.(interface {
		DeleteTopic(ctx context.Context, name string) error
		DeleteChan(ctx context.Context, name string) error
	}); ok && has(conn, driver.Stored) {
		err = errors.Join(c.DeleteTopic(ctx, l.name), c.DeleteChan(ctx, l.name))
	}
	return errors.Join(err, closed(ctx, conn))
}

// each runs f in each client repeatedly until the time is over, or f fails.
func (l *load) each(f func(client int) error) error {
	var all sync.WaitGroup
	errs := make([]error, l.clients)
	for i := range l.clients {
		all.Go(func() {
			for errs[i] == nil && time.Now().Before(l.until) {
				errs[i] = f(i)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// timed calls f and records how long it took.
func (l *load) timed(client int, f func() error) error {
	start := time.Now()
	err := f()
	l.latencies[client] = append(l.latencies[client], time.Since(start))
	return err
}

// benchWindow is how many messages of an ephemeral topic may be on their way; over
// NATS nothing else limits them.
const benchWindow = 4096

func benchPubsub(ctx context.Context, l *load) error {
	topic, err := hark.NewTopic[[]byte](l.bus, l.name)
	if err != nil {
		return err
	}
	room := make(chan struct{}, benchWindow)
	if _, err := topic.Subscribe(func(context.Context, *hark.Message[[]byte]) error {
		l.done.Add(1)
		<-room
		return nil
	}, hark.Buffer(benchWindow)); err != nil {
		return err
	}
	err = l.each(func(int) error {
		select {
		case room <- struct{}{}:
			return topic.Publish(ctx, l.data)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	for range benchWindow { // wait until all are handled
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		}
	}
	return err
}

func benchStored(ctx context.Context, l *load) error {
	topic, err := hark.NewTopic[[]byte](l.bus, l.name, hark.Stored(hark.Retention{MaxMessages: 1 << 20}))
	if err != nil {
		return err
	}
	handled, published := make(chan struct{}, 1), atomic.Int64{}
	if _, err := topic.Subscribe(func(context.Context, *hark.Message[[]byte]) error {
		l.done.Add(1)
		select {
		case handled <- struct{}{}:
		default:
		}
		return nil
	}, hark.Group("bench")); err != nil {
		return err
	}
	err = l.each(func(client int) error {
		return l.timed(client, func() error {
			if err := topic.Publish(ctx, l.data); err != nil {
				return err
			}
			published.Add(1)
			return nil
		})
	})
	for err == nil && l.done.Load() < published.Load() {
		select {
		case <-handled:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	return err
}

func benchRequest(ctx context.Context, l *load) error {
	if _, err := hark.Reply(l.bus, l.name, func(_ context.Context, b []byte) ([]byte, error) { return b, nil }, hark.Workers(l.clients)); err != nil {
		return err
	}
	return l.each(func(client int) error {
		return l.timed(client, func() error {
			_, err := hark.Request[[]byte, []byte](ctx, l.bus, l.name, l.data)
			l.done.Add(1)
			return err
		})
	})
}

func benchChan(ctx context.Context, l *load) error {
	ch, err := hark.NewChan[[]byte](l.bus, l.name, 64)
	if err != nil {
		return err
	}
	var receivers sync.WaitGroup
	for range l.clients {
		receivers.Go(func() {
			for range ch.All(ctx) {
				l.done.Add(1)
			}
		})
	}
	err = l.each(func(client int) error {
		return l.timed(client, func() error { return ch.Send(ctx, l.data) })
	})
	err = errors.Join(err, ch.Close())
	receivers.Wait()
	return err
}
