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

// Parse reads a time such as 90s, 1h30m, 7d or 2w, which is not negative.
func Parse(s string) (time.Duration, error) {
	for unit, hours := range map[string]float64{"d": 24, "w": 7 * 24} {
		if number, ok := strings.CutSuffix(s, unit); ok {
			if n, err := strconv.ParseFloat(number, 64); err == nil && n >= 0 && n*hours < math.MaxInt64/float64(time.Hour) {
				return time.Duration(n * hours * float64(time.Hour)), nil
			}
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("got %q, want %s", s, Wanted)
	}
	return d, nil
}

// Wanted says in messages what Parse reads.
const Wanted = "a time such as 90s, 12h or 7d"
