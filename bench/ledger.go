package main

import (
	"fmt"
	"math/bits"
	"sync/atomic"
)

// ledger has a bit for each message of each publisher. It proves that every
// message arrived once where the order of arrival cannot.
type ledger struct {
	seen  [][]uint64 // by publisher; a bit for each seq
	twice atomic.Uint64
	alien atomic.Uint64 // number of messages that no one published
}

func newLedger(publishers int, each uint64) *ledger {
	l := &ledger{seen: make([][]uint64, publishers)}
	for p := range l.seen {
		l.seen[p] = make([]uint64, (each+63)/64)
	}
	return l
}

// mark records a message. Only one goroutine at a time may call it.
func (l *ledger) mark(m message) {
	word, bit := l.at(m)
	if word == nil {
		return
	}
	if *word&bit != 0 {
		l.twice.Add(1)
	}
	*word |= bit
}

// markShared is mark for concurrent callers.
func (l *ledger) markShared(m message) {
	if word, bit := l.at(m); word != nil && atomic.OrUint64(word, bit)&bit != 0 {
		l.twice.Add(1)
	}
}

func (l *ledger) at(m message) (word *uint64, bit uint64) {
	if m.publisher >= uint64(len(l.seen)) || m.seq/64 >= uint64(len(l.seen[m.publisher])) {
		l.alien.Add(1)
		return nil, 0
	}
	return &l.seen[m.publisher][m.seq/64], 1 << (m.seq % 64)
}

// complete returns an error unless the ledgers together have each of the
// messages below each exactly once.
func complete(each uint64, ledgers ...*ledger) error {
	var twice, alien, missing uint64
	for _, l := range ledgers {
		twice += l.twice.Load()
		alien += l.alien.Load()
	}
	for p := range ledgers[0].seen {
		var distinct uint64
		for w := range ledgers[0].seen[p] {
			var union uint64
			for _, l := range ledgers {
				twice += uint64(bits.OnesCount64(union & l.seen[p][w]))
				union |= l.seen[p][w]
			}
			distinct += uint64(bits.OnesCount64(union))
		}
		missing += each - min(distinct, each)
	}
	if twice+alien+missing > 0 {
		return fmt.Errorf("%d messages missing, %d too many, %d never published", missing, twice, alien)
	}
	return nil
}
