package broker

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/harkbus/hark/driver"
)

// startPosition is where on a stored topic to begin.
type startPosition struct {
	driver.SubscribeConfig
	// mark says of which topic of its name a sequence is; empty if nothing does.
	mark string
}

// markOf is what tells a topic from another one of its name that is made when it is gone,
// and gives its sequences again.
func markOf(made time.Time) string {
	if made.IsZero() {
		return ""
	}
	return strconv.FormatInt(made.UnixNano(), 36)
}

// appendEventID appends a sequence with the mark of its topic: what clients resume with.
func appendEventID(dst []byte, seq uint64, mark string) []byte {
	dst = strconv.AppendUint(dst, seq, 10)
	if mark == "" {
		return dst
	}
	return append(append(dst, '.'), mark...)
}

// parseEventID reads what appendEventID has written, or a sequence alone.
func parseEventID(s string) (seq uint64, mark string, err error) {
	number, mark, marked := strings.Cut(s, ".")
	if seq, err = strconv.ParseUint(number, 10, 64); err != nil {
		return 0, "", err
	}
	if _, err := strconv.ParseInt(mark, 36, 64); marked && err != nil {
		return 0, "", err
	}
	return seq, mark, nil
}

// parseFrom reads where to begin.
func parseFrom(s string, now time.Time) (c startPosition, err error) {
	switch s {
	case "now":
		return c, nil
	case "start":
		c.From = driver.FromStart
		return c, nil
	}
	if rest, ok := strings.CutPrefix(s, "last:"); ok {
		c.From = driver.FromLast
		if c.Seq, err = strconv.ParseUint(rest, 10, 64); err != nil {
			return c, fmt.Errorf("got %q, want last: and a number, such as last:10", s)
		}
		return c, nil
	}
	if c.Seq, c.mark, err = parseEventID(s); err == nil {
		c.From = driver.FromSeq
		return c, nil
	}
	if c.Time, err = time.Parse(time.RFC3339Nano, s); err != nil {
		return c, fmt.Errorf("got %q, want start, now, a sequence, a time such as 2026-01-02T15:04:05Z, or last:10", s)
	}
	c.From = driver.FromTime
	if c.Time.After(now) {
		return c, errors.New("the time is in the future")
	}
	return c, nil
}

// resolve returns where to begin on a topic as it is. reset says that the sequence is none of
// it: it was created again, or has lost what was stored last. Then it begins with the first
// message, of which the client has seen none.
func (c *startPosition) resolve(stats *driver.TopicStats) (from driver.SubscribeConfig, reset bool) {
	if c.mark != "" && c.mark != markOf(stats.Created) || c.Seq > stats.Newest+1 {
		return driver.SubscribeConfig{From: driver.FromStart}, true
	}
	return c.SubscribeConfig, false
}
