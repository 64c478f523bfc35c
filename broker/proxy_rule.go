package broker

import (
	"bytes"
	"encoding/json"
	"io"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/harkbus/hark/driver/natsdriver"
)

// replyRule says where a user may have others answer. The zero value is for those who
// have not said who they are: nowhere.
type replyRule struct {
	everything bool   // wherever it is: the user may publish to every subject
	inbox      string // how the subjects begin to which replies to the user go
	user       string // the name; empty without users
}

func newReplyRule(u *user) *replyRule {
	return &replyRule{coversAny(u.Publish, ">"), natsdriver.InboxPrefix(u.Name) + ".", u.Name}
}

// allows reports whether a subject is one of the user's own for replies. Those to which
// the user may publish are none: what the server or somebody else says there is not the
// user's, and may be taken for what the user has no right to say.
func (r *replyRule) allows(reply []byte) bool {
	if r.everything {
		return true
	}
	n := len(r.inbox)
	return n > 0 && len(reply) > n && string(reply[:n]) == r.inbox && isLiteral(reply)
}

// isLiteral reports whether a text is a subject without wildcards.
func isLiteral(subject []byte) bool {
	last := byte('.')
	for _, c := range subject {
		if c <= ' ' || c == 0x7f || c == '*' || c == '>' || c == '.' && last == '.' {
			return false
		}
		last = c
	}
	return last != '.'
}

// consumerRequests are how the subjects begin of those requests of JetStream that say in
// their body where it is to send messages.
var consumerRequests = []string{"$JS.API.CONSUMER.CREATE", "$JS.API.CONSUMER.DURABLE"}

// lookMost is how long such a request may be, and the headers of a message, in bytes.
const lookMost = 64 << 10

func isConsumerRequest(subject []byte) bool {
	for _, prefix := range consumerRequests {
		if len(subject) >= len(prefix) && string(subject[:len(prefix)]) == prefix {
			return true
		}
	}
	return false
}

// refuses returns why the server must not get the headers of a message, or what a request
// for a consumer has as its body: a subject to which the user may not have anything sent,
// or a word; "" for nothing.
func (r *replyRule) refuses(headers, request []byte) string {
	switch {
	case !isHarmless(headers):
		return "headers"
	case len(request) == 0: // it asks for nothing
		return ""
	}
	return r.refusesConsumer(request)
}

// isHarmless reports whether the server sends nothing to where the headers of a message
// say. It asks whether a client may have events of a trace sent somewhere, but only if
// the first line of the headers says nothing more than the version, and it stores them
// without the rest of that line: to send events when it has the message from another
// server of the cluster, which may say everything.
func isHarmless(headers []byte) bool {
	return len(headers) == 0 || bytes.HasPrefix(headers, []byte("NATS/1.0\r\n")) && !bytes.Contains(headers, []byte("Nats-Trace-"))
}

// refusesConsumer returns the subject to which a request for a consumer would have messages
// sent though the user may not, "" if there is none. The server reads such a request in the
// same way, and more: what it might take for something else than is understood here is
// refused.
func (r *replyRule) refusesConsumer(request []byte) string {
	const unclear = "unclear"
	var asked natsserver.CreateConsumerRequest
	d := json.NewDecoder(bytes.NewReader(request))
	d.DisallowUnknownFields()
	if err := d.Decode(&asked); err != nil && err != io.EOF { // blanks ask for nothing
		return unclear
	}
	if _, err := d.Token(); err != io.EOF {
		return unclear
	}
	to := []byte(asked.Config.DeliverSubject)
	switch {
	case len(to) == 0 || r.allows(to):
		return ""
	case len(to) < 256 && isLiteral(to):
		return string(to)
	}
	return unclear
}
