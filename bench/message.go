package main

import "encoding/binary"

// message is what every contender carries: three words.
type message struct {
	publisher, seq, check uint64
}

func newMessage(publisher, seq uint64) message {
	return message{publisher, seq, publisher ^ seq ^ magic}
}

// damage returns 0 if the message is unchanged since it was made.
func (m message) damage() uint64 { return m.check ^ m.publisher ^ m.seq ^ magic }

const magic = 0x9e3779b97f4a7c15

// encode encodes a message for contenders that carry bytes.
func encode(m message) []byte {
	b := make([]byte, 0, 24)
	b = binary.LittleEndian.AppendUint64(b, m.publisher)
	b = binary.LittleEndian.AppendUint64(b, m.seq)
	return binary.LittleEndian.AppendUint64(b, m.check)
}

func decode(b []byte) message {
	return message{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])}
}
