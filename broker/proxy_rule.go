package broker

import (
	"bytes"
	"encoding/json"
	"io"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/harkbus/hark/driver/natsdriver"
)

// replyRule says where a user may direct replies. The zero value is for clients
// that have not logged in: nowhere.
type replyRule struct {
	everything bool   // anywhere: the user may publish to every subject
	inbox      string // prefix of the subjects for replies to the user
	user       string // name; empty without users
}

func newReplyRule(u *user) *replyRule {
	return &replyRule{coversAny(u.Publish, ">"), natsdriver.InboxPrefix(u.Name) + ".", u.Name}
}

// allows reports whether a subject is one of the user's own for replies. Subjects
// to which the user may publish do not count: what the server or somebody else
// publishes there does not come from the user, and might be taken for something
// that the user has no right to say.
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

// consumerRequests begin the subjects of those JetStream requests whose body says
// where to send messages.
var consumerRequests = []string{"$JS.API.CONSUMER.CREATE", "$JS.API.CONSUMER.DURABLE"}

// maxInspected is how long such a request, and the headers of a message, may be, in
// bytes.
const maxInspected = 64 << 10

// maxHeaderFields is how many fields the headers of a message may have: many small ones
// take over twenty times the memory of their text, in everybody who receives the message.
const maxHeaderFields = 1000

func isConsumerRequest(subject []byte) bool {
	for _, prefix := range consumerRequests {
		if len(subject) >= len(prefix) && string(subject[:len(prefix)]) == prefix {
			return true
		}
	}
	return false
}

// refuses returns why the server must not get the headers of a message, or the body
// of a request for a consumer: a subject to which the user must not have anything
// sent, or a word. It returns "" if there is no reason.
func (r *replyRule) refuses(headers, request []byte) string {
	switch {
	case !isHarmless(headers), bytes.Count(headers, []byte("\n")) > maxHeaderFields+2: // with the first line and the last
		return "headers"
	case len(request) == 0: // it requests nothing
		return ""
	}
	return r.refusesConsumer(request)
}

// isHarmless reports whether the headers of a message cannot make the server send
// anything anywhere. The server does check whether a client may have trace events
// sent somewhere, but only if the first line of the headers holds nothing but the
// version. It stores headers without the rest of that line, and then sends events
// when it gets the message from another server of the cluster, which may publish
// everything.
func isHarmless(headers []byte) bool {
	return len(headers) == 0 || bytes.HasPrefix(headers, []byte("NATS/1.0\r\n")) && !bytes.Contains(headers, []byte("Nats-Trace-"))
}

// refusesConsumer returns the subject to which a request for a consumer would have
// messages sent without the user's right to it, or "" if there is none. The server
// parses such requests in the same way, but more leniently: anything that it might
// read differently than this function is refused.
func (r *replyRule) refusesConsumer(request []byte) string {
	const unclear = "unclear"
	var asked natsserver.CreateConsumerRequest
	d := json.NewDecoder(bytes.NewReader(request))
	d.DisallowUnknownFields()
	if err := d.Decode(&asked); err != nil && err != io.EOF { // blanks request nothing
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
