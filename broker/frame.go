package broker

import (
	"strconv"

	"github.com/harkbus/hark/driver"
)

// frame is a message as clients over HTTP get it, made once for all of them.
type frame struct {
	seq   uint64 // on a stored topic; 0 otherwise
	event []byte // of server-sent events, whole; line is a part of it
	line  []byte // one line of JSON, without its end
	// received is the message, for those who acknowledge it; nil for others.
	received *driver.Received
	lanes    []*lane // that hold it; guarded by hub.mu
}

// size is how much memory a frame takes, about.
func (f *frame) size() int { return len(f.event) + 160 }

// frameMaker makes frames of messages.
type frameMaker struct {
	source string        // of events that have none
	made   func() string // IDs of events that have none and are not stored
}

// frame makes a frame. mark is that of a stored topic.
func (k *frameMaker) frame(m *driver.Received, mark string) (*frame, error) {
	f := &frame{seq: m.Seq}
	text := make([]byte, 0, len(m.Data)+512)
	if m.Seq > 0 {
		text = append(appendEventID(append(text, "id: "...), m.Seq, mark), '\n')
	}
	text = append(text, "data: "...)
	head := len(text)
	made := k.made
	if m.Seq > 0 { // the time tells it from that of a topic that was created again
		made = func() string {
			return m.Topic + "/" + strconv.FormatUint(m.Seq, 10) + "/" + strconv.FormatInt(m.Time.UnixNano(), 36)
		}
	}
	text, err := (&Event{m}).appendCloudEvent(text, k.source, made)
	if err != nil {
		return nil, err
	}
	end := len(text)
	f.event = append(text, "\n\n"...)
	f.line = f.event[head:end]
	return f, nil
}
