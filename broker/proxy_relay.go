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

	// limiter limits what the client publishes; it is known once the client is
	// admitted, and nil for no limit.
	limiter *publishLimiter

	rule      *replyRule
	connected bool // the client has sent CONNECT
	buf       []byte
	smallBuf  []byte                 // buffer for a client that sends little
	largeBuf  *[largeBufferSize]byte // buffer from largeBuffers, for one that sends much; nil while there is none
	ready     int                    // buf[:ready] is to be sent to the server
	next, end int                    // buf[next:end] has been read, but not parsed
	words     []byte                 // the last command, as the server gets it
	tokens    [4][]byte
}

const (
	// maxLine is how long the arguments of a command may be, in bytes.
	maxLine = natsserver.MAX_CONTROL_LINE_SIZE
	// readBufferSize is the size of a connection's buffer for input when the client sends
	// little, in bytes: enough for the longest line, with its verb and its end.
	readBufferSize = maxLine + 512
	// ackPrefix begins the subjects for acknowledging messages, and maxAck is the
	// size that no acknowledgement needs, in bytes. Up to it these do not count
	// towards a rate, because there is one for each message that a client is sent.
	ackPrefix = "$JS.ACK."
	maxAck    = 512
	// refusedReply turns a subject into one that the server lets no client use for
	// replies: it answers with a permissions violation.
	refusedReply = "_R_."
)

// errRefused says that the server has been sent something that makes it end the
// connection.
var errRefused = errors.New("refused")

func newRelay(client io.Reader, server io.Writer, admitted func() (*replyRule, error)) *relay {
	r := &relay{client: client, server: server, admitted: admitted, rule: &replyRule{}, smallBuf: make([]byte, readBufferSize)}
	r.buf = r.smallBuf
	return r
}

// run returns when the client or the server is gone, or with errRefused.
func (r *relay) run() error {
	defer r.releaseBuffer()
	for !r.rule.everything || r.limiter != nil {
		if err := r.forwardCommand(); err != nil {
			return err
		}
	}
	for { // nothing more to parse
		r.forward(r.end - r.next)
		if err := r.fill(); err != nil {
			return err
		}
	}
}

// waitForLimit waits until the client may publish one more message.
func (r *relay) waitForLimit() error {
	return r.limiter.await(r.flush, func() error {
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
	left, full := r.buf[r.next:r.end], r.end == len(r.buf)
	switch {
	case full && r.largeBuf == nil:
		r.largeBuf = largeBuffers.Get().(*[largeBufferSize]byte)
		r.buf = r.largeBuf[:]
		copy(r.buf, left)
	case r.largeBuf != nil && r.end < readBufferSize: // less has come than fits into the small buffer
		copy(r.smallBuf, left)
		r.releaseBuffer()
	default:
		copy(r.buf, left)
	}
	r.next, r.end = 0, len(left)
	n, err := r.client.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil // the error will come again
	}
	return err
}

// releaseBuffer releases the large buffer.
func (r *relay) releaseBuffer() {
	if r.largeBuf != nil {
		largeBuffers.Put(r.largeBuf)
		r.largeBuf, r.buf = nil, r.smallBuf
	}
}

// forward makes the next n bytes of input ready for the server, unchanged.
func (r *relay) forward(n int) {
	if r.ready != r.next {
		copy(r.buf[r.ready:], r.buf[r.next:r.next+n])
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
	r.ready += copy(r.buf[r.ready:], text)
	return nil
}

// flush sends the server what is ready for it.
func (r *relay) flush() error {
	if r.ready == 0 {
		return nil
	}
	_, err := r.server.Write(r.buf[:r.ready])
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

// malformed is for input that is not a command.
func (r *relay) malformed() error { return r.fail("?\r\n") }

// writeCommand writes a command: words separated by a space.
func (r *relay) writeCommand(verb []byte, args ...[]byte) error {
	words := append(r.words[:0], verb...)
	for _, word := range args {
		words = append(append(words, ' '), word...)
	}
	r.words = append(words, '\r', '\n')
	return r.write(r.words)
}

// readLine takes the next line, with its end, from the input; it returns false if the
// line is too long. The line is valid until fill is called.
func (r *relay) readLine() ([]byte, bool, error) {
	for {
		read := r.buf[r.next:r.end]
		if n := bytes.IndexByte(read[:min(len(read), readBufferSize)], '\n') + 1; n > 0 {
			r.next += n
			return read[:n], true, nil
		}
		if len(read) >= readBufferSize {
			return read, false, nil
		}
		if err := r.fill(); err != nil {
			return nil, false, err
		}
	}
}

// forwardCommand passes on the next command.
func (r *relay) forwardCommand() error {
	line, ok, err := r.readLine()
	if err != nil {
		return err
	}
	verb, rest := splitVerb(line)
	if !ok || len(rest) > maxLine {
		return r.fail("PUB " + strings.Repeat("x", maxLine+1) + "\r\n")
	}
	if string(verb) == "CONNECT" {
		return r.forwardConnect(rest)
	}
	args, ok := r.split(rest)
	if !ok {
		return r.malformed()
	}
	n := len(args)
	switch string(verb) {
	case "PUB":
		return r.forwardPublish(verb, args, 1)
	case "HPUB":
		return r.forwardPublish(verb, args, 2)
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
		return r.malformed()
	}
	return r.writeCommand(verb, args...)
}

// forwardConnect passes on the client's login, and waits for the server's decision.
func (r *relay) forwardConnect(about []byte) (err error) {
	if r.connected || !isText(about) {
		return r.malformed()
	}
	r.connected = true
	if err = r.writeCommand([]byte("CONNECT"), about); err != nil {
		return err
	}
	if err = r.flush(); err != nil {
		return err
	}
	r.rule, err = r.admitted()
	return err
}

// publishCommand is PUB or HPUB. What the client publishes comes after it.
type publishCommand struct {
	verb, subject []byte
	reply         []byte // nil if there is none
	header, total int    // sizes of the headers, and of these with the payload, in bytes
}

// parsePublish parses a command that ends with a number of sizes: with two, there are
// headers. It returns false if it is malformed.
func parsePublish(verb []byte, args [][]byte, sizes int) (p publishCommand, ok bool) {
	named := len(args) - sizes
	if named < 1 || named > 2 {
		return p, false
	}
	p.verb, p.subject = verb, args[0]
	if named == 2 {
		p.reply = args[1]
	}
	if sizes == 2 {
		p.header = sizeOf(args[named])
	}
	p.total = sizeOf(args[len(args)-1])
	return p, p.header >= 0 && p.total >= p.header
}

// refuse makes the command one that the server refuses, and says why.
func (p *publishCommand) refuse(why string) { p.reply = []byte(refusedReply + why) }

// forwardPublish passes on a message. If it would direct a reply to a subject that is
// not the user's, it becomes one that the server refuses.
func (r *relay) forwardPublish(verb []byte, args [][]byte, sizes int) error {
	p, ok := parsePublish(verb, args, sizes)
	if !ok {
		return r.malformed()
	}
	if p.total > maxAck || !bytes.HasPrefix(p.subject, []byte(ackPrefix)) {
		if err := r.waitForLimit(); err != nil {
			return err
		}
	}
	if !r.rule.everything {
		if err := r.inspect(&p); err != nil {
			return err
		}
	}
	words := append(append(append(r.words[:0], p.verb...), ' '), p.subject...)
	if p.reply != nil {
		words = append(append(words, ' '), p.reply...)
	}
	if sizes == 2 {
		words = strconv.AppendInt(append(words, ' '), int64(p.header), 10)
	}
	words = strconv.AppendInt(append(words, ' '), int64(p.total), 10)
	r.words = append(words, '\r', '\n')
	if err := r.write(r.words); err != nil {
		return err
	}
	if err := r.forwardPayload(p.total); err != nil {
		return err
	}
	return r.forwardMessageEnd()
}

// inspect refuses a message if the rule says so. For that it reads the headers, and
// the body of a request for a consumer, before the server gets any of it.
func (r *relay) inspect(p *publishCommand) error {
	if p.reply != nil && !r.rule.allows(p.reply) {
		p.refuse(string(p.reply))
		return nil
	}
	n := p.header
	if isConsumerRequest(p.subject) {
		n = p.total
	}
	if n > maxInspected {
		p.refuse("long")
		return nil
	}
	if n > r.end-r.next { // reading overwrites the command
		p.verb, p.subject, p.reply = bytes.Clone(p.verb), bytes.Clone(p.subject), bytes.Clone(p.reply)
	}
	for n > r.end-r.next {
		if err := r.fill(); err != nil {
			return err
		}
	}
	seen := r.buf[r.next : r.next+n]
	if why := r.rule.refuses(seen[:p.header], seen[p.header:]); why != "" {
		p.refuse(why)
	}
	return nil
}

// forwardPayload passes on n bytes.
func (r *relay) forwardPayload(n int) error {
	for {
		some := min(n, r.end-r.next)
		r.forward(some)
		if n -= some; n == 0 {
			return nil
		}
		if err := r.fill(); err != nil {
			return err
		}
	}
}

// forwardMessageEnd passes on the end of a message.
func (r *relay) forwardMessageEnd() error {
	const want = "\r\n"
	for {
		got := r.buf[r.next:min(r.next+len(want), r.end)]
		switch {
		case string(got) != want[:len(got)]:
			return r.malformed()
		case len(got) == len(want):
			r.forward(len(want))
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
