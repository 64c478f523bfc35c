package broker

import (
	"crypto/rand"
	"sync"
)

// idLength is how long an ID is: 26 characters of 32 have 130 random bits, like
// those of rand.Text.
const idLength = 26

// randomBlock holds random bytes for some IDs. To ask for the bytes of each ID takes
// longer than all else that the broker does to make one.
type randomBlock struct {
	unused []byte
	room   [20 * idLength]byte
}

var randomBlocks = sync.Pool{New: func() any { return new(randomBlock) }}

// newID returns an ID that nobody can guess.
func newID() string {
	b := randomBlocks.Get().(*randomBlock)
	defer randomBlocks.Put(b)
	if len(b.unused) == 0 {
		_, _ = rand.Read(b.room[:]) // it never fails
		b.unused = b.room[:]
	}
	id := b.unused[:idLength]
	b.unused = b.unused[idLength:]
	for i := range id {
		id[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[id[i]%32]
	}
	text := string(id)
	clear(id) // so that it is nowhere but where it is used
	return text
}
