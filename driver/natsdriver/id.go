package natsdriver

import (
	"crypto/rand"
	"strconv"
	"sync/atomic"
	"time"
)

// ids makes unique IDs. Those of a connection share a prefix.
type ids struct {
	prefix string
	last   atomic.Uint64
}

func (i *ids) next() string {
	var buf [40]byte
	return string(i.append(buf[:0]))
}

func (i *ids) append(to []byte) []byte {
	return strconv.AppendUint(append(to, i.prefix...), i.last.Add(1), 36)
}

// nextAt is next, and also formats a time as messages carry it; both share one
// string. The text of the zero time is empty.
func (i *ids) nextAt(at time.Time) (id, text string) {
	var buf [80]byte
	b := i.append(buf[:0])
	n := len(b)
	if !at.IsZero() {
		b = at.UTC().AppendFormat(b, time.RFC3339Nano)
	}
	both := string(b)
	return both[:n], both[n:]
}

func (i *ids) init() { i.prefix = rand.Text()[:16] + "-" }
