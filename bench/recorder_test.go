package main

import (
	"sync"
	"testing"
	"testing/synctest"
)

// spoil does what a broken contender does to the n-th message.
type spoil func(n int, m message, deliver func(message))

var spoils = map[string]spoil{
	"loses": func(n int, m message, deliver func(message)) {
		if n != 70 {
			deliver(m)
		}
	},
	"doubles": func(n int, m message, deliver func(message)) {
		deliver(m)
		if n == 70 {
			deliver(m)
		}
	},
	"loses one and doubles another": func(n int, m message, deliver func(message)) {
		if n != 70 {
			deliver(m)
		}
		if n == 80 {
			deliver(m)
		}
	},
	"damages": func(n int, m message, deliver func(message)) {
		if n == 70 {
			m.check++
		}
		deliver(m)
	},
	"invents": func(n int, m message, deliver func(message)) {
		if n == 70 {
			m = newMessage(m.publisher+1, m.seq)
		}
		deliver(m)
	},
	"keeps one back": lateBy(1),
	"doubles the last": func(n int, m message, deliver func(message)) {
		deliver(m)
		if n == 110 { // the last of 100 timed messages and 11 before them
			deliver(m)
		}
	},
}

// lateBy delivers a message as many messages too late.
func lateBy(by int) spoil {
	var kept message
	return func(n int, m message, deliver func(message)) {
		switch n {
		case 70:
			kept = m
		case 70 + by:
			deliver(m)
			deliver(kept)
		default:
			deliver(m)
		}
	}
}

// broken is a contender that spoils what it delivers. With a spoil that changes
// nothing, it is a good one.
func broken(s spoil, loose, overlap bool) peer {
	open := func(takes []func(message)) session {
		var n int
		return session{
			publish: alike(1, func(m message) {
				i := n
				n++
				take := takes[(i/7)%len(takes)]
				s(i, m, take)
			}),
			end: func() {},
		}
	}
	return peer{
		name: "broken", loose: loose, overlap: overlap,
		stream: func(_ int, takes []func(message)) session { return open(takes) },
		group:  func(_ int, takes []func(message)) session { return open(takes) },
	}
}

// TestFaultsAreFound feeds faults to the checks. Each fault of a contender must
// make its run fail.
func TestFaultsAreFound(t *testing.T) {
	checks := map[string]struct {
		run            runner
		loose, overlap bool
		orderless      bool // disorder is not a fault
	}{
		"stream":            {run: streaming(1, 1)},
		"stream, loose":     {run: streaming(1, 1), loose: true, orderless: true},
		"stream, overlap":   {run: streaming(1, 1), loose: true, overlap: true, orderless: true},
		"group":             {run: grouped(1, 1)},
		"group of 3":        {run: grouped(1, 3)},
		"group of 3, loose": {run: grouped(1, 3), loose: true, orderless: true},
	}
	for check, c := range checks {
		t.Run(check, func(t *testing.T) {
			for fault, s := range spoils {
				if fault == "keeps one back" && c.orderless {
					continue
				}
				synctest.Test(t, func(t *testing.T) {
					if _, err := c.run(broken(s, c.loose, c.overlap), 100); err == nil {
						t.Errorf("a contender that %s passes", fault)
					} else {
						t.Logf("%s: %v", fault, err)
					}
				})
			}
			good := func(_ int, m message, deliver func(message)) { deliver(m) }
			if _, err := c.run(broken(good, c.loose, c.overlap), 100); err != nil {
				t.Errorf("a good contender fails: %v", err)
			}
		})
	}
}

// TestTopicFaultsAreFound does the same for many topics.
func TestTopicFaultsAreFound(t *testing.T) {
	for fault, s := range spoils {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			n := 0
			p := peer{many: func(takes []func(message)) topics {
				return topics{func(topic int, m message) {
					mu.Lock()
					defer mu.Unlock()
					if topic == 0 { // 111 messages
						s(n, m, takes[0])
						n++
						return
					}
					takes[topic](m)
				}, func() {}}
			}}
			if _, err := circling(p, 100*topicCount); err == nil {
				t.Errorf("a contender that %s passes", fault)
			}
		})
	}
}

// TestStallIsFound uses a contender that stops in the middle of a ping-pong.
func TestStallIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peer{pingpong: func(next func() bool) func() {
			next()
			return func() {}
		}}
		if _, err := pingpong(p, 100); err == nil {
			t.Error("a ping-pong that stops passes")
		}
	})
}
