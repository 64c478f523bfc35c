package broker

import (
	"testing"

	"github.com/harkbus/hark"
)

// TestDurabilityOfPrograms opens a topic of the configuration from a program that says
// nothing about durability, under both kinds of URL.
func TestDurabilityOfPrograms(t *testing.T) {
	b := start(t, config(t, "topics: [{name: orders}, {name: 'ev.*'}, {name: metrics, durability: relaxed}, {name: 'mem.*', durability: memory}]"))
	open := func(scheme, topic string, d hark.Durability) error {
		bus, err := hark.Open(testContext(t), scheme+"://"+b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer bus.Close(testContext(t))
		_, err = hark.NewTopic[string](bus, topic, hark.Stored(hark.Retention{Durability: d}))
		return err
	}
	tests := []struct {
		scheme, topic string
		durability    hark.Durability
	}{
		{"hark", "orders", 0},
		{"hark", "orders", hark.Strict},
		{"hark", "ev.a", hark.Strict},
		{"hark", "metrics", 0},
		{"hark", "metrics", hark.Relaxed},
		{"hark", "mem.a", 0},
		{"hark", "new", hark.Strict},
		{"nats", "orders", 0},
		{"nats", "ev.a", 0},
		{"nats", "metrics", 0},
		{"nats", "mem.a", 0},
		{"nats", "new", 0},
	}
	for _, tt := range tests {
		if err := open(tt.scheme, tt.topic, tt.durability); err != nil {
			t.Errorf("%s: %s with durability %v: %v", tt.scheme, tt.topic, tt.durability, err)
		}
	}
}
