package feed

const (
	// firstSegment is the number of entries in the first segment of a log. It
	// is small because a program with very many topics uses most of them
	// rarely.
	firstSegment = 16
	// maxSegment is the largest number of entries in a segment. Until it is
	// reached, each segment is four times as large as the one before. Besides
	// its buffer, a stalled reader pins at most one segment.
	maxSegment = 256
	// maxSpares is how many passed segments a log keeps for reuse: enough for a
	// backlog of 1024 entries to come and go without an allocation.
	maxSpares = 4
)

// segment is a run of consecutive entries. Slots before the log's tail are
// never written again while a cursor may read them, nor is base changed.
type segment[E any] struct {
	base  uint64 // ordinal of slots[0]
	slots []E
	next  *segment[E] // written before any of its entries is published
}

// newSegment returns the first segment of a log, in one allocation.
func newSegment[E any]() *segment[E] {
	s := &struct {
		segment[E]
		room [firstSegment]E
	}{}
	s.slots = s.room[:]
	return &s.segment
}

func (s *segment[E]) end() uint64 { return s.base + uint64(len(s.slots)) }

// seek returns the first segment from s on that holds ordinal n, or the last
// segment if n is the ordinal after its end.
func (s *segment[E]) seek(n uint64) *segment[E] {
	for n >= s.end() && s.next != nil {
		s = s.next
	}
	return s
}
