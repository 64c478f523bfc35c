package natsdriver

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// TestPlaces compares the places that PublishPlaced returns with what is stored,
// for messages sent one by one and for those gathered into batches.
func TestPlaces(t *testing.T) {
	for name, class := range map[string]driver.Durability{"strict": driver.DurableStrict, "relaxed": driver.DurableRelaxed} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, withSync)
			c := s.open(t, SyncAlways())
			topic := openTopic(t, c, "orders", &driver.StoredConfig{Durability: class, Dedup: time.Minute})
			const calls, each = 16, 5
			seqs := make([]map[string]uint64, calls)
			var all sync.WaitGroup
			for i := range calls {
				seqs[i] = map[string]uint64{}
				all.Go(func() {
					for j := range 10 {
						var ms []*driver.Message
						for k := range each {
							id := fmt.Sprintf("%d-%d-%d", i, j, k)
							ms = append(ms, &driver.Message{ID: id, Data: []byte(id), Key: id, HasKey: k%2 == 0})
						}
						places, err := topic.(driver.Placer).PublishPlaced(testContext(t), ms)
						if err != nil {
							t.Error(err)
							return
						}
						for k, p := range places {
							if p.Repeated {
								t.Errorf("%s is said to be repeated", ms[k].ID)
							}
							seqs[i][ms[k].ID] = p.Seq
						}
					}
				})
			}
			all.Wait()
			stored := map[string]uint64{}
			for _, r := range receive(t, subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart}), calls*10*each) {
				stored[string(r.Data)] = r.Seq
			}
			for i := range seqs {
				for id, seq := range seqs[i] {
					if stored[id] != seq || seq == 0 {
						t.Errorf("%s: said to be at %d, is at %d", id, seq, stored[id])
					}
				}
			}

			// The place of a repeat is that of the first message, also in a batch
			// with others.
			last := uint64(calls * 10 * each)
			for _, n := range []int{3, batchLeast} {
				var ms []*driver.Message
				for i := range n {
					ms = append(ms, &driver.Message{ID: fmt.Sprintf("new-%d-%d", n, i), Data: []byte("new")})
				}
				ms[1].ID = "3-4-2"
				places, err := topic.(driver.Placer).PublishPlaced(testContext(t), ms)
				if err != nil {
					t.Fatal(err)
				}
				if places[1] != (driver.Place{Seq: stored["3-4-2"], Repeated: true}) {
					t.Errorf("of %d: got %+v, want the place of the first", n, places[1])
				}
				var fresh []uint64
				for _, p := range slices.Delete(places, 1, 2) {
					if fresh = append(fresh, p.Seq); p.Repeated {
						t.Errorf("of %d: one is said to be repeated", n)
					}
				}
				slices.Sort(fresh)
				if fresh[0] != last+1 || fresh[n-2] != last+uint64(n)-1 {
					t.Errorf("of %d: got the places %v, want %d new ones after %d", n, fresh, n-1, last)
				}
				last += uint64(n) - 1
			}

			// Messages that wait until they are due have no place yet, and failed
			// ones have none.
			places, err := topic.(driver.Placer).PublishPlaced(testContext(t), []*driver.Message{
				{Data: []byte("later"), Due: time.Now().Add(time.Hour)}, {Headers: map[string]string{"a b": ""}}, {Data: []byte("x")},
			})
			var some driver.PartialError
			if !errors.As(err, &some) || some[0] != nil || some[1] == nil || some[2] != nil {
				t.Fatalf("got %v, want the second to fail", err)
			}
			if places[0].Seq != 0 || places[1].Seq != 0 || places[2].Seq != last+1 {
				t.Errorf("got %+v, want a place for the third alone", places)
			}
		})
	}
}
