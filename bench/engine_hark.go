package main

import (
	"context"
	"encoding/binary"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/filedriver"
	"github.com/harkbus/hark/driver/natsdriver"
)

const (
	harkBare      = "hark, Bare"
	harkFile      = "hark, file:"
	harkTCP       = "hark, over TCP"
	harkUnordered = "hark"
	harkKeyed     = "hark, in order by key"
)

// open returns a bus over the server.
func (s *engineServer) open(opts ...natsdriver.Option) *hark.Bus {
	conn, err := natsdriver.Open(background, s.url, opts...)
	must(err)
	return hark.Over(conn)
}

// openTwo starts a server and returns two buses over it, and a function that
// stops everything.
func openTwo() (in, out *hark.Bus, end func()) {
	s := startServer(false)
	in, out = s.open(), s.open()
	return in, out, func() {
		closeBus(out)
		closeBus(in)
		s.end()
	}
}

func closeBus(b *hark.Bus) {
	ctx, cancel := context.WithTimeout(background, waitTimeout)
	defer cancel()
	must(b.Close(ctx))
}

func newBytes(b *hark.Bus, opts ...hark.TopicOption) *hark.Topic[[]byte] {
	t, err := hark.NewTopic[[]byte](b, "t", opts...)
	must(err)
	return t
}

func counter(all *tally, size int) hark.Handler[[]byte] {
	return func(_ context.Context, m *hark.Message[[]byte]) error {
		all.one(m.Value, size)
		return nil
	}
}

func harkEphemeral(name string, size int, opts ...hark.TopicOption) peer {
	return peer{name: name, operate: func(n int) time.Duration {
		in, out, end := openTwo()
		defer end()
		all, data := newTally(n), make([]byte, size)
		_, err := newBytes(in, opts...).Subscribe(counter(all, size))
		must(err)
		to := newBytes(out, opts...)
		start := time.Now()
		for i := range n {
			must(to.Publish(background, data))
			all.keepPace(i + 1)
		}
		all.wait()
		return time.Since(start)
	}}
}

// relaxed is the durability that a server gives by default, which is what
// nats.go gets.
func relaxed(opts ...hark.TopicOption) []hark.TopicOption {
	return append(opts, hark.Stored(hark.Retention{Durability: hark.Relaxed}))
}

// harkStored publishes from several goroutines, some messages at a time, to a group
// until everything is acknowledged.
func harkStored(name string, size, publishers, batch int, opts ...hark.TopicOption) peer {
	return peer{name: name, operate: func(n int) time.Duration {
		in, out, end := openTwo()
		defer end()
		all := newTally(n)
		sub, err := newBytes(in, relaxed(opts...)...).Subscribe(counter(all, size), hark.Group("g"))
		must(err)
		to := newBytes(out, relaxed(opts...)...)
		start := time.Now()
		publishFromMany(to, n, publishers, batch, size)
		all.wait()
		must(sub.Drain(background))
		return time.Since(start)
	}}
}

// publishFromMany publishes n messages from several goroutines, a batch at a time.
func publishFromMany(to *hark.Topic[[]byte], n, publishers, batch, size int) {
	data := slices.Repeat([][]byte{make([]byte, size)}, batch)
	var wg sync.WaitGroup
	for g := range publishers {
		wg.Go(func() {
			for left := (n + g) / publishers; left > 0; left -= batch {
				if batch == 1 {
					must(to.Publish(background, data[0]))
				} else {
					must(to.PublishAll(background, data[:min(left, batch)]))
				}
			}
		})
	}
	wg.Wait()
}

// fill stores n messages. The first bytes of each hold its number.
func fill(to *hark.Topic[[]byte], n, size int) {
	for from := 0; from < n; from += 1000 {
		batch := make([][]byte, 0, 1000)
		for i := from; i < min(n, from+1000); i++ {
			data := make([]byte, size)
			binary.LittleEndian.PutUint64(data, uint64(i))
			batch = append(batch, data)
		}
		must(to.PublishAll(background, batch))
	}
}

func harkRead(size int) peer {
	return peer{name: plainHark, operate: func(n int) time.Duration {
		in, out, end := openTwo()
		defer end()
		fill(newBytes(out, relaxed(hark.Bare())...), n, size)
		from := newBytes(in, relaxed(hark.Bare())...)
		all := newTally(n)
		start := time.Now()
		_, err := from.Subscribe(counter(all, size), hark.FromStart())
		must(err)
		all.wait()
		return time.Since(start)
	}}
}

// harkSynced publishes to a server that always syncs, or to a directory.
func harkSynced(name string, size int, directory bool) peer {
	return peer{name: name, operate: func(n int) time.Duration {
		b, end := openOne(directory, true)
		defer end()
		to := newBytes(b, hark.Stored(hark.Retention{Durability: hark.Strict}), hark.Bare())
		start := time.Now()
		publishFromMany(to, n, 64, 1, size)
		return time.Since(start)
	}}
}

// openOne returns a bus over a directory, or over a server that always syncs or
// does not, and a function that stops both.
func openOne(directory, sync bool) (b *hark.Bus, end func()) {
	if directory {
		dir, err := os.MkdirTemp("", "hark-bench-")
		must(err)
		conn, err := filedriver.Open(background, dir)
		must(err)
		b = hark.Over(conn)
		return b, func() {
			closeBus(b)
			must(os.RemoveAll(dir))
		}
	}
	s := startServer(sync)
	var opts []natsdriver.Option
	if sync {
		opts = append(opts, natsdriver.SyncAlways())
	}
	b = s.open(opts...)
	return b, func() {
		closeBus(b)
		s.end()
	}
}

func harkGroup(name string, size int, opts ...hark.TopicOption) peer {
	return peer{name: name, operate: func(n int) time.Duration {
		s := startServer(false)
		defer s.end()
		out := s.open()
		defer closeBus(out)
		// The messages have keys in either case.
		fill(newBytes(out, relaxed(hark.Bare(), keyed)...), n, size)
		all := newTally(n)
		topics := make([]*hark.Topic[[]byte], 4)
		for i := range topics {
			b := s.open()
			defer closeBus(b)
			topics[i] = newBytes(b, relaxed(append(opts, hark.Bare())...)...)
		}
		start := time.Now()
		subs := make([]*hark.Subscription, len(topics))
		for i, t := range topics {
			var err error
			subs[i], err = t.Subscribe(counter(all, size), hark.Group("g"), hark.FromStart())
			must(err)
		}
		all.wait()
		for _, sub := range subs {
			must(sub.Drain(background))
		}
		return time.Since(start)
	}}
}

// keyed spreads the numbers of fill over 1,000 keys.
var keyed = hark.KeyBy(func(data []byte) string { return strconv.Itoa(int(binary.LittleEndian.Uint64(data) % 1000)) })

var harkRequests = peer{name: plainHark, ask: func(n int) []time.Duration {
	in, out, end := openTwo()
	defer end()
	_, err := hark.Reply(in, "t", func(_ context.Context, data []byte) ([]byte, error) { return data, nil })
	must(err)
	data := make([]byte, 128)
	return timed(n, func() {
		_, err := hark.Request[[]byte, []byte](background, out, "t", data)
		must(err)
	})
}}

// harkSingly publishes one message at a time, to a directory or over TCP.
func harkSingly(name string, size int, directory bool) peer {
	return peer{name: name, operate: func(n int) time.Duration {
		b, end := openOne(directory, false)
		defer end()
		to := newBytes(b, relaxed(hark.Bare())...)
		start := time.Now()
		publishFromMany(to, n, 1, 1, size)
		return time.Since(start)
	}}
}
