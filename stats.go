package hark

import "time"

// Stats are the numbers of a bus. They are read while work goes on, so the
// numbers of different subscriptions need not belong to the same instant.
type Stats struct {
	Topics   []TopicStats
	Requests []TopicStats        // names that are replied to; their subscriptions are the responders
	Patterns []SubscriptionStats // subscriptions to patterns
	Chans    []ChanStats
	Notifier NotifierStats // zero if the bus has none
	Values   []ValueStats
}

// TopicStats are the numbers of one topic.
type TopicStats struct {
	Name string
	// Published counts the messages accepted while somebody listened or the
	// topic was stored. On an ephemeral topic to which nobody listens,
	// publishing leaves no trace.
	Published     uint64
	Deduplicated  uint64 // messages whose ID had been seen
	Stored        uint64 // messages that a stored topic holds now
	Delayed       uint64 // messages that are not due
	Subscriptions []SubscriptionStats
}

// SubscriptionStats are the numbers of one subscription or group. Every message
// meant for it is in exactly one of Delivered, Filtered, Dropped, Dead, Waiting,
// InFlight and Retrying.
type SubscriptionStats struct {
	Name           string        // the group, or a name made up for a subscription without one
	Pattern        string        // what it subscribes to, if a pattern
	Members        int           // subscriptions that share the group; 1 without a group
	Waiting        uint64        // lag: messages that no handler has been given
	InFlight       uint64        // handlers at work
	Retrying       uint64        // messages that wait for another attempt
	Delivered      uint64        // handled without an error
	Filtered       uint64        // rejected by Where
	FilterErrors   uint64        // the part of Filtered that a predicate could not evaluate; see Evaluator
	Failed         uint64        // handler runs that ended in an error, retried or not
	Redelivered    uint64        // handler runs that were not the first for their message
	Dropped        uint64        // lost to an overflow policy, a TTL, retention or Drop
	Dead           uint64        // given up and dead-lettered
	BufferExceeded uint64        // messages let in beyond the buffer because waiting would have deadlocked
	OldestAge      time.Duration // how long the oldest message not done has been there, at least
	Paused         bool          // every member is paused
}

// ChanStats are the numbers of one channel. Sent less Received is Len.
type ChanStats struct {
	Name      string
	Len       int
	Cap       int // Unbounded for an unbounded channel
	Sent      uint64
	Received  uint64
	Senders   int // goroutines that wait in Send
	Receivers int // goroutines that wait in Receive
	Closed    bool
}

// NotifierStats are the numbers of the notifier of a bus.
type NotifierStats struct {
	Listeners int
	Waiters   int      // calls of Wait and WaitAny that wait
	Latched   []string // latched names, sorted
	Notified  uint64   // notifications that reached somebody; others leave no trace
	// The sums over all listeners, those that are closed included.
	Delivered, Merged, Waiting, Dropped, Failed, BufferExceeded uint64
}

// ListenerStats are the numbers of one listener. Every notification that
// reached it is in exactly one of Delivered, Merged, Waiting and Dropped.
type ListenerStats struct {
	Name           string // what it is registered under
	ID             string
	Delivered      uint64 // signals given to the function, or taken from the channel
	Merged         uint64 // notifications that are counted in the signal of another
	Waiting        uint64 // signals that wait
	Dropped        uint64 // signals lost to an overflow policy, or to the end of the listener
	Failed         uint64 // calls of the function that did not return
	BufferExceeded uint64 // signals let in beyond the buffer because waiting would have deadlocked
}

// ValueStats are the numbers of one value.
type ValueStats struct {
	Name      string
	Version   uint64
	Observers int
	Watchers  int    // loops over Watch, and calls of WaitUntil
	Waiting   uint64 // changes that buffered observers have not been told of yet
	Dropped   uint64 // changes that buffered observers were not told of
	Failed    uint64 // calls of observers that panicked
}

// Topology says who is connected to whom.
type Topology struct {
	Nodes []Node
}

// Node is one topic, pattern, request name, channel or value, or a name that
// has listeners.
type Node struct {
	Kind   Kind
	Name   string
	Type   string // the Go type it carries, of a request name func(Q) R; empty if none
	Stored bool
	Ends   []End
}

// End is a party at one end of a Node.
type End struct {
	Role string // "publish", "subscribe", "reply", "listen", "observe" or "declare"
	Name string // the subscription's name or group, the listener's ID, the observer's name
	At   string // where in the program it was made, as file:line of the caller
}

// Stats returns the numbers of everything on the bus, in order of name. Over an
// engine it asks the engine about each stored topic, channel and subscription, and
// waits a second at most for each answer; numbers that have not come by then are 0.
func (b *Bus) Stats() Stats {
	var s Stats
	for _, f := range b.everything() {
		f.addStats(&s)
	}
	return s
}

// Topology returns what is on the bus and who is connected to it, in order of
// kind and name.
func (b *Bus) Topology() Topology {
	var t Topology
	for _, f := range b.everything() {
		f.addTopology(&t)
	}
	return t
}
