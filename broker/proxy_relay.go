package broker

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// relay hands on what a client of NATS says to the server: each command that both have
// to understand, written anew, so that the server cannot read it differently, and what is
// published as it is. Whatever else a client says, the server gets something in its place
// that it refuses, and so answers and logs in its own words.
type relay struct {
	client io.Reader
	server io.Writer
	// admitted returns the rule of the user as whom the server has let the client in. It
	// waits for that.
	admitted func() (*replyRule, error)

	rule      *replyRule
	connected bool          // the client has said who it is
	in        *bufio.Reader // reads from the relay
	out       *bufio.Writer // what the server has not got yet; nil for nothing
	tokens    [4][]byte
}

const (
	// lineMost is how long what follows the verb of a command may be, in bytes.
	lineMost = natsserver.MAX_CONTROL_LINE_SIZE
	// readRoom is the room that a connection has for what it reads, in bytes: for the
	// longest line, with its verb and its end.
	readRoom = lineMost + 512
	// writeRoom is the room for what is written at once, in bytes. Connections that are
	// quiet have none.
	writeRoom = 32 << 10
	// refusedReply makes a subject one of those that the server lets no client name for
	// replies: it answers with a permissions violation.
	refusedReply = "_R_."
)

// errRefused says that the server has been told something that makes it end the
// connection.
var errRefused = errors.New("refused")

var relayRooms = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, writeRoom) }}

func newRelay(client io.Reader, server io.Writer, admitted func() (*replyRule, error)) *relay {
	r := &relay{client: client, server: server, admitted: admitted, rule: &replyRule{}}
	r.in = bufio.NewReaderSize(r, readRoom)
	return r
}

// run returns when the client has gone, when the server has, or with errRefused.
func (r *relay) run() error {
	for !r.rule.everything {
		if err := r.command(); err != nil {
			return err
		}
	}
	if err := r.flush(); err != nil {
		return err
	}
	_, err := r.in.WriteTo(r.server) // there is nothing to look at any more
	return err
}

// Read implements io.Reader: it reads from the client when the server has all that the
// client has said before.
func (r *relay) Read(p []byte) (int, error) {
	if r.out != nil && r.out.Buffered() > 0 { // payload reads into the room of one that is empty
		if err := r.flush(); err != nil {
			return 0, err
		}
	}
	return r.client.Read(p)
}

// writer returns where to write for the server.
func (r *relay) writer() *bufio.Writer {
	if r.out == nil {
		r.out = relayRooms.Get().(*bufio.Writer)
		r.out.Reset(r.server)
	}
	return r.out
}

func (r *relay) flush() error {
	if r.out == nil {
		return nil
	}
	err := r.out.Flush()
	r.out.Reset(nil)
	relayRooms.Put(r.out)
	r.out = nil
	return err
}

// fail tells the server something that it refuses.
func (r *relay) fail(text string) error {
	w := r.writer()
	_, _ = w.WriteString(text) // Flush has its error
	if err := r.flush(); err != nil {
		return err
	}
	return errRefused
}

// garbled is for what is no command.
func (r *relay) garbled() error { return r.fail("?\r\n") }

// write writes a command: words with a space between them.
func (r *relay) write(words ...[]byte) error {
	w := r.writer()
	for i, word := range words {
		if i > 0 {
			_ = w.WriteByte(' ') // the last write has its error
		}
		_, _ = w.Write(word)
	}
	_, err := w.WriteString("\r\n")
	return err
}

// command hands on the next command.
func (r *relay) command() error {
	line, err := r.in.ReadSlice('\n')
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		return err
	}
	verb, rest := splitVerb(line)
	if err != nil || len(rest) > lineMost {
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
	return r.write(append([][]byte{verb}, args...)...)
}

// connect hands on who the client says that it is, and waits for what the server
// makes of it.
func (r *relay) connect(about []byte) (err error) {
	if r.connected || !isText(about) {
		return r.garbled()
	}
	r.connected = true
	if err = r.write([]byte("CONNECT"), about); err != nil {
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
	var reply, ahead []byte
	if named == 2 {
		reply = args[1]
	}
	look := header // how much is looked at before the server gets any of it
	if isConsumerRequest(subject) {
		look = total
	}
	switch {
	case named == 2 && !r.rule.allows(reply):
		refused = refusedReply
	case look > lookMost:
		refused, reply = refusedReply, []byte("long")
	case look > r.in.Buffered(): // what is read takes the place of the words
		verb, subject, reply, ahead = bytes.Clone(verb), bytes.Clone(subject), bytes.Clone(reply), make([]byte, look)
		if _, err := io.ReadFull(r.in, ahead); err != nil {
			return err
		}
	}
	if refused == "" {
		seen := ahead
		if seen == nil {
			seen, _ = r.in.Peek(look) // it is there
		}
		if why := r.rule.refuses(seen[:header], seen[header:]); why != "" {
			refused, reply = refusedReply, []byte(why)
		}
	}
	w := r.writer()
	words := append(w.AvailableBuffer(), verb...)
	words = append(append(words, ' '), subject...)
	if len(reply) > 0 {
		words = append(append(append(words, ' '), refused...), reply...)
	}
	for _, n := range size[:sizes] {
		words = strconv.AppendInt(append(words, ' '), int64(n), 10)
	}
	if _, err := w.Write(append(words, '\r', '\n')); err != nil {
		return err
	}
	_, _ = w.Write(ahead) // the next write has its error
	if err := r.payload(total - len(ahead)); err != nil {
		return err
	}
	return r.messageEnd()
}

// payload hands on so many bytes.
func (r *relay) payload(n int) error {
	for n > 0 {
		if r.in.Buffered() == 0 { // it may take its time
			if err := r.flush(); err != nil {
				return err
			}
		}
		w := r.writer()
		if w.Available() == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
		room := w.AvailableBuffer()[:min(n, w.Available())]
		got, err := r.in.Read(room)
		if err != nil {
			return err
		}
		if _, err := w.Write(room[:got]); err != nil {
			return err
		}
		n -= got
	}
	return nil
}

// messageEnd hands on what stands behind a message.
func (r *relay) messageEnd() error {
	for _, want := range []byte("\r\n") {
		got, err := r.in.ReadByte()
		if err != nil {
			return err
		}
		if got != want {
			return r.garbled()
		}
	}
	_, err := r.writer().WriteString("\r\n")
	return err
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
