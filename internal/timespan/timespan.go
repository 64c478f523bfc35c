// Package timespan reads times as people write them in configurations, requests and
// commands.
package timespan

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Parse reads a time such as 90s, 1h30m, 7d, 2w or 1d12h, which is not negative.
func Parse(s string) (time.Duration, error) {
	rest, days := s, 0.0
	for _, unit := range []struct {
		letter string
		days   float64
	}{{"w", 7}, {"d", 1}} {
		number, after, ok := strings.Cut(rest, unit.letter)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || math.IsNaN(n) || n < 0 {
			return 0, unreadable(s)
		}
		rest, days = after, days+n*unit.days
	}
	var d time.Duration
	if rest != "" || s == "" {
		var err error
		if d, err = time.ParseDuration(rest); err != nil || d < 0 {
			return 0, unreadable(s)
		}
	}
	const day = 24 * time.Hour
	if days*float64(day) >= float64(math.MaxInt64-d) {
		return 0, unreadable(s)
	}
	return d + time.Duration(days*float64(day)), nil
}

func unreadable(s string) error { return fmt.Errorf("got %q, want %s", s, Wanted) }

// Wanted says in messages what Parse reads.
const Wanted = "a time such as 90s, 12h or 7d"
