package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/broker"
	"github.com/harkbus/hark/testdata"
)

// The rest of this file measures the routes of a broker with real webhooks,
// beside programs in the same place that do the same by hand. The broker is in
// this process. What is published arrives over the loopback interface, and what
// is received leaves over it.

const (
	plainRelay = "nats.go, relay"
	relayLoop  = "nats.go, consume, publish, ack"
	relayBatch = "nats.go, batches of 256"
	oneRule    = "hark, 1 rule"
	manyRules  = "hark, 10000 rules"
)

var (
	routesEphemeral = workload{
		name: "routes, ephemeral", units: []string{"ns"}, messages: 30_000, baseline: plainRelay, run: carrying,
		peers: []peer{relayed(), routed(1), routed(100), routed(10_000)},
		note: "Webhooks of 2 to 27 kB from a publisher through the broker to a subscriber, at most 512 on their way; one rule takes each. " +
			"The relay is a client in the server's process that publishes what it gets to another subject, without looking at it.",
	}
	routesStored = workload{
		name: "routes, stored", units: []string{"ns"}, messages: 3_000, baseline: relayLoop, run: carrying,
		peers: []peer{consumed(), consumedInBatches(), routedStored(1), routedStored(100), routedStored(10_000)},
		note: "The same webhooks from a stored topic to a stored topic, each on disk in the target before it is acknowledged. " +
			"By hand it is a client in the server's process: one message after the other, or 256 that are published without waiting and then acknowledged.",
	}
)

// webhooks returns the payloads that one rule of each set takes.
func webhooks() (all [][]byte) {
	for line := range bytes.Lines(testdata.GitHubWebhooks) {
		var delivery struct {
			Payload json.RawMessage
		}
		must(json.Unmarshal(line, &delivery))
		if bytes.Contains(delivery.Payload, []byte(`"sender":`)) {
			all = append(all, delivery.Payload)
		}
	}
	return all
}

// rules returns n rules. One of them takes each webhook; the others take none,
// because they ask for repositories, senders, actions and sizes that do not
// occur.
func rules(n int) []broker.RouteConfig {
	all := []broker.RouteConfig{{From: "in", To: []string{"out"}, Where: `data.sender.login != "nobody"`}}
	for i := range n - 1 {
		var where string
		switch i % 10 {
		case 0, 1, 2:
			where = fmt.Sprintf(`data.repository.full_name == "tenant-%d/service"`, i)
		case 3, 4:
			where = fmt.Sprintf(`data.action == "opened" && data.repository.full_name == "tenant-%d/service"`, i)
		case 5, 6:
			where = fmt.Sprintf(`data.sender.login in ["bot-%d", "bot-%d"]`, i, i+1)
		case 7:
			where = fmt.Sprintf(`data.repository.html_url.startsWith("https://git.example/tenant-%d/")`, i)
		case 8:
			where = fmt.Sprintf(`data.sender.id > %d && data.sender.id < %d`, int64(1)<<50+int64(i), int64(1)<<50+int64(i)+2)
		default:
			where = fmt.Sprintf(`data.repository.id == %d || data.organization.login == "tenant-%d"`, int64(1)<<50+int64(i), i)
		}
		all = append(all, broker.RouteConfig{From: "in", To: []string{fmt.Sprintf("tenant.%d", i)}, Where: where})
	}
	return all
}

// place is where messages are routed: a broker, or the server that it embeds.
type place struct {
	url    string
	broker *broker.Broker
	config *broker.Config
	server *server.Server
	dir    string
}

func startBroker(topics []broker.TopicConfig, routes []broker.RouteConfig) *place {
	dir, err := os.MkdirTemp("", "hark-bench-")
	must(err)
	c := broker.Default()
	c.Listen, c.HTTP, c.Data, c.Topics, c.Routes = "127.0.0.1:0", "off", dir, topics, routes
	b, err := broker.New(c, nil)
	must(err)
	must(b.Start(background))
	return &place{url: "nats://" + b.Addr().String(), broker: b, config: c, dir: dir}
}

// startEmbedded starts the server with the options that the broker uses.
func startEmbedded() *place {
	dir, err := os.MkdirTemp("", "hark-bench-")
	must(err)
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: dir, SyncAlways: true,
		MaxPayload: 8 << 20, MaxPending: 256 << 20,
	})
	must(err)
	s.Start()
	if !s.ReadyForConnections(waitTimeout) {
		panic("the NATS server does not start")
	}
	return &place{url: s.ClientURL(), server: s, dir: dir}
}

func (p *place) end() {
	if p.broker != nil {
		must(p.broker.Stop(background))
	} else {
		p.server.Shutdown()
		p.server.WaitForShutdown()
	}
	must(os.RemoveAll(p.dir))
}

// reload replaces the broker's routes.
func (p *place) reload(routes []broker.RouteConfig) {
	next := *p.config
	next.Routes = routes
	must(p.broker.Reload(background, &next))
}

func (p *place) connect(opts ...client.Option) rawClient {
	c, err := client.Connect(p.url, opts...)
	must(err)
	js, err := jetstream.New(c, jetstream.WithPublishAsyncMaxPending(1024))
	must(err)
	return rawClient{c, js}
}

// inside connects to the server within the process.
func (p *place) inside() rawClient { return p.connect(client.InProcessServer(p.server)) }

// maxOnTheWay is how far a publisher of webhooks may be ahead of their
// subscriber, in messages.
const maxOnTheWay = 512

// stream publishes n webhooks to in and returns the time until they have come
// out.
func (b *place) stream(n int) time.Duration {
	in, out := b.connect(), b.connect()
	defer in.Close()
	defer out.Close()
	var size atomic.Int64
	all, room := newTally(n), make(chan struct{}, maxOnTheWay)
	sub, err := out.Subscribe("out", func(m *client.Msg) {
		size.Add(int64(len(m.Data)))
		<-room
		all.one(nil, 0)
	})
	must(err)
	must(sub.SetPendingLimits(-1, -1))
	must(out.Flush())
	payloads, sent := webhooks(), int64(0)
	start := time.Now()
	for i := range n {
		select {
		case room <- struct{}{}:
		default:
			must(in.Flush())
			room <- struct{}{}
		}
		data := payloads[i%len(payloads)]
		sent += int64(len(data))
		must(in.Publish("in", data))
	}
	must(in.Flush())
	all.wait()
	took := time.Since(start)
	if got := size.Load(); got != sent {
		panic(fmt.Sprintf("%d bytes came of %d", got, sent))
	}
	return took
}

// relayed is what the server can do alone.
func relayed() peer {
	return peer{name: plainRelay, operate: func(n int) time.Duration {
		b := startEmbedded()
		defer b.end()
		relay := b.inside()
		defer relay.Close()
		sub, err := relay.Subscribe("in", func(m *client.Msg) {
			must(relay.PublishMsg(&client.Msg{Subject: "out", Header: m.Header, Data: m.Data}))
		})
		must(err)
		must(sub.SetPendingLimits(-1, -1))
		must(relay.Flush())
		return b.stream(n)
	}}
}

// routed is a broker with n rules.
func routed(n int) peer {
	return peer{name: ruleName(n), operate: func(messages int) time.Duration {
		b := startBroker(nil, rules(n))
		defer b.end()
		return b.stream(messages)
	}}
}

func ruleName(n int) string {
	if n == 1 {
		return oneRule
	}
	return fmt.Sprintf("hark, %d rules", n)
}

// The streams of the topics of webhooks.
const inStream, outStream = "hark-topic-in", "hark-topic-out"

// fill stores n webhooks in the stream in, with a group that starts at the
// first of them.
func (b *place) fill(n int, group string) {
	c := b.connect()
	defer c.Close()
	payloads := webhooks()
	for i := range n {
		_, err := c.js.PublishAsync("in", payloads[i%len(payloads)], jetstream.WithStallWait(waitTimeout))
		must(err)
	}
	<-c.js.PublishAsyncComplete()
	_, err := c.js.CreateConsumer(background, inStream, jetstream.ConsumerConfig{
		Durable: group, AckPolicy: jetstream.AckExplicitPolicy, AckWait: 30 * time.Second, MaxAckPending: -1, MaxDeliver: -1,
	})
	must(err)
}

// drained waits until all n messages are in the target and acknowledged, and
// returns the time since the first of them was in it.
func (b *place) drained(c rawClient, group string, n int) time.Duration {
	for late := time.Now().Add(waitTimeout); ; time.Sleep(2 * time.Millisecond) {
		consumer, err := c.js.Consumer(background, inStream, group)
		must(err)
		at := consumer.CachedInfo().AckFloor.Stream
		if at == uint64(n) {
			break
		}
		if time.Now().After(late) {
			panic(fmt.Sprintf("%d of %d messages were routed", at, n))
		}
	}
	now := time.Now()
	out, err := c.js.Stream(background, outStream)
	must(err)
	state := out.CachedInfo().State
	if state.Msgs != uint64(n) {
		panic(fmt.Sprintf("%d messages are in the target, not %d", state.Msgs, n))
	}
	return now.Sub(state.FirstTime)
}

// routedStored is a broker with n rules on a stored topic.
func routedStored(n int) peer {
	return peer{name: ruleName(n), operate: func(messages int) time.Duration {
		const group = "hark-routes"
		b := startBroker([]broker.TopicConfig{{Name: "in"}, {Name: "out"}}, nil)
		defer b.end()
		b.fill(messages, group)
		c := b.connect()
		defer c.Close()
		b.reload(rules(n))
		return b.drained(c, group, messages)
	}}
}

// byHand measures a program that copies n messages from one stream to another.
func byHand(name string, copies func(c rawClient, from jetstream.Consumer, n int)) peer {
	return peer{name: name, operate: func(n int) time.Duration {
		const group = "g"
		b := startEmbedded()
		defer b.end()
		c := b.inside()
		defer c.Close()
		for stream, subject := range map[string]string{inStream: "in", outStream: "out"} {
			_, err := c.js.CreateStream(background, jetstream.StreamConfig{Name: stream, Subjects: []string{subject}})
			must(err)
		}
		b.fill(n, group)
		consumer, err := c.js.Consumer(background, inStream, group)
		must(err)
		copies(c, consumer, n)
		return b.drained(c, group, n)
	}}
}

// consumed is the loop that one writes by hand.
func consumed() peer {
	return byHand(relayLoop, func(c rawClient, from jetstream.Consumer, n int) {
		it, err := from.Messages()
		must(err)
		defer it.Stop()
		for range n {
			m, err := it.Next()
			must(err)
			_, err = c.js.PublishMsg(background, &client.Msg{Subject: "out", Header: m.Headers(), Data: m.Data()})
			must(err)
			must(m.Ack())
		}
	})
}

// consumedInBatches is the loop of someone who knows what waiting costs.
func consumedInBatches() peer {
	return byHand(relayBatch, func(c rawClient, from jetstream.Consumer, n int) {
		for done := 0; done < n; {
			batch, err := from.Fetch(min(256, n-done), jetstream.FetchMaxWait(waitTimeout))
			must(err)
			var ms []jetstream.Msg
			for m := range batch.Messages() {
				_, err := c.js.PublishMsgAsync(&client.Msg{Subject: "out", Header: m.Headers(), Data: m.Data()}, jetstream.WithStallWait(waitTimeout))
				must(err)
				ms = append(ms, m)
			}
			must(batch.Error())
			<-c.js.PublishAsyncComplete()
			for _, m := range ms {
				must(m.Ack())
			}
			done += len(ms)
		}
	})
}
