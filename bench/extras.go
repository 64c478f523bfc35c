package main

import (
	"context"
	"fmt"
	"time"

	"github.com/harkbus/hark"
)

// extra is a question that only hark is asked.
type extra struct {
	name, unit string
	run        func(scale float64) float64
}

var extras = []extra{
	{"million idle subscriptions", "MB", func(scale float64) float64 {
		n := int(1_000_000 * scale)
		before := memory()
		closeAll := harkTopic.idle(n)
		defer closeAll()
		return float64(memory()-before) / 1e6
	}},
	{"publish, 10,000 other patterns", "ns", func(scale float64) float64 {
		bus := hark.New()
		defer func() { must(bus.Close(background)) }()
		addPatterns(bus)
		return perPublish(bus, int(2_000_000*scale))
	}},
	{"publish, no patterns", "ns", func(scale float64) float64 {
		bus := hark.New()
		defer func() { must(bus.Close(background)) }()
		return perPublish(bus, int(2_000_000*scale))
	}},
	{"new topic, 10,000 patterns", "ns", func(scale float64) float64 {
		bus := hark.New()
		defer func() { must(bus.Close(background)) }()
		addPatterns(bus)
		return perTopic(bus, int(20_000*scale))
	}},
	{"new topic, no patterns", "ns", func(scale float64) float64 {
		bus := hark.New()
		defer func() { must(bus.Close(background)) }()
		return perTopic(bus, int(20_000*scale))
	}},
}

func addPatterns(bus *hark.Bus) {
	for i := range 10_000 {
		_, err := hark.SubscribePattern(bus, fmt.Sprintf("area%d.*.item%d", i%100, i),
			func(context.Context, *hark.Message[message]) error { return nil })
		must(err)
	}
}

// perPublish is the time of publishing on a topic with one subscriber.
func perPublish(bus *hark.Bus, n int) float64 {
	t := harkOpen(bus, "area7.x.y")
	done := make(chan struct{}, 1)
	r := &recorder{want: uint64(n), done: done}
	subscribe(t, r.take)
	start := time.Now()
	for i := range n {
		must(t.Publish(background, newMessage(0, uint64(i))))
	}
	<-done
	return float64(time.Since(start)) / float64(n)
}

// perTopic is the time of making a topic.
func perTopic(bus *hark.Bus, n int) float64 {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("area%d.x%d.item%d", i%100, i, i)
	}
	start := time.Now()
	for _, name := range names {
		harkOpen(bus, name)
	}
	return float64(time.Since(start)) / float64(n)
}
