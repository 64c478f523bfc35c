package broker

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/harkbus/hark/internal/spell"
	"github.com/harkbus/hark/internal/timespan"
)

// field is a key of a T in the configuration: the one place that gives its name,
// its possible values and its meaning.
type field[T any] struct {
	key    string // dots separate sections
	value  string // the form of the value, for people
	def    string
	doc    string
	many   bool // takes a list, or a single item without a list
	isBool bool
	set    func(t *T, texts []string) error // one text unless many is set
}

func scalar[T any](key, value, def, doc string, set func(t *T, text string) error) field[T] {
	return field[T]{key: key, value: value, def: def, doc: doc, set: func(t *T, texts []string) error { return set(t, texts[0]) }}
}

func text[T any](key, value, def, doc string, at func(*T) *string) field[T] {
	return scalar(key, value, def, doc, func(t *T, s string) error { *at(t) = s; return nil })
}

func choice[T any](key, def, doc string, at func(*T) *string, choices ...string) field[T] {
	return scalar(key, strings.Join(choices, " or "), def, doc, func(t *T, s string) error {
		if !slices.Contains(choices, s) {
			return fmt.Errorf("got %q, want %s%s", s, strings.Join(choices, " or "), didYouMean(s, choices))
		}
		*at(t) = s
		return nil
	})
}

func boolean[T any](key, def, doc string, at func(*T) *bool) field[T] {
	f := scalar(key, "true or false", def, doc, func(t *T, s string) error {
		if s != "true" && s != "false" {
			return fmt.Errorf("got %q, want true or false", s)
		}
		*at(t) = s == "true"
		return nil
	})
	f.isBool = true
	return f
}

func duration[T any](key, def, doc string, at func(*T) *time.Duration) field[T] {
	return scalar(key, "time", def, doc, func(t *T, s string) (err error) { *at(t), err = timespan.Parse(s); return err })
}

func size[T any](key, def, doc string, at func(*T) *int64) field[T] {
	return scalar(key, "bytes", def, doc, func(t *T, s string) (err error) { *at(t), err = parseSize(s); return err })
}

func count[T any](key, def, doc string, at func(*T) *int64) field[T] {
	return scalar(key, "number", def, doc, func(t *T, s string) (err error) {
		n, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("got %q, want a whole number of at least 0", s)
		}
		*at(t) = n
		return nil
	})
}

func words[T any](key, value, doc string, at func(*T) *[]string) field[T] {
	return field[T]{key: key, value: value, doc: doc, many: true, set: func(t *T, texts []string) error { *at(t) = texts; return nil }}
}

// commas is a field of words, which flags and variables separate with commas.
func commas[T any](key, value, doc string, at func(*T) *[]string) field[T] {
	return field[T]{key: key, value: value, doc: doc, many: true, set: func(t *T, texts []string) error {
		var all []string
		for _, text := range texts {
			for word := range strings.SplitSeq(text, ",") {
				if word = strings.TrimSpace(word); word != "" {
					all = append(all, word)
				}
			}
		}
		*at(t) = all
		return nil
	}}
}

var units = []struct {
	name  string
	bytes float64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
	{"", 1},
}

// parseSize parses sizes such as 1000, 64KiB, 1.5GiB or 10GB, in upper or lower
// case.
func parseSize(s string) (int64, error) {
	for _, u := range units {
		at := len(s) - len(u.name)
		if at < 0 || !strings.EqualFold(s[at:], u.name) {
			continue
		}
		number := s[:at]
		n, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimSpace(number), "_", ""), 64)
		if err == nil && n >= 0 && n*u.bytes < math.MaxInt64 {
			return int64(n * u.bytes), nil
		}
		break
	}
	return 0, fmt.Errorf("got %q, want a size such as 1000, 64KiB or 10GB: kB, MB, GB and TB count in thousands, KiB, MiB, GiB and TiB in 1024s", s)
}

// parsePercent parses 10%, 0.5% or 0.1 as a fraction of 1. A number from 1 on needs
// the percent sign, because 1 could mean all or a hundredth.
func parsePercent(s string) (float64, error) {
	number, percent := strings.CutSuffix(s, "%")
	n, err := strconv.ParseFloat(number, 64)
	if percent {
		n /= 100
	}
	switch {
	case err == nil && !percent && n >= 1 && n <= 100:
		return 0, fmt.Errorf("got %q: did you mean %s%%? A number without %% is a part of 1, such as 0.1 for 10%%", s, number)
	case err != nil || !(n > 0 && n <= 1):
		return 0, fmt.Errorf("got %q, want a part such as 10%%, above 0%% and up to 100%%", s)
	}
	return n, nil
}

// didYouMean returns "; did you mean …?" if one of the known words is similar.
func didYouMean(word string, known []string) string {
	if best := spell.Nearest(word, known); best != "" {
		return "; did you mean " + best + "?"
	}
	return ""
}

// short formats a duration as one would write it: 7d, 2m, 90s.
func short(d time.Duration) string {
	if d >= 24*time.Hour && d%(24*time.Hour) == 0 {
		return strconv.FormatInt(int64(d/(24*time.Hour)), 10) + "d"
	}
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// shortSize formats a size as one would write it: 8MiB.
func shortSize(n int64) string {
	for _, u := range []int{3, 2, 1, 0} {
		if b := int64(units[u].bytes); n >= b && n%b == 0 {
			return strconv.FormatInt(n/b, 10) + units[u].name
		}
	}
	return strconv.FormatInt(n, 10)
}
