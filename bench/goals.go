package main

import (
	"fmt"
	"math"
	"strings"
)

// goal is a figure that hark aims at.
type goal struct {
	workload, contender string
	than                []string // compared with the best of these
	ratio               float64  // at least this many times as good
	most                float64  // or a figure of at most this
	noAllocs            bool     // or no allocations per message
}

var goals = []goal{
	better("A 1→1", plainHark, 2.2, channel1024),
	better("A 1→1", plainHark, 1.8, kelindar.name),
	better("A 1→1", plainHark, 150, watermill.name),
	better("A 1→1", handle, 3.2, channel1024),
	better("A 1→1", batch, 8, channel1024),
	better("B 1→10, per delivery", plainHark, 10, channel1024),
	better("B 1→10, per delivery", plainHark, 4, kelindar.name),
	better("C 4→1", plainHark, 1.7, channel1024),
	better("C 4→1", handle, 3.2, channel1024),
	better("D 4→4 group", plainHark, 1.6, channel1024),
	better("D 4→4 group", handle, 1.6, channel1024),
	atMost("E publish, nobody listens", plainHark, 5),
	better("F ping-pong, p50", plainHark, 1/0.9, channel1024),
	atMost("G idle subscription, memory", plainHark, 250),
	atMost("G idle subscription, goroutines", plainHark, 0),
	atMost("G a million idle subscriptions", plainHark, 400),
	better("H 10,000 topics", plainHark, 2.5, channel1024),
	// Publishing does not match patterns: it is no slower than without them,
	// apart from the difference between two equal contenders.
	better("P publish beside patterns", otherPatterns, 0.9, noPatterns),
	atMost("P new topic beside patterns", otherPatterns, 2000),
	atMost("P new topic beside patterns", matchingPattern, 2000),

	better("K channel, capacity 0", plainHark, 1/1.15, builtin),
	better("K channel, capacity 1024", plainHark, 1/1.15, builtin),
	better("K channel, unbounded", plainHark, 5, chanxUnbounded, channName, eapacheName),
	better("K channel, capacity 0, 4→4", plainHark, 1, builtin),
	better("K channel, capacity 1024, 4→4", plainHark, 1, builtin),
	atMost("N notify, nobody listens", plainHark, 20),
	// Not slower, apart from the difference between two equal contenders.
	better("N wake a goroutine", harkListen, 0.9, channel1),
	better("N wake a goroutine", harkListen, 0.9, channelMerging), // does the same
	better("N wake a goroutine", harkWait, 0.9, channel1),
	better("N wake a goroutine", harkWait, 0.9, channel1Select), // also heeds a context
	better("N wake a goroutine", harkWait, 0.9, channelEach),
	better("N wake a goroutine", harkWatch, 0.9, channel1),
	atMost("V get", plainHark, 2),
	atMost("V set, nobody waits", plainHark, 15),
	better("V set, ten observers", plainHark, 1/1.4, plainCalls),

	better("routes, ephemeral", oneRule, 0.7, plainRelay),
	better("routes, ephemeral", manyRules, 1/3.0, oneRule),
	better("routes, stored", oneRule, 0.6, relayLoop),
	better("routes, stored", manyRules, 1/3.0, oneRule),

	better("X ephemeral, 128 B", harkBare, 0.95, rawNATS),
	better("X ephemeral, 128 B", plainHark, 0.6, rawNATS),
	better("X ephemeral, 128 B", harkBare, 6, watermillCore),
	better("X ephemeral, 1 kB", harkBare, 0.95, rawNATS),
	better("X ephemeral, 1 kB", plainHark, 0.6, rawNATS),
	better("X stored, one at a time, 128 B", harkBare, 0.95, rawNATS),
	better("X stored, 64 goroutines, 128 B", harkBare, 1.3, rawAsync),
	better("X stored, 64 goroutines, 128 B", harkBare, 12, watermillSingly),
	better("X read in order, 128 B", plainHark, 2, rawNATS),
	better("X synced to disk, 64 goroutines, 128 B", harkFile, 8, rawAsync),
	better("X group of 4, 128 B", harkKeyed, 0.75, harkUnordered),
	better("X request, p50", plainHark, 1/1.15, rawNATS),
	better("X one publish at a time, in a directory or over TCP", harkFile, 5, harkTCP),
	better("X channel 8→8, capacity 0", plainHark, 1, rawPrototype),
	better("X channel 8→8, capacity 1", plainHark, 1, rawPrototype),
	better("X channel 8→8, capacity 16", plainHark, 1, rawPrototype),
	better("X channel 8→8, capacity 1024", plainHark, 1, rawPrototype),

	withoutAllocs("A 1→1", plainHark),
	withoutAllocs("A 1→1", handle),
	withoutAllocs("A 1→1", batch),
	withoutAllocs("B 1→10, per delivery", plainHark),
	withoutAllocs("C 4→1", plainHark),
	withoutAllocs("C 4→1", handle),
	withoutAllocs("D 4→4 group", plainHark),
	withoutAllocs("D 4→4 group", handle),
	withoutAllocs("E publish, nobody listens", plainHark),
	withoutAllocs("H 10,000 topics", plainHark),
	withoutAllocs("K channel, capacity 0", plainHark),
	withoutAllocs("K channel, capacity 1024", plainHark),
	withoutAllocs("N notify, nobody listens", plainHark),
	withoutAllocs("N wake a goroutine", harkListen),
	withoutAllocs("N wake a goroutine", harkWait),
	withoutAllocs("V set, nobody waits", plainHark),
	withoutAllocs("V set, ten observers", plainHark),
}

func better(workload, contender string, ratio float64, than ...string) goal {
	return goal{workload: workload, contender: contender, ratio: ratio, than: than}
}

func atMost(workload, contender string, most float64) goal {
	return goal{workload: workload, contender: contender, most: most}
}

func withoutAllocs(workload, contender string) goal {
	return goal{workload: workload, contender: contender, noAllocs: true}
}

// fewAllocs is the rest of a fixed cost (starting goroutines, growing a log)
// after it is divided by the messages of a run.
const fewAllocs = 0.005

// verdict compares the goal with the measurements. known is false if there are
// none for it.
func (g goal) verdict(rows []row) (want, got string, met, known bool) {
	find := func(peer string) (row, bool) {
		for _, r := range rows {
			if r.Workload == g.workload && r.Peer == peer {
				return r, true
			}
		}
		return row{}, false
	}
	mine, ok := find(g.contender)
	if !ok {
		return "", "", false, false
	}
	switch {
	case g.noAllocs:
		return "no allocations", fmt.Sprintf("%.3f", mine.Allocs), mine.Allocs >= 0 && mine.Allocs < fewAllocs, true
	case len(g.than) == 0:
		return fmt.Sprintf("≤ %.0f %s", g.most, mine.Unit), short(mine.Figure), mine.Figure <= g.most, true
	}
	best := math.Inf(1)
	for _, name := range g.than {
		theirs, ok := find(name)
		if !ok {
			return "", "", false, false
		}
		best = min(best, theirs.Figure)
	}
	of := strings.Join(g.than, ", ")
	if len(g.than) > 1 {
		of = "the best of " + of
	}
	ratio := best / mine.Figure
	return fmt.Sprintf("≥ %.2f× %s", g.ratio, of), fmt.Sprintf("%.2f×", ratio), ratio >= g.ratio, true
}
