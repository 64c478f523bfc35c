package feed

const (
	// firstSegment is how many entries the first segment of a log holds:
	// small, because most topics of a program with very many are quiet.
	firstSegment = 16
	// maxSegment is how many entries later segments hold at most; each is
	// four times the last. What a stalled reader pins besides its buffer is
	// at most one segment.
	maxSegment = 256
	// maxSpares is how many passed segments a log keeps to use again: enough
	// for a backlog of 1024 entries to come and go without an allocation.
	maxSpares = 4
)

// segment is a run of consecutive entries. Slots before the log's tail are
// never written again while a cursor may read them.
type segment[E any] struct {
	base  uint64 // ordinal of slots[0]
	slots []E
	next  *segment[E] // written before any entry of it is published
}

func (s *segment[E]) end() uint64 { return s.base + uint64(len(s.slots)) }

// seek returns the segment from s on that holds ordinal n, or the last one if
// n is the ordinal after it.
func (s *segment[E]) seek(n uint64) *segment[E] {
	for n >= s.end() && s.next != nil {
		s = s.next
	}
	return s
}
