package broker

import (
	"hash/fnv"
	"math"
)

// sampled reports whether a message is in the fraction of messages that a route
// takes. The answer is the same for all messages of a key, and in every process.
func sampled(part float64, e *Event) bool {
	if part == 0 || part >= 1 {
		return true
	}
	h := fnv.New64a()
	switch { // a hash never fails
	case e.Message.HasKey:
		_, _ = h.Write([]byte(e.Message.Key))
	case e.Message.ID != "":
		_, _ = h.Write([]byte(e.Message.ID))
	default:
		_, _ = h.Write(e.Message.Data)
	}
	// The high bits of FNV depend little on the last bytes, so mix them.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return float64(x) < part*math.MaxUint64
}
