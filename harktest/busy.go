package harktest

import (
	"fmt"
	"strings"

	"github.com/harkbus/hark"
)

// busy lists the subscriptions that are not done, one per line.
func busy(s hark.Stats) string {
	var b strings.Builder
	line := func(kind, name string, s hark.SubscriptionStats) {
		if s.Waiting+s.InFlight+s.Retrying == 0 {
			return
		}
		fmt.Fprintf(&b, "\n%s %s: %s has %d waiting, %d in handlers, %d to be retried", kind, name, s.Name, s.Waiting, s.InFlight, s.Retrying)
		if s.Paused {
			b.WriteString("; it is paused")
		}
	}
	for _, t := range s.Topics {
		for _, sub := range t.Subscriptions {
			line("topic", t.Name, sub)
		}
	}
	for _, r := range s.Requests {
		for _, sub := range r.Subscriptions {
			line("request", r.Name, sub)
		}
	}
	for _, p := range s.Patterns {
		line("pattern", p.Pattern, p)
	}
	if n := s.Notifier.Waiting; n > 0 {
		fmt.Fprintf(&b, "\nnotifier: %d signals wait", n)
	}
	for _, v := range s.Values {
		if v.Waiting > 0 {
			fmt.Fprintf(&b, "\nvalue %s: %d changes wait for observers", v.Name, v.Waiting)
		}
	}
	return b.String()
}
