package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// rawClient is a connection with JetStream, set up as an expert would.
type rawClient struct {
	*client.Conn
	js jetstream.JetStream
}

func (s *engineServer) connect() rawClient {
	c, err := client.Connect(s.url)
	must(err)
	js, err := jetstream.New(c, jetstream.WithPublishAsyncMaxPending(1024))
	must(err)
	return rawClient{c, js}
}

// connectTwo starts a server and returns two clients of it, and a function that
// stops everything.
func connectTwo() (in, out rawClient, end func()) {
	s := startServer(false)
	in, out = s.connect(), s.connect()
	return in, out, func() {
		out.Close()
		in.Close()
		s.end()
	}
}

func (c rawClient) stream(name string) jetstream.Stream {
	s, err := c.js.CreateStream(background, jetstream.StreamConfig{Name: name, Subjects: []string{"t"}, AllowBatchPublish: name == fastStream})
	must(err)
	return s
}

// consume acknowledges and counts what a durable consumer receives.
func consume(s jetstream.Stream, all *tally, size int) jetstream.ConsumeContext {
	consumer, err := s.CreateConsumer(background, jetstream.ConsumerConfig{Durable: "g", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1})
	must(err)
	c, err := consumer.Consume(func(m jetstream.Msg) {
		must(m.Ack())
		all.one(m.Data(), size)
	})
	must(err)
	return c
}

func rawEphemeral(size int) peer {
	return peer{name: rawNATS, operate: func(n int) time.Duration {
		in, out, end := connectTwo()
		defer end()
		all, data := newTally(n), make([]byte, size)
		sub, err := in.Subscribe("t", func(m *client.Msg) { all.one(m.Data, size) })
		must(err)
		must(sub.SetPendingLimits(-1, -1))
		must(in.Flush())
		start := time.Now()
		for i := range n {
			must(out.Publish("t", data))
			all.keepPace(i + 1)
		}
		must(out.Flush())
		all.wait()
		return time.Since(start)
	}}
}

// rawEvents is rawEphemeral with the headers of hark's events.
func rawEvents(size int) peer {
	return peer{name: "nats.go, the same headers", operate: func(n int) time.Duration {
		in, out, end := connectTwo()
		defer end()
		all := newTally(n)
		sub, err := in.Subscribe("t", func(m *client.Msg) { all.one(m.Data, size) })
		must(err)
		must(sub.SetPendingLimits(-1, -1))
		must(in.Flush())
		id, at := []string{""}, []string{""}
		m := &client.Msg{Subject: "t", Data: make([]byte, size), Header: client.Header{
			"ce-specversion": {"1.0"}, "ce-id": id, "ce-source": {"/hark"}, "ce-type": {"t"}, "ce-time": at, "ce-datacontenttype": {"application/octet-stream"},
		}}
		prefix := client.NewInbox()[:17] + "-"
		start := time.Now()
		for i := range n {
			id[0], at[0] = prefix+strconv.Itoa(i), time.Now().UTC().Format(time.RFC3339Nano)
			must(out.PublishMsg(m))
			all.keepPace(i + 1)
		}
		must(out.Flush())
		all.wait()
		return time.Since(start)
	}}
}

func rawSingly(size int) peer {
	return peer{name: rawNATS, operate: func(n int) time.Duration {
		in, out, end := connectTwo()
		defer end()
		all, data := newTally(n), make([]byte, size)
		c := consume(in.stream("T"), all, size)
		defer c.Stop()
		start := time.Now()
		for range n {
			_, err := out.js.Publish(background, "t", data)
			must(err)
		}
		all.wait()
		must(in.Flush())
		return time.Since(start)
	}}
}

// publishAsync publishes with a window and returns when everything is stored.
func (c rawClient) publishAsync(n int, data []byte) {
	for range n {
		_, err := c.js.PublishAsync("t", data, jetstream.WithStallWait(waitTimeout))
		must(err)
	}
	<-c.js.PublishAsyncComplete()
}

// publishWaiting publishes from 64 goroutines that wait for each of their messages.
func (c rawClient) publishWaiting(n int, data []byte) {
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for range (n + g) / 64 {
				_, err := c.js.Publish(background, "t", data)
				must(err)
			}
		})
	}
	wg.Wait()
}

// fastStream is a stream that takes fast batches, of which nats.go knows nothing.
const fastStream = "FAST"

// publishFast publishes a single fast batch, at most 1,500 messages ahead of the
// server's reports, which come after 500 messages each. It is the fastest way to store
// messages that we know: nothing waits for a single one.
func (c rawClient) publishFast(n int, data []byte) {
	inbox := client.NewInbox()
	stored, over := make(chan int, n), make(chan struct{}) // all reports have room
	sub, err := c.Subscribe(inbox+".>", func(m *client.Msg) {
		var said struct {
			Type       string
			Seq, Count int
			Error      *jetstream.APIError
		}
		must(json.Unmarshal(m.Data, &said))
		switch {
		case said.Error != nil:
			panic(said.Error)
		case said.Type == "ack":
			stored <- said.Seq
		case said.Count == n:
			close(over)
		default:
			panic(string(m.Data))
		}
	})
	must(err)
	defer func() { must(sub.Unsubscribe()) }()
	for i, known := 1, 0; i <= n; i++ {
		for i > 1 && i-known > 1500 {
			known = <-stored
		}
		operation := 1 // append
		switch i {
		case 1:
			operation = 0 // start
		case n:
			operation = 2 // commit
		}
		must(c.PublishRequest("t", fmt.Sprintf("%s.batch.500.fail.%d.%d.$FI", inbox, i, operation), data))
	}
	<-over
}

// rawByMany publishes in some way to a durable consumer.
func rawByMany(name, stream string, size int, publish func(c rawClient, n int, data []byte)) peer {
	return peer{name: name, operate: func(n int) time.Duration {
		in, out, end := connectTwo()
		defer end()
		all := newTally(n)
		c := consume(in.stream(stream), all, size)
		defer c.Stop()
		start := time.Now()
		publish(out, n, make([]byte, size))
		all.wait()
		must(in.Flush())
		return time.Since(start)
	}}
}

func rawSynced(size int) peer {
	return peer{name: rawAsync, slow: 4, operate: func(n int) time.Duration {
		s := startServer(true)
		defer s.end()
		c := s.connect()
		defer c.Close()
		c.stream("T")
		start := time.Now()
		c.publishAsync(n, make([]byte, size))
		return time.Since(start)
	}}
}

// rawRead reads what a stream holds, either with acknowledgements or with an
// ordered consumer, which needs none.
func rawRead(name string, size int, ordered bool) peer {
	return peer{name: name, operate: func(n int) time.Duration {
		in, out, end := connectTwo()
		defer end()
		stream := in.stream("T")
		out.publishAsync(n, make([]byte, size))
		all := newTally(n)
		start := time.Now()
		if ordered {
			consumer, err := in.js.OrderedConsumer(background, "T", jetstream.OrderedConsumerConfig{})
			must(err)
			c, err := consumer.Consume(func(m jetstream.Msg) { all.one(m.Data(), size) })
			must(err)
			defer c.Stop()
			all.wait()
			return time.Since(start)
		}
		c := consume(stream, all, size)
		defer c.Stop()
		all.wait()
		must(in.Flush())
		return time.Since(start)
	}}
}

var rawRequests = peer{name: rawNATS, ask: func(n int) []time.Duration {
	in, out, end := connectTwo()
	defer end()
	_, err := in.Subscribe("t", func(m *client.Msg) { must(m.Respond(m.Data)) })
	must(err)
	must(in.Flush())
	data := make([]byte, 128)
	return timed(n, func() {
		_, err := out.RequestWithContext(background, "t", data)
		must(err)
	})
}}

// timed calls f n times, after a few calls that do not count, and returns how
// long each took.
func timed(n int, f func()) []time.Duration {
	for range n/10 + 1 {
		f()
	}
	took := make([]time.Duration, n)
	for i := range took {
		start := time.Now()
		f()
		took[i] = time.Since(start)
	}
	return took
}
