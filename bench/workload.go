package main

import (
	"errors"
	"runtime"
	"sync"
	"time"
)

// workload is one question, put to every contender that can answer it.
type workload struct {
	name     string
	units    []string // of the figures that run returns
	parts    []string // names of the figures, if there are several
	messages int      // timed in one run, unless the contender is slow
	fixed    bool     // messages is part of the question, and no flag changes it
	runs     int      // most runs, if the figure hardly varies and takes long; 0 for as many as asked for
	peers    []peer
	baseline string // the contender with which the others are compared
	note     string
	run      runner
}

// runner asks a peer once. It returns errUnable if the peer does not take part,
// and another error if messages were lost, duplicated, damaged or reordered.
type runner func(p peer, messages int) (outcome, error)

// outcome is the result of one run of one contender.
type outcome struct {
	figures  []float64
	allocs   float64 // per delivered message; -1 if that means nothing
	disorder float64 // share of the messages that arrived out of order
}

var errUnable = errors.New("the contender cannot do this")

// channel1024 is the name of the peer that most are compared with.
const channel1024 = "channel 1024"

var workloads = []workload{
	{name: "A 1→1", units: []string{"ns"}, messages: 2_000_000, peers: buses, baseline: channel1024, run: streaming(1, 1)},
	{name: "B 1→10, per delivery", units: []string{"ns"}, messages: 200_000, peers: buses, baseline: channel1024, run: streaming(1, 10)},
	{name: "C 4→1", units: []string{"ns"}, messages: 2_000_000, peers: buses, baseline: channel1024, run: streaming(4, 1)},
	{name: "D 4→4 group", units: []string{"ns"}, messages: 1_000_000, peers: buses, baseline: channel1024, run: grouped(4, 4)},
	{name: "E publish, nobody listens", units: []string{"ns"}, messages: 4_000_000, peers: buses, run: publishing},
	{
		name: "F ping-pong", units: []string{"ns", "ns"}, parts: []string{"p50", "p99"}, messages: 100_000, peers: buses, baseline: channel1024, run: pingpong,
		note: "A round trip, each timed by itself; the two readings of the clock are part of it.",
	},
	{
		name: "G idle subscription", units: []string{"bytes", "goroutines", "ns"}, parts: []string{"memory", "goroutines", "closing"}, messages: 10_000, fixed: true, peers: buses, baseline: channel1024, run: idling,
		note: "Channels have a buffer of 16 here, other peers what they have by default.",
	},
	{name: "G a million idle subscriptions", units: []string{"MB"}, messages: 1_000_000, fixed: true, runs: 2, peers: []peer{harkTopic, harkManyTopics}, run: idlingTogether},
	{
		name: "H 10,000 topics", units: []string{"ns"}, messages: 1_000_000, peers: buses, baseline: channel1024, run: circling,
		note: "One subscriber each, published to in turn. Channels have a buffer of 16 here.",
	},
	{name: "P publish beside patterns", units: []string{"ns"}, messages: 2_000_000, peers: besidePatterns, baseline: noPatterns, run: streaming(1, 1)},
	{name: "P new topic beside patterns", units: []string{"ns"}, messages: 10_000, fixed: true, peers: newTopicBesidePatterns, baseline: noPatterns, run: operating},
	{name: "K channel, capacity 0", units: []string{"ns"}, messages: 500_000, peers: rendezvousChannels, baseline: builtin, run: streaming(1, 1)},
	{name: "K channel, capacity 1024", units: []string{"ns"}, messages: 1_000_000, peers: boundedChannels, baseline: builtin, run: streaming(1, 1)},
	{name: "K channel, unbounded", units: []string{"ns"}, messages: 500_000, peers: unboundedChannels, baseline: chanxUnbounded, run: streaming(1, 1)},
	{name: "K channel, capacity 0, 4→4", units: []string{"ns"}, messages: 500_000, peers: rendezvousChannels, baseline: builtin, run: grouped(4, 4)},
	{name: "K channel, capacity 1024, 4→4", units: []string{"ns"}, messages: 1_000_000, peers: boundedChannels, baseline: builtin, run: grouped(4, 4)},
	{name: "N notify, nobody listens", units: []string{"ns"}, messages: 4_000_000, peers: toNobody, baseline: mutexMap, run: operating},
	{
		name: "N wake a goroutine", units: []string{"ns"}, messages: 200_000, peers: wakeUps, baseline: channel1, run: operating,
		note: "And hear back through a channel of capacity 1.",
	},
	{name: "V get", units: []string{"ns"}, messages: 20_000_000, peers: gets, baseline: pointer, run: operating},
	{name: "V set, nobody waits", units: []string{"ns"}, messages: 4_000_000, peers: sets, baseline: mutex, run: operating},
	{name: "V set, ten observers", units: []string{"ns"}, messages: 1_000_000, peers: observing, baseline: plainCalls, run: operating},
	routesEphemeral,
	routesStored,
}

// buses are the contenders of most workloads.
var buses = []peer{
	harkTopic, harkPublisher, harkBatch,
	inline, channel, unbuffered, bounded, unbounded,
	kelindar, cskr, asaskevich, asaskevichSync, watermill, gookit, teivah, libp2p, nats,
}

// partName returns the name of a figure of the workload.
func (w *workload) partName(i int) string {
	if i >= len(w.parts) {
		return w.name
	}
	return w.name + ", " + w.parts[i]
}

// publishFrom publishes from every publisher, each in a goroutine of its own.
func publishFrom(s session, from, to uint64) {
	if len(s.publish) == 1 {
		s.publish[0](from, to)
		return
	}
	var wg sync.WaitGroup
	for _, publish := range s.publish {
		wg.Go(func() { publish(from, to) })
	}
	wg.Wait()
}

// counted returns what f returns and the number of objects that were allocated.
func counted(f func() (time.Duration, error)) (took time.Duration, mallocs float64, err error) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	took, err = f()
	runtime.ReadMemStats(&after)
	return took, float64(after.Mallocs - before.Mallocs), err
}

// warmup returns how many of each publisher's messages precede the timed ones.
func warmup(timed uint64) uint64 { return timed/10 + 1 }
