package natsdriver

import (
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
)

// What has been counted is dropped with the rest of the buffer, because it comes again.
func TestCountedMessagesAreDropped(t *testing.T) {
	p := &puller{inlet: newInlet(nil, 2), inbox: "_INBOX.p"}
	for _, text := range numbered(0, 2) {
		p.msgs <- &nats.Msg{Subject: "t", Data: []byte(text)}
		if p.buffered() == 0 {
			t.Fatal("the message is not counted")
		}
	}
	p.empty()
	if n := p.buffered(); n > 0 {
		t.Errorf("%d messages are left", n)
	}
}

// Messages may be counted while requests are forgotten after a lost connection; the race
// detector looks at that.
func TestCountWhileRequestsAreForgotten(t *testing.T) {
	const n = 100
	p := &puller{inlet: newInlet(nil, n), inbox: "_INBOX.p"}
	for range n {
		p.msgs <- &nats.Msg{Subject: "_INBOX.p.1", Header: nats.Header{"Status": {"409"}, "Description": {"Server Shutdown"}}}
	}
	var all sync.WaitGroup
	all.Go(func() {
		for range n {
			p.forgetRequests()
		}
	})
	if got := p.buffered(); got > 0 {
		t.Errorf("%d statuses count as messages", got)
	}
	all.Wait()
}
