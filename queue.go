package hark

import "fmt"

// Unbounded is the capacity or buffer without a limit.
const Unbounded = -1

// Policy says what happens when a buffer is full.
type Policy uint8

// The overflow policies. Each message that one of them drops is counted and
// reported to the DropHooks.
const (
	// Block makes the publisher wait for room until its context ends; then
	// nothing has been published.
	Block Policy = iota + 1
	// DropOldest drops the message that has been waiting longest.
	DropOldest
	// DropNewest drops the new message.
	DropNewest
	// Latest keeps only the newest message: DropOldest with a buffer of one.
	Latest
	// Fail gives the publisher ErrFull, and nobody gets the message.
	Fail
)

func (p Policy) String() string {
	switch p {
	case Block:
		return "block"
	case DropOldest:
		return "drop oldest"
	case DropNewest:
		return "drop newest"
	case Latest:
		return "latest"
	case Fail:
		return "fail"
	}
	return fmt.Sprintf("Policy(%d)", uint8(p))
}

// QueueOption configures the queue before a subscription's handler, before a
// listener that takes each signal, or before a buffered observer.
type QueueOption interface {
	SubscribeOption
	ListenOption
	ObserveOption
}

// Buffer sets how many messages may wait, besides those that handlers hold: at
// least 1, or Unbounded. The default is 1,024.
func Buffer(n int) QueueOption {
	return queueOption(func(q *queue) error {
		if n < 1 && n != Unbounded {
			return fmt.Errorf("%w: Buffer(%d): want at least 1, or Unbounded", ErrInvalidOption, n)
		}
		q.buffer = n
		return nil
	})
}

// Overflow sets what happens when the buffer is full. The default is Block for
// subscriptions, and DropOldest for buffered observers. For listeners with
// EachSignal the default is none of the policies: the oldest signal is merged
// into the newest.
func Overflow(p Policy) QueueOption {
	return queueOption(func(q *queue) error {
		if p < Block || p > Fail {
			return fmt.Errorf("%w: Overflow(%v): unknown policy", ErrInvalidOption, p)
		}
		q.policy = p
		return nil
	})
}

// queue is the configuration of a queue. Fields that were not set are zero.
type queue struct {
	buffer int
	policy Policy
}

// or fills in the fields that were not set, and checks the result.
func (q queue) or(buffer int, policy Policy) (queue, error) {
	if q.policy == 0 {
		q.policy = policy
	}
	if q.policy == Latest {
		if q.buffer > 1 || q.buffer == Unbounded {
			return q, fmt.Errorf("%w: Overflow(Latest) keeps one message; leave out Buffer", ErrInvalidOption)
		}
		q.buffer = 1
	}
	if q.buffer == 0 {
		q.buffer = buffer
	}
	return q, nil
}

type queueOption func(*queue) error

func (f queueOption) applySubscribe(c *subscribeConfig) error { return f(&c.queue) }
func (f queueOption) applyListen(c *listenConfig) error       { return f(&c.queue) }
func (f queueOption) applyObserve(c *observeConfig) error     { return f(&c.queue) }
