package natsdriver

import (
	"strconv"
	"testing"
)

func TestArrivals(t *testing.T) {
	const inbox = "_INBOX.a~b.x."
	var a arrivals
	for _, tt := range []struct {
		reply string
		want  bool
	}{
		{inbox + ackToken + "1", false},
		{inbox + ackToken + "2" + againMark + "3", false}, // the first was lost
		{inbox + ackToken + "1" + againMark + "4", true},
		{inbox + ackToken + "1" + againMark + "5", true},
		{inbox + ackToken + "2" + againMark + "6", true},
		{inbox + ackToken + "3", false},
		{"", false},
		{"", false},
		{inbox + "x-7.500.ok.1" + burstStart, false},
		{inbox + "x-7.500.ok.1" + burstStart, false},
		{ackToken + "1", false}, // another client may use a subject of one token
		{ackToken + "1" + againMark + "2", true},
	} {
		if got := a.repeats(tt.reply); got != tt.want {
			t.Errorf("%q repeats what has come: %v, want %v", tt.reply, got, tt.want)
		}
	}
	for i := range 5 * maxArrivals {
		reply := inbox + ackToken + strconv.Itoa(1000+i)
		if a.repeats(reply) || !a.repeats(reply+againMark+"1") {
			t.Fatalf("message %d is not recognised", i)
		}
		if len(a.recent) > maxArrivals || len(a.older) > maxArrivals {
			t.Fatalf("%d and %d are remembered", len(a.recent), len(a.older))
		}
	}
}
