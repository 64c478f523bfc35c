package main

import (
	"errors"
	"sync"
	"time"

	wm "github.com/ThreeDotsLabs/watermill"
	wmjs "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/jetstream"
	wmnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	wmsg "github.com/ThreeDotsLabs/watermill/message"
	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/natspubsub"

	"github.com/harkbus/hark"
)

func ephemeral(size int) []peer {
	return []peer{rawEphemeral(size), rawEvents(size), harkEphemeral(harkBare, size, hark.Bare()), harkEphemeral(plainHark, size), watermillEphemeral(size), cloudEphemeral(size)}
}

func storedSingly(size int) []peer {
	return []peer{rawSingly(size), harkStored(harkBare, size, 1, 1, hark.Bare()), harkStored(plainHark, size, 1, 1), watermillStored(watermillJetStream, size, 1)}
}

func storedByMany(size int) []peer {
	return []peer{
		rawByMany(rawAsync, "T", size, rawClient.publishAsync),
		rawByMany("nats.go, 64 goroutines", "T", size, rawClient.publishWaiting),
		rawByMany("nats.go, one fast batch by hand", fastStream, size, rawClient.publishFast),
		harkStored(harkBare, size, 64, 1, hark.Bare()), harkStored("hark, Bare, 16 messages each", size, 64, 16, hark.Bare()), harkStored(plainHark, size, 64, 1),
		watermillStored(watermillJetStream, size, 64), watermillStored(watermillSingly, size, 1),
	}
}

func readInOrder(size int) []peer {
	return []peer{rawRead(rawNATS, size, false), rawRead("nats.go, ordered consumer", size, true), harkRead(size)}
}

func synced(size int) []peer {
	return []peer{rawSynced(size), harkSynced(harkFile, size, true), harkSynced(harkTCP, size, false)}
}

func groupOfFour(size int) []peer {
	return []peer{harkGroup(harkUnordered, size), harkGroup(harkKeyed, size, keyed)}
}

var requests = []peer{rawRequests, harkRequests}

func inDirectory(size int) []peer {
	return []peer{harkSingly(harkTCP, size, false), harkSingly(harkFile, size, true)}
}

const (
	watermillCore      = "Watermill, NATS core"
	watermillJetStream = "Watermill, JetStream"
	watermillSingly    = "Watermill, JetStream, one goroutine"
)

// work receives and counts the messages from Watermill.
func work(ms <-chan *wmsg.Message, all *tally, size int) {
	for m := range ms {
		m.Ack()
		all.one(m.Payload, size)
	}
}

func newPayload(size int) *wmsg.Message {
	return wmsg.NewMessage(wm.NewShortUUID(), make([]byte, size))
}

func watermillEphemeral(size int) peer {
	return peer{name: watermillCore, slow: 16, operate: func(n int) time.Duration {
		s := startServer(false)
		defer s.end()
		core := wmnats.JetStreamConfig{Disabled: true}
		conn := s.connect() // our own connection, because Subscribe does not wait until the server knows of the subscription
		config := wmnats.SubscriberConfig{JetStream: core, SubjectCalculator: wmnats.DefaultSubjectCalculator, Unmarshaler: &wmnats.NATSMarshaler{}}
		in, err := wmnats.NewSubscriberWithNatsConn(conn.Conn, config.GetSubscriberSubscriptionConfig(), wm.NopLogger{})
		must(err)
		out, err := wmnats.NewPublisher(wmnats.PublisherConfig{URL: s.url, JetStream: core}, wm.NopLogger{})
		must(err)
		all := newTally(n)
		ms, err := in.Subscribe(background, "t")
		must(err)
		must(conn.Flush())
		var wg sync.WaitGroup
		wg.Go(func() { work(ms, all, size) })
		start := time.Now()
		for i := range n {
			must(out.Publish("t", newPayload(size)))
			all.keepPace(i + 1)
		}
		all.wait()
		took := time.Since(start)
		must(out.Close())
		must(in.Close())
		wg.Wait()
		return took
	}}
}

func watermillStored(name string, size, publishers int) peer {
	return peer{name: name, slow: 8, operate: func(n int) time.Duration {
		s := startServer(false)
		defer s.end()
		c := s.connect()
		defer c.Close()
		c.stream("t") // Watermill publishes to the subject with the name of the stream
		in, err := wmjs.NewSubscriber(wmjs.SubscriberConfig{URL: s.url, Logger: wm.NopLogger{}, AckAsync: true})
		must(err)
		out, err := wmjs.NewPublisher(wmjs.PublisherConfig{URL: s.url, Logger: wm.NopLogger{}})
		must(err)
		each := n / publishers
		all := newTally(each * publishers)
		ms, err := in.Subscribe(background, "t")
		must(err)
		var wg sync.WaitGroup
		wg.Go(func() { work(ms, all, size) })
		start := time.Now()
		var publishing sync.WaitGroup
		for range publishers {
			publishing.Go(func() {
				for range each {
					must(out.Publish("t", newPayload(size)))
				}
			})
		}
		publishing.Wait()
		all.wait()
		took := time.Since(start)
		must(out.Close())
		must(in.Close())
		wg.Wait()
		return took
	}}
}

// cloudEphemeral is the Go Cloud Development Kit. Its Send waits for the
// client, so 16 goroutines send.
func cloudEphemeral(size int) peer {
	return peer{name: "Go CDK natspubsub, 16 senders", slow: 32, operate: func(n int) time.Duration {
		in, out, end := connectTwo()
		defer end()
		sub, err := natspubsub.OpenSubscriptionV2(in.Conn, "t", nil)
		must(err)
		must(in.Flush())
		topic, err := natspubsub.OpenTopicV2(out.Conn, "t", nil)
		must(err)
		const senders = 16
		each := n / senders
		all, data := newTally(each*senders), make([]byte, size)
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				m, err := sub.Receive(background)
				if err != nil {
					return // the subscription was shut down
				}
				m.Ack()
				all.one(m.Body, size)
			}
		})
		start := time.Now()
		var sending sync.WaitGroup
		for range senders {
			sending.Go(func() {
				for range each {
					must(topic.Send(background, &pubsub.Message{Body: data}))
				}
			})
		}
		sending.Wait()
		all.wait()
		took := time.Since(start)
		must(errors.Join(topic.Shutdown(background), sub.Shutdown(background)))
		wg.Wait()
		return took
	}}
}
