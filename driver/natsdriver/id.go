package natsdriver

import (
	"crypto/rand"
	"strconv"
	"sync/atomic"
)

// ids makes IDs that are unique: those of a connection begin alike.
type ids struct {
	prefix string
	last   atomic.Uint64
}

func (i *ids) next() string { return i.prefix + strconv.FormatUint(i.last.Add(1), 36) }

func (i *ids) init() { i.prefix = rand.Text()[:16] + "-" }
