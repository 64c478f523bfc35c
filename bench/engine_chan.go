package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark"
)

// Channels over engines: eight senders and eight receivers on one connection
// per side, as in the prototypes from which their goal was derived.

const chanEnds = 8

// chanSize is the size of the values in bytes.
const chanSize = 128

func chansOf(capacity int) []peer {
	if capacity == 0 {
		return []peer{rawRendezvous, harkEngineChan(0)}
	}
	return []peer{rawChan(rawPrototype, capacity, false), rawChan(rawConfirmed, capacity, true), harkEngineChan(capacity)}
}

const (
	rawPrototype = "nats.go, prototype"
	rawConfirmed = "nats.go, prototype that confirms"
)

func harkEngineChan(capacity int) peer {
	return peer{name: plainHark, operate: func(n int) time.Duration {
		in, out, end := openTwo()
		defer end()
		open := func(b *hark.Bus) *hark.Chan[[]byte] {
			c, err := hark.NewChan[[]byte](b, "c", capacity, hark.Memory)
			must(err)
			return c
		}
		from, to := open(in), open(out)
		return exchange(n, func(data []byte) { must(to.Send(background, data)) }, func(ctx context.Context) ([]byte, bool) {
			data, err := from.Receive(ctx)
			return data, err == nil
		})
	}}
}

// exchange sends n values from eight goroutines to eight others, and returns
// the time until all have been received.
func exchange(n int, send func([]byte), receive func(context.Context) ([]byte, bool)) time.Duration {
	each := n / chanEnds
	all, data := newTally(each*chanEnds), make([]byte, chanSize)
	ctx, cancel := context.WithCancel(background)
	var wg sync.WaitGroup
	start := time.Now()
	for range chanEnds {
		wg.Go(func() {
			for {
				data, ok := receive(ctx)
				if !ok {
					return
				}
				all.one(data, chanSize)
			}
		})
		wg.Go(func() {
			for range each {
				send(data)
			}
		})
	}
	all.wait()
	took := time.Since(start)
	cancel()
	wg.Wait()
	return took
}

// rawChan is the simplest bounded channel on nats.go: a work queue that refuses
// what it has no room for. Its senders learn of room by sampling
// acknowledgements. It cannot be closed. Unless it confirms, its receivers do
// not wait for the server to process an acknowledgement, so a value may be
// received twice, unlike in hark's channel.
func rawChan(name string, capacity int, confirms bool) peer {
	return peer{name: name, operate: func(n int) time.Duration {
		in, out, end := connectTwo()
		defer end()
		consumer := in.queue(capacity)
		var waiting room
		samples, err := out.Subscribe("$JS.EVENT.METRIC.CONSUMER.ACK.T.r", func(*client.Msg) { waiting.wake() })
		must(err)
		must(samples.SetPendingLimits(-1, -1))
		must(out.Flush())
		return exchange(n, func(data []byte) {
			for {
				woken := waiting.enter()
				_, err := out.js.Publish(background, "t", data)
				if err == nil {
					waiting.leave(woken)
					return
				}
				if api := (*jetstream.APIError)(nil); !errors.As(err, &api) || api.ErrorCode != 10077 {
					panic(err)
				}
				select {
				case <-woken:
				case <-time.After(100 * time.Millisecond):
					waiting.leave(woken)
				}
			}
		}, func(ctx context.Context) ([]byte, bool) {
			m, err := consumer.Next(jetstream.FetchContext(ctx))
			if err != nil {
				return nil, false
			}
			if confirms {
				must(m.DoubleAck(background))
			} else {
				must(m.Ack())
			}
			return m.Data(), true
		})
	}}
}

// queue creates the stream and the consumer of a prototype.
func (c rawClient) queue(capacity int) jetstream.Consumer {
	cfg := jetstream.StreamConfig{
		Name: "T", Subjects: []string{"t"}, Storage: jetstream.MemoryStorage, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
	}
	if capacity > 0 {
		cfg.DiscardNewPerSubject, cfg.MaxMsgsPerSubject = true, int64(capacity)
	}
	s, err := c.js.CreateStream(background, cfg)
	must(err)
	consumer, err := s.CreateConsumer(background, jetstream.ConsumerConfig{
		Durable: "r", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1, MaxWaiting: 1 << 16, SampleFrequency: "100%",
	})
	must(err)
	return consumer
}

// room holds the senders that wait for room, in order.
type room struct {
	mu      sync.Mutex // guards waiting
	waiting []chan struct{}
}

func (r *room) enter() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := make(chan struct{})
	r.waiting = append(r.waiting, ch)
	return ch
}

func (r *room) leave(ch chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, other := range r.waiting {
		if other == ch {
			r.waiting = append(r.waiting[:i], r.waiting[i+1:]...)
			return
		}
	}
}

func (r *room) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) > 0 {
		close(r.waiting[0])
		r.waiting = r.waiting[1:]
	}
}

// rawRendezvous is a channel of capacity 0 on nats.go: a work queue in which
// each sender waits until a receiver reports that it has the value.
var rawRendezvous = peer{name: rawPrototype, operate: func(n int) time.Duration {
	in, out, end := connectTwo()
	defer end()
	consumer := in.queue(0)
	var taken sync.Map // channels to close, by subject
	inbox := out.NewInbox()
	sub, err := out.Subscribe(inbox+".*", func(m *client.Msg) {
		if ch, ok := taken.LoadAndDelete(m.Subject); ok {
			close(ch.(chan struct{}))
		}
	})
	must(err)
	must(sub.SetPendingLimits(-1, -1))
	must(out.Flush())
	var last atomic.Int64
	return exchange(n, func(data []byte) {
		ch := make(chan struct{})
		id := fmt.Sprintf("%s.%d", inbox, last.Add(1))
		taken.Store(id, ch)
		m := client.NewMsg("t")
		m.Data = data
		m.Header.Set("taken", id)
		_, err := out.js.PublishMsg(background, m)
		must(err)
		<-ch
	}, func(ctx context.Context) ([]byte, bool) {
		m, err := consumer.Next(jetstream.FetchContext(ctx))
		if err != nil {
			return nil, false
		}
		must(in.Publish(m.Headers().Get("taken"), nil))
		must(m.Ack())
		return m.Data(), true
	})
}}
