package natsdriver

import (
	"maps"
	"slices"
	"time"
)

// roster is what the members of a group that keeps the order of keys have agreed
// on: who they are, and who has which slot, the messages of a partition. It is one
// message in a stream, replaced by whichever member first sees that it has to
// change.
type roster struct {
	// Members maps each member to a number that keeps changing while it lives.
	Members map[string]uint64     `json:"members"`
	Slots   [partitions]slotState `json:"slots"`
}

// slotState says who has a slot, and what the previous owner has left undone.
type slotState struct {
	Owner string `json:"owner,omitempty"`
	// Made is when the stream of these sequences was made.
	Made time.Time `json:"made,omitzero"`
	// Last is the sequence of the last message in flight: all up to it are done
	// except those in Left. It is 0 if not known.
	Last uint64 `json:"last,omitempty"`
	// At is when that message was stored. It is zero if not known.
	At   time.Time `json:"at,omitzero"`
	Left []uint64  `json:"left,omitempty"`
}

// newRoster returns the roster of a group about which nothing is known.
func newRoster() *roster { return &roster{Members: map[string]uint64{}} }

// quota returns how many slots a member should have.
func (r *roster) quota(member string) int {
	members := slices.Sorted(maps.Keys(r.Members))
	i, found := slices.BinarySearch(members, member)
	switch {
	case !found:
		return 0
	case i < partitions%len(members):
		return partitions/len(members) + 1
	}
	return partitions / len(members)
}

// claim gives a member up to n free slots that may be taken, and reports whether
// there were any.
func (r *roster) claim(member string, n int, may func(slot int) bool) bool {
	before := n
	for i := range r.Slots {
		if n > 0 && r.Slots[i].Owner == "" && may(i) {
			r.Slots[i].Owner = member
			n--
		}
	}
	return n < before
}

// orphans frees the slots of former members, and reports whether there were any.
func (r *roster) orphans() bool {
	found := false
	for i := range r.Slots {
		owner := r.Slots[i].Owner
		if _, member := r.Members[owner]; owner != "" && !member {
			r.Slots[i] = slotState{}
			found = true
		}
	}
	return found
}

// heartbeat is when a member's number was first seen.
type heartbeat struct {
	beat uint64
	at   time.Time
}

// heartbeats tell which members live: those whose number changes. They do not compare
// the clocks of different machines.
type heartbeats map[string]heartbeat

// silent returns the members of a roster whose numbers have not changed for longer
// than a lease.
func (h heartbeats) silent(r *roster, now time.Time, lease time.Duration) []string {
	maps.DeleteFunc(h, func(member string, _ heartbeat) bool {
		_, there := r.Members[member]
		return !there
	})
	var silent []string
	for member, beat := range r.Members {
		seen, ok := h[member]
		switch {
		case !ok || seen.beat != beat:
			h[member] = heartbeat{beat, now}
		case now.Sub(seen.at) > lease:
			silent = append(silent, member)
		}
	}
	return silent
}
