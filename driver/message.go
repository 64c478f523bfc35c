package driver

import (
	"errors"
	"time"
)

// ErrEnded is returned by Receive when there is nothing more to come.
var ErrEnded = errors.New("ended")

// Message is a message as it travels. On the wire it is a CloudEvent in the
// binary mode of the engine's binding: ID, Source, Type, Subject, Time and
// ContentType are the attributes of these names, Key is the extension
// partitionkey, and Headers are headers of the engine beside them.
type Message struct {
	ID      string // empty without one; an envelope then gets one that is made up
	DedupID string // what deduplication goes by instead of ID, if it is not empty; it does not travel
	Key     string
	HasKey  bool
	Time    time.Time // zero if not known
	Headers map[string]string
	// ContentType is the media type of Data.
	ContentType string
	Data        []byte
	// Bare leaves the envelope out: only Data and Headers travel, and ID and
	// Key where the engine itself needs them.
	Bare bool
	// Due is when to deliver the message; zero for at once.
	Due time.Time
	// Expires is when the message is no longer useful; zero for never.
	Expires time.Time
}

// Size returns how many bytes of memory a message takes, about.
func (m *Message) Size() int {
	const bare, header = 256, 64 // beside the text
	n := bare + len(m.Data) + len(m.Key) + len(m.ID) + len(m.ContentType)
	for name, value := range m.Headers {
		n += len(name) + len(value) + header
	}
	return n
}

// Received is a message from an engine.
type Received struct {
	Message
	Topic string // its topic
	Seq   uint64 // its place on a stored topic, from 1 on; 0 otherwise
	// Deliveries is how often it has been received, this time included: 1 at
	// first.
	Deliveries int
	// Token is the engine's own.
	Token any
}
