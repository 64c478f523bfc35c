package broker

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// relay passes on to the server what a NATS client sends. It rewrites each command
// that both of them have to understand, so that the server cannot read it
// differently, and passes payloads on unchanged. In place of anything else it sends
// the server something that the server refuses, answers and logs in its own words.
//
// Input stays in its buffer until the server has it. A rewritten command takes the
// place of what the client sent, with which it is nearly always identical.
type relay struct {
	client io.Reader
	server io.Writer
	// admitted returns the rule of the user as whom the server has accepted the
	// client. It waits for that.
	admitted func() (*replyRule, error)

	// pace limits what the client publishes; it is known once the client is
	// admitted, and nil for no limit.
	pace *pace

	rule      *replyRule
	connected bool // the client has sent CONNECT
	room      []byte
	quiet     []byte          // buffer for a client that sends little
	loud      *[loudRoom]byte // buffer from loudRooms, for one that sends much; nil while there is none
	ready     int             // room[:ready] is to be sent to the server
	next, end int             // room[next:end] has been read, but not parsed
	words     []byte          // the last command, as the server gets it
	tokens    [4][]byte
}

const (
	// lineMost is how long the arguments of a command may be, in bytes.
	lineMost = natsserver.MAX_CONTROL_LINE_SIZE
	// readRoom is the size of a connection's buffer for input when the client sends
	// little, in bytes: enough for the longest line, with its verb and its end.
	readRoom = lineMost + 512
	// ackPrefix begins the subjects for acknowledging messages, and ackMost is the
	// size that no acknowledgement needs, in bytes. Up to it these do not count
	// towards a rate, because there is one for each message that a client is sent.
	ackPrefix = "$JS.ACK."
	ackMost   = 512
	// refusedReply turns a subject into one that the server lets no client use for
	// replies: it answers with a permissions violation.
	refusedReply = "_R_."
)

// errRefused says that the server has been sent something that makes it end the
// connection.
var errRefused = errors.New("refused")

func newRelay(client io.Reader, server io.Writer, admitted func() (*replyRule, error)) *relay {
	r := &relay{client: client, server: server, admitted: admitted, rule: &replyRule{}, quiet: make([]byte, readRoom)}
	r.room = r.quiet
	return r
}

// run returns when the client or the server is gone, or with errRefused.
func (r *relay) run() error {
	defer r.calm()
	for !r.rule.everything || r.pace != nil {
		if err := r.command(); err != nil {
			return err
		}
	}
	for { // nothing more to parse
		r.pass(r.end - r.next)
		if err := r.fill(); err != nil {
			return err
		}
	}
}

// await waits until the client may publish one more message.
func (r *relay) await() error {
	return r.pace.await(r.flush, func() error {
		_, err := io.WriteString(r.server, "PONG\r\n")
		return err
	})
}

// fill reads more from the client, once the server has everything that is ready for
// it.
func (r *relay) fill() error {
	if err := r.flush(); err != nil {
		return err
	}
	left, full := r.room[r.next:r.end], r.end == len(r.room)
	switch {
	case full && r.loud == nil:
		r.loud = loudRooms.Get().(*[loudRoom]byte)
		r.room = r.loud[:]
		copy(r.room, left)
	case r.loud != nil && r.end < readRoom: // less has come than fits into the small buffer
		copy(r.quiet, left)
		r.calm()
	default:
		copy(r.room, left)
	}
	r.next, r.end = 0, len(left)
	n, err := r.client.Read(r.room[r.end:])
	r.end += n
	if n > 0 {
		return nil // the error will come again
	}
	return err
}

// calm releases the large buffer.
func (r *relay) calm() {
	if r.loud != nil {
		loudRooms.Put(r.loud)
		r.loud, r.room = nil, r.quiet
	}
}

// pass makes the next n bytes of input ready for the server, unchanged.
func (r *relay) pass(n int) {
	if r.ready != r.next {
		copy(r.room[r.ready:], r.room[r.next:r.next+n])
	}
	r.ready, r.next = r.ready+n, r.next+n
}

// write makes a text ready for the server, in place of parsed input.
func (r *relay) write(text []byte) error {
	if r.ready+len(text) > r.next {
		if err := r.flush(); err != nil {
			return err
		}
	}
	if len(text) > r.next { // it is longer than that input
		_, err := r.server.Write(text)
		return err
	}
	r.ready += copy(r.room[r.ready:], text)
	return nil
}

// flush sends the server what is ready for it.
func (r *relay) flush() error {
	if r.ready == 0 {
		return nil
	}
	_, err := r.server.Write(r.room[:r.ready])
	r.ready = 0
	return err
}

// fail sends the server something that it refuses.
func (r *relay) fail(text string) error {
	if err := r.flush(); err != nil {
		return err
	}
	if _, err := io.WriteString(r.server, text); err != nil {
		return err
	}
	return errRefused
}

// garbled is for input that is not a command.
func (r *relay) garbled() error { return r.fail("?\r\n") }

// say writes a command: words separated by a space.
func (r *relay) say(verb []byte, args ...[]byte) error {
	words := append(r.words[:0], verb...)
	for _, word := range args {
		words = append(append(words, ' '), word...)
	}
	r.words = append(words, '\r', '\n')
	return r.write(r.words)
}

// line takes the next line, with its end, from the input; it returns false if the
// line is too long. The line is valid until fill is called.
func (r *relay) line() ([]byte, bool, error) {
	for {
		read := r.room[r.next:r.end]
		if n := bytes.IndexByte(read[:min(len(read), readRoom)], '\n') + 1; n > 0 {
			r.next += n
			return read[:n], true, nil
		}
		if len(read) >= readRoom {
			return read, false, nil
		}
		if err := r.fill(); err != nil {
			return nil, false, err
		}
	}
}

// command passes on the next command.
func (r *relay) command() error {
	line, ok, err := r.line()
	if err != nil {
		return err
	}
	verb, rest := splitVerb(line)
	if !ok || len(rest) > lineMost {
		return r.fail("PUB " + strings.Repeat("x", lineMost+1) + "\r\n")
	}
	if string(verb) == "CONNECT" {
		return r.connect(rest)
	}
	args, ok := r.split(rest)
	if !ok {
		return r.garbled()
	}
	n := len(args)
	switch string(verb) {
	case "PUB":
		return r.publish(verb, args, 1)
	case "HPUB":
		return r.publish(verb, args, 2)
	case "SUB":
		ok = n == 2 || n == 3
	case "UNSUB":
		ok = n == 1 || n == 2
	case "PING", "PONG":
		ok = n == 0
	default:
		ok = false
	}
	if !ok {
		return r.garbled()
	}
	return r.say(verb, args...)
}

// connect passes on the client's login, and waits for the server's decision.
func (r *relay) connect(about []byte) (err error) {
	if r.connected || !isText(about) {
		return r.garbled()
	}
	r.connected = true
	if err = r.say([]byte("CONNECT"), about); err != nil {
		return err
	}
	if err = r.flush(); err != nil {
		return err
	}
	r.rule, err = r.admitted()
	return err
}

// publish passes on a message for which a number of sizes is given. If the message
// would direct a reply to a subject that is not the user's, it becomes one that the
// server refuses.
func (r *relay) publish(verb []byte, args [][]byte, sizes int) error {
	named := len(args) - sizes // subject, and possibly reply
	if named < 1 || named > 2 {
		return r.garbled()
	}
	var size [2]int
	for i, digits := range args[named:] {
		if size[i] = sizeOf(digits); size[i] < 0 {
			return r.garbled()
		}
	}
	header, total := 0, size[sizes-1]
	if sizes == 2 {
		if header = size[0]; header > total {
			return r.garbled()
		}
	}
	subject, refused := args[0], ""
	if total > ackMost || !bytes.HasPrefix(subject, []byte(ackPrefix)) {
		if err := r.await(); err != nil {
			return err
		}
	}
	var reply []byte
	if named == 2 {
		reply = args[1]
	}
	look := header // how much to inspect before the server gets any of it
	if isConsumerRequest(subject) {
		look = total
	}
	if r.rule.everything {
		look = 0
	}
	switch {
	case named == 2 && !r.rule.allows(reply):
		refused = refusedReply
	case look > lookMost:
		refused, reply = refusedReply, []byte("long")
	case look > r.end-r.next: // reading overwrites the words
		verb, subject, reply = bytes.Clone(verb), bytes.Clone(subject), bytes.Clone(reply)
		for look > r.end-r.next {
			if err := r.fill(); err != nil {
				return err
			}
		}
	}
	if refused == "" {
		seen := r.room[r.next : r.next+look]
		if why := r.rule.refuses(seen[:min(header, look)], seen[min(header, look):]); why != "" {
			refused, reply = refusedReply, []byte(why)
		}
	}
	words := append(append(append(r.words[:0], verb...), ' '), subject...)
	if len(reply) > 0 {
		words = append(append(append(words, ' '), refused...), reply...)
	}
	for _, n := range size[:sizes] {
		words = strconv.AppendInt(append(words, ' '), int64(n), 10)
	}
	r.words = append(words, '\r', '\n')
	if err := r.write(r.words); err != nil {
		return err
	}
	if err := r.payload(total); err != nil {
		return err
	}
	return r.messageEnd()
}

// payload passes on n bytes.
func (r *relay) payload(n int) error {
	for {
		some := min(n, r.end-r.next)
		r.pass(some)
		if n -= some; n == 0 {
			return nil
		}
		if err := r.fill(); err != nil {
			return err
		}
	}
}

// messageEnd passes on the end of a message.
func (r *relay) messageEnd() error {
	const want = "\r\n"
	for {
		got := r.room[r.next:min(r.next+len(want), r.end)]
		switch {
		case string(got) != want[:len(got)]:
			return r.garbled()
		case len(got) == len(want):
			r.pass(len(want))
			return nil
		}
		if err := r.fill(); err != nil {
			return err
		}
	}
}

// split returns the words of a line; it returns false if there are more than any
// command has, or none.
func (r *relay) split(line []byte) ([][]byte, bool) {
	words := r.tokens[:0]
	for {
		line = trimBlanks(line)
		if len(line) == 0 {
			return words, true
		}
		end := 0
		for end < len(line) && !isBlank(line[end]) {
			end++
		}
		if len(words) == cap(words) || !isWord(line[:end]) {
			return nil, false
		}
		words, line = append(words, line[:end]), line[end:]
	}
}

// splitVerb returns the first word of a line in upper case, in place, and the rest.
func splitVerb(line []byte) (verb, rest []byte) {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
		if n > 1 && line[n-2] == '\r' {
			line = line[:n-2]
		}
	}
	end := 0
	for ; end < len(line) && !isBlank(line[end]); end++ {
		if c := line[end]; 'a' <= c && c <= 'z' {
			line[end] = c - 'a' + 'A'
		}
	}
	return line[:end], trimBlanks(line[end:])
}

func trimBlanks(line []byte) []byte {
	for len(line) > 0 && isBlank(line[0]) {
		line = line[1:]
	}
	return line
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// isWord reports whether a text has neither blanks nor control characters.
func isWord(text []byte) bool {
	for _, c := range text {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// isText reports whether a text has no control characters.
func isText(text []byte) bool {
	for _, c := range text {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// sizeOf parses a number as the server does, and returns -1 if it is none.
func sizeOf(digits []byte) int {
	if len(digits) == 0 || len(digits) > 9 {
		return -1
	}
	n := 0
	for _, c := range digits {
		if c < '0' || c > '9' {
			return -1
		}
		n = 10*n + int(c-'0')
	}
	return n
}
