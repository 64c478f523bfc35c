package broker

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// relay hands on what a client of NATS says to the server: each command that both have
// to understand, written anew, so that the server cannot read it differently, and what is
// published as it is. Whatever else a client says, the server gets something in its place
// that it refuses, and so answers and logs in its own words.
//
// What is read stays where it is until the server has it: a command that is written anew
// takes the place of what the client said, which it nearly always is to the letter.
type relay struct {
	client io.Reader
	server io.Writer
	// admitted returns the rule of the user as whom the server has let the client in. It
	// waits for that.
	admitted func() (*replyRule, error)

	// pace is that of what the client publishes, known when it is admitted; nil for any.
	pace *pace

	rule      *replyRule
	connected bool // the client has said who it is
	room      []byte
	quiet     []byte          // the room of a client that says little
	loud      *[loudRoom]byte // of one that says much, from loudRooms; nil while there is none
	ready     int             // room[:ready] is for the server, which has not got it yet
	next, end int             // room[next:end] is what is read, and not looked at yet
	words     []byte          // the last command, as the server gets it
	tokens    [4][]byte
}

const (
	// lineMost is how long what follows the verb of a command may be, in bytes.
	lineMost = natsserver.MAX_CONTROL_LINE_SIZE
	// readRoom is the room that a connection has for what it reads when it says little, in
	// bytes: for the longest line, with its verb and its end.
	readRoom = lineMost + 512
	// ackPrefix is how the subjects begin to which messages are acknowledged, which count for
	// no rate: there is one for each message that a client is sent.
	ackPrefix = "$JS.ACK."
	// refusedReply makes a subject one of those that the server lets no client name for
	// replies: it answers with a permissions violation.
	refusedReply = "_R_."
)

// errRefused says that the server has been told something that makes it end the
// connection.
var errRefused = errors.New("refused")

func newRelay(client io.Reader, server io.Writer, admitted func() (*replyRule, error)) *relay {
	r := &relay{client: client, server: server, admitted: admitted, rule: &replyRule{}, quiet: make([]byte, readRoom)}
	r.room = r.quiet
	return r
}

// run returns when the client has gone, when the server has, or with errRefused.
func (r *relay) run() error {
	defer r.calm()
	for !r.rule.everything || r.pace != nil {
		if err := r.command(); err != nil {
			return err
		}
	}
	for { // there is nothing to look at any more
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

// fill reads more from the client, when the server has all that is ready for it.
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
	case r.loud != nil && r.end < readRoom: // less has come than fits into the other one
		copy(r.quiet, left)
		r.calm()
	default:
		copy(r.room, left)
	}
	r.next, r.end = 0, len(left)
	n, err := r.client.Read(r.room[r.end:])
	r.end += n
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

// calm takes the room for much away.
func (r *relay) calm() {
	if r.loud != nil {
		loudRooms.Put(r.loud)
		r.loud, r.room = nil, r.quiet
	}
}

// pass makes the next n bytes that are read ready for the server, as they are.
func (r *relay) pass(n int) {
	if r.ready != r.next {
		copy(r.room[r.ready:], r.room[r.next:r.next+n])
	}
	r.ready, r.next = r.ready+n, r.next+n
}

// write makes a text ready for the server, in the place of what has been looked at.
func (r *relay) write(text []byte) error {
	if r.ready+len(text) > r.next {
		if err := r.flush(); err != nil {
			return err
		}
	}
	if len(text) > r.next { // it is longer than that
		_, err := r.server.Write(text)
		return err
	}
	r.ready += copy(r.room[r.ready:], text)
	return nil
}

// flush writes to the server what is ready for it.
func (r *relay) flush() error {
	if r.ready == 0 {
		return nil
	}
	_, err := r.server.Write(r.room[:r.ready])
	r.ready = 0
	return err
}

// fail tells the server something that it refuses.
func (r *relay) fail(text string) error {
	if err := r.flush(); err != nil {
		return err
	}
	if _, err := io.WriteString(r.server, text); err != nil {
		return err
	}
	return errRefused
}

// garbled is for what is no command.
func (r *relay) garbled() error { return r.fail("?\r\n") }

// say writes a command: words with a space between them.
func (r *relay) say(verb []byte, args ...[]byte) error {
	words := append(r.words[:0], verb...)
	for _, word := range args {
		words = append(append(words, ' '), word...)
	}
	r.words = append(words, '\r', '\n')
	return r.write(r.words)
}

// line takes the next line, with its end, out of what is read; false if it is longer than
// any may be. It stays where it is until fill is called.
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

// command hands on the next command.
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

// connect hands on who the client says that it is, and waits for what the server
// makes of it.
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

// publish hands on a message, of which so many sizes are told. It is one that the server
// refuses where something is to go to what is not the user's.
func (r *relay) publish(verb []byte, args [][]byte, sizes int) error {
	named := len(args) - sizes // subject, and perhaps reply
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
	if !bytes.HasPrefix(subject, []byte(ackPrefix)) {
		if err := r.await(); err != nil {
			return err
		}
	}
	var reply []byte
	if named == 2 {
		reply = args[1]
	}
	look := header // how much is looked at before the server gets any of it
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
	case look > r.end-r.next: // what is read takes the place of the words
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

// payload hands on so many bytes.
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

// messageEnd hands on what stands behind a message.
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

// split returns the words of a line; false if they are more than any command has, or no
// words.
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

// splitVerb returns the first word of a line in capitals, which it writes over the line,
// and what follows it.
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

// sizeOf returns a number as the server reads it, -1 if it is none.
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
