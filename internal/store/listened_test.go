package store

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
)

func TestListened(t *testing.T) {
	s, js := open(t, t.TempDir())
	if _, err := js.AddStream(&nats.StreamConfig{Name: "s", Subjects: []string{"stored.*"}}); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	tests := []struct {
		subject string
		subs    []string // to these subjects; one that ends in a slash is of a group
		own     int
		want    bool
	}{
		{"a.b.c", nil, 0, false},
		{"a.b.c", []string{"a.b.c"}, 0, true},
		{"a.b.c", []string{"a.b.c"}, 1, false},
		{"a.b.c", []string{"a.b.c"}, 2, true},
		{"a.b.c", []string{"a.b.c", "a.b.c"}, 1, true},
		{"a.b.c", []string{"a.b.c", "a.b.c"}, 2, false},
		{"a.b.c", []string{"a.b.c", "a.b.c/"}, 1, true},
		{"a.b.c", []string{"a.b.c/"}, 0, true},
		{"a.b.c", []string{"a.b.c", "a.b.d", "a.b", "a.b.c.d", "*", "a.*.d", "b.>"}, 1, false},
		{"a.b.c", []string{"a.b.c", ">"}, 1, true},
		{"a.b.c", []string{"a.b.c", "a.>"}, 1, true},
		{"a.b.c", []string{"a.b.c", "a.b.>"}, 1, true},
		{"a.b.c", []string{"a.b.c", "*.b.c"}, 1, true},
		{"a.b.c", []string{"a.b.c", "a.*.c"}, 1, true},
		{"a.b.c", []string{"a.b.c", "a.b.*"}, 1, true},
		{"a.b.c", []string{"a.b.c", "*.*.*"}, 1, true},
		{"a.b.c", []string{"a.b.c", "*.*.c/"}, 1, true},
		{"a", []string{"a"}, 1, false},
		{"a", []string{"a", "*"}, 1, true},
		{"a", []string{"a", ">"}, 1, true},
		{"stored.x", []string{"stored.x"}, 1, true},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.subject, tt.subs, tt.own), func(t *testing.T) {
			var subs []*nats.Subscription
			for _, subject := range tt.subs {
				group := ""
				if n := len(subject) - 1; subject[n] == '/' {
					subject, group = subject[:n], "group"
				}
				sub, err := nc.QueueSubscribeSync(subject, group)
				if err != nil {
					t.Fatal(err)
				}
				subs = append(subs, sub)
			}
			for _, remembered := range []bool{false, true} { // by the server, once a message was published
				if err := nc.Flush(); err != nil {
					t.Fatal(err)
				}
				if got := s.Listened(tt.subject, tt.own); got != tt.want {
					t.Errorf("published to before %v: got %v, want %v", remembered, got, tt.want)
				}
				if err := nc.Publish(tt.subject, nil); err != nil {
					t.Fatal(err)
				}
			}
			for _, sub := range subs {
				if err := sub.Unsubscribe(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
