package filter_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/filter"
)

var _ hark.Predicate = (*filter.Filter)(nil)

// TestWhere uses filters on an in-process bus, where the payload is the Go
// value, both with its type declared and without.
func TestWhere(t *testing.T) {
	type order struct {
		ID    string `json:"id"`
		Total int    `json:"total"`
	}
	tests := []struct {
		name string
		f    *filter.Filter
		want []string
	}{
		{"declared", filter.MustCompile(`data.total > 10 && data.id != "d"`, filter.For[order]()), []string{"b", "c"}},
		{"undeclared", filter.MustCompile(`data.total > 10 && data.id != "d"`), []string{"b", "c"}},
		{"header", filter.MustCompile(`headers["region"] == "eu" && topic == "orders"`), []string{"a", "c"}},
		{"failing", filter.MustCompile(`data.nope == 1`), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := hark.New()
				topic, err := hark.NewTopic[order](bus, "orders")
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				_, err = topic.Subscribe(func(_ context.Context, m *hark.Message[order]) error {
					got = append(got, m.Value.ID)
					return nil
				}, hark.Where(tt.f))
				if err != nil {
					t.Fatal(err)
				}
				for i, o := range []order{{"a", 5}, {"b", 11}, {"c", 50}, {"d", 99}} {
					region := []string{"eu", "us"}[i%2]
					if err := topic.Publish(t.Context(), o, hark.Header("region", region)); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				if err := bus.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("delivered %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// TestWhereAny filters the messages of a subscription to values of any type, in
// which Data is a pointer to an interface.
func TestWhereAny(t *testing.T) {
	type order struct {
		ID    string `json:"id"`
		Total int    `json:"total"`
	}
	for name, f := range map[string]*filter.Filter{
		"declared":   filter.MustCompile(`data.total > 10`, filter.For[order]()),
		"undeclared": filter.MustCompile(`data.total > 10`),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := hark.New()
				var got []string
				sub, err := hark.SubscribePattern(bus, "orders.*", func(_ context.Context, m *hark.Message[any]) error {
					got = append(got, m.Topic())
					return nil
				}, hark.Where(f))
				if err != nil {
					t.Fatal(err)
				}
				publish(t, bus, "orders.small", order{"a", 5})
				publish(t, bus, "orders.large", order{"b", 50})
				publish(t, bus, "orders.pointer", &order{"c", 50})
				publish(t, bus, "orders.text", []byte(`{"id":"d","total":50}`))
				publish(t, bus, "orders.nil", (*order)(nil))
				publish(t, bus, "orders.other", "text")
				synctest.Wait()
				if err := bus.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				slices.Sort(got)
				if want := []string{"orders.large", "orders.pointer", "orders.text"}; !slices.Equal(got, want) {
					t.Errorf("delivered %v, want %v", got, want)
				}
				if s := sub.Stats(); s.Filtered != 3 || s.FilterErrors != 2 || s.Failed != 0 {
					t.Errorf("got %+v, want 3 filtered, 2 of them undecided", s)
				}
			})
		})
	}
}

func publish[T any](t *testing.T, bus *hark.Bus, name string, v T) {
	t.Helper()
	topic, err := hark.NewTopic[T](bus, name)
	if err == nil {
		err = topic.Publish(t.Context(), v)
	}
	if err != nil {
		t.Fatal(err)
	}
}
