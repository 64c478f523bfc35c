package exec

// queue is a ring of tasks. Unlike a list through the tasks it can be added to and
// taken from without touching other tasks, which may be in no cache.
type queue struct {
	ring []*Task // its length is 0 or a power of two
	head int
	n    int
}

// keptRing is the largest ring that an idle pool keeps.
const keptRing = 1024

func (q *queue) push(t *Task) {
	if q.n == len(q.ring) {
		ring := make([]*Task, max(16, 2*q.n))
		copy(ring[copy(ring, q.ring[q.head:]):], q.ring[:q.head])
		q.ring, q.head = ring, 0
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = t
	q.n++
}

// pop returns the first task, or nil.
func (q *queue) pop() *Task {
	if q.n == 0 {
		return nil
	}
	t := q.ring[q.head]
	q.ring[q.head] = nil
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	return t
}

// release gives back the memory that a burst needed, if the queue is empty.
func (q *queue) release() {
	if q.n == 0 && len(q.ring) > keptRing {
		*q = queue{}
	}
}
