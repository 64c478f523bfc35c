package main

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark"
)

const (
	patternCount = 10_000

	noPatterns      = "hark, no patterns"
	otherPatterns   = "hark, 10,000 patterns, none matches"
	matchingPattern = "hark, 10,000 patterns, one matches"
)

// besidePatterns publish on a topic handle while there are subscriptions to
// patterns that do not match the topic.
var besidePatterns = []peer{
	{name: noPatterns, stream: beside(0)},
	{name: otherPatterns, stream: beside(patternCount)},
}

// newTopicBesidePatterns create topics while there are such subscriptions.
var newTopicBesidePatterns = []peer{
	{name: noPatterns, operate: func(n int) time.Duration { return newTopics(n, 0, false) }},
	{name: otherPatterns, operate: func(n int) time.Duration { return newTopics(n, patternCount, false) }},
	{name: matchingPattern, operate: func(n int) time.Duration { return newTopics(n, patternCount, true) }},
}

func beside(patterns int) func(int, []func(message)) session {
	return func(publishers int, subscribers []func(message)) session {
		bus := hark.New()
		addPatterns(bus, patterns, func() { panic("a pattern matches that must not") })
		t := harkOpen(bus, "area7.other.thing")
		for _, take := range subscribers {
			harkSubscribe(t, take)
		}
		return harkSession(bus, t, publishers, throughTopic)
	}
}

// addPatterns subscribes to n patterns of three shapes. The topic "area<i mod
// 100>.sub<i>.kind<i>" matches only pattern i.
func addPatterns(bus *hark.Bus, n int, matched func()) {
	for i := range n {
		pattern := fmt.Sprintf("area%d.*.kind%d", i%100, i)
		switch i % 3 {
		case 1:
			pattern = fmt.Sprintf("*.*.kind%d", i)
		case 2:
			pattern = fmt.Sprintf("area%d.sub%d.>", i%100, i)
		}
		_, err := hark.SubscribePattern(bus, pattern, func(context.Context, *hark.Message[message]) error {
			matched()
			return nil
		})
		must(err)
	}
}

// newTopics returns the time to create n topics. It then publishes one message
// to each, to check that the right patterns matched.
func newTopics(n, patterns int, match bool) time.Duration {
	bus := hark.New()
	var matched atomic.Int64
	addPatterns(bus, patterns, func() { matched.Add(1) })
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("area%d.other%d.thing%d", i%100, i, i)
		if match {
			names[i] = fmt.Sprintf("area%d.sub%d.kind%d", i%100, i, i)
		}
	}
	topics := make([]*hark.Topic[message], n)
	runtime.GC()
	start := time.Now()
	for i, name := range names {
		topics[i] = harkOpen(bus, name)
	}
	took := time.Since(start)
	for _, t := range topics {
		must(t.Publish(background, message{}))
	}
	must(bus.Close(background)) // waits for what has been published
	want := 0
	if match {
		want = min(n, patterns)
	}
	if got := int(matched.Load()); got != want {
		panic(fmt.Sprintf("%d topics matched, want %d", got, want))
	}
	return took
}
