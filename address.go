package hark

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/harkbus/hark/internal/names"
)

// address says which listeners of a Notifier are meant. Its text is one of
//
//	counter.Counter                       a name, or a type with all its methods
//	counter.Counter#OnIncrement           one method of it
//	counter.Counter#OnIncrement-1a2b3c4d  one listener of that method
//	counter.Counter#1a2b3c4d              one listener of the bare name
//
// and the part before the # may have wildcards unless there is an ID. IDs begin
// with a digit, so that no method is mistaken for one.
type address struct {
	text   string
	owner  string // the part before the #
	member string // the method; empty if there is none
	id     uint32 // the ID of a listener, if single
	single bool
	wild   bool // owner has wildcards
	shard  uint8
	slot   uint16 // the slot of owner in Notifier.present
}

// idLimit is one more than the greatest ID. Smaller numbers begin with a digit.
const idLimit = 0xa0000000

const idLen = 8 // hexadecimal digits

func formatID(owner, member string, id uint32) string {
	sep := "#"
	if member != "" {
		sep = "-"
	}
	return join(owner, member) + sep + fmt.Sprintf("%0*x", idLen, id)
}

// join returns the address of a method as text.
func join(owner, member string) string {
	if member == "" {
		return owner
	}
	return owner + "#" + member
}

// parseName returns the address of everyone under a name or method. The text
// must have neither wildcards nor an ID.
func parseName(text string) (address, error) {
	a, err := parseAddress(text, names.Check)
	if err == nil && a.single {
		err = nameFault(text, len(text)-idLen, "the ID of a listener, where a name is wanted")
	}
	return a, err
}

// parseTarget returns the address that a notification is sent to.
func parseTarget(text string) (address, error) {
	a, err := parseAddress(text, names.CheckPattern)
	if err == nil && a.wild && a.single {
		err = nameFault(text, len(text)-idLen, "the ID of a listener in a pattern")
	}
	return a, err
}

func parseAddress(text string, check func(string) error) (address, error) {
	a := address{text: text}
	owner, rest, hash := strings.Cut(text, "#")
	if err := check(owner); err != nil {
		return a, nameError(err)
	}
	a.owner, a.wild = owner, names.IsPattern(owner)
	a.place()
	if !hash {
		return a, nil
	}
	start := len(owner) + 1
	id := ""
	member, after, dash := strings.Cut(rest, "-")
	switch {
	case dash:
		start, id = start+len(member)+1, after
	case rest != "" && '0' <= rest[0] && rest[0] <= '9':
		member, id = "", rest
	}
	if member != "" || id == "" || dash {
		if err := checkMember(text, len(owner)+1, member); err != nil {
			return a, err
		}
	}
	a.member = member
	if id == "" && !dash {
		return a, nil
	}
	n, err := strconv.ParseUint(id, 16, 32)
	if err != nil || len(id) != idLen || n >= idLimit || strings.ToLower(id) != id {
		return a, nameFault(text, start, "no ID of a listener (eight digits, as Listener.ID returns it)")
	}
	a.id, a.single = uint32(n), true
	return a, nil
}

func checkMember(text string, start int, member string) error {
	if i := strings.IndexAny(member, ".#*>"); i >= 0 {
		return nameFault(text, start+i, "%q in the name of a method", member[i])
	}
	if start+len(member) > names.MaxLen {
		return nameFault(text, names.MaxLen, "longer than %d bytes", names.MaxLen)
	}
	switch c := strings.TrimLeft(member, "0123456789"); {
	case member == "":
		return nameFault(text, start, "no method after #")
	case c != member:
		return nameFault(text, start, "a method that begins with a digit")
	}
	if err := names.Check(member); err != nil {
		fault := err.(*names.Error)
		return nameFault(text, start+fault.Offset, "%s", fault.Reason)
	}
	return nil
}

func nameFault(text string, offset int, format string, args ...any) error {
	return nameError(&names.Error{Name: text, Offset: offset, Reason: fmt.Sprintf(format, args...)})
}

// hashName returns a hash of a name, for tables in which a collision costs only
// time. It looks at the first, middle and last eight bytes, and takes about
// half the time of package maphash (BenchmarkHashName).
func hashName(name string) uint32 {
	n := len(name)
	if n < 8 {
		h := uint64(n)
		for i := range n {
			h = h<<8 | uint64(name[i])
		}
		return uint32(h * 0x9e3779b97f4a7c15 >> 32)
	}
	h := word(name)*0x9e3779b97f4a7c15 ^ word(name[n/2-4:])*0xc2b2ae3d27d4eb4f ^ word(name[n-8:])*0x165667b19e3779f9
	return uint32((h ^ h>>29 ^ uint64(n)) * 0x9e3779b97f4a7c15 >> 32)
}

// word returns the first eight bytes of s. The compiler turns it into a single
// load.
func word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// place determines where in a notifier the owner belongs.
func (a *address) place() {
	h := hashName(a.owner)
	a.shard, a.slot = uint8(h%shardCount), uint16(h>>8%presentSlots)
}

const targetSlots = 512

// targets caches parsed targets by hash, so that notifying a name again does
// not check it again. What a target means never changes, so all notifiers share
// the cache.
var targets [targetSlots]atomic.Pointer[address]

// targetOf returns the address for text, whose hash is h.
func targetOf(text string, h uint32) (*address, error) {
	slot := &targets[h%targetSlots]
	if a := slot.Load(); a != nil && a.text == text {
		return a, nil
	}
	a, err := parseTarget(strings.Clone(text)) // text may be part of a large string
	if err != nil {
		return nil, err
	}
	slot.Store(&a)
	return &a, nil
}
