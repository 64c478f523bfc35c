package broker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// eveRule is the rule of a restricted user.
var eveRule = &replyRule{inbox: "_INBOX.eve."}

// relayed returns what the server gets when a client sends something, and the final
// error.
func relayed(client io.Reader) (string, error) {
	var server bytes.Buffer
	err := newRelay(client, &server, func() (*replyRule, error) { return eveRule, nil }).run()
	return server.String(), err
}

func TestRelay(t *testing.T) {
	const hello, tooLong, garbage = "CONNECT {}\r\n", "PUB " + "xx", "?\r\n"
	long := strings.Repeat("a", maxLine)
	const create = "$JS.API.CONSUMER.CREATE.s.c"
	consumer := func(to string) string {
		return fmt.Sprintf(`{"stream_name":"s","config":{"name":"c","deliver_subject":%q}}`, to)
	}
	pub := func(subject, body string) string {
		return fmt.Sprintf("PUB %s %d\r\n%s\r\n", subject, len(body), body)
	}
	hpub := func(words, headers, body string) string {
		return fmt.Sprintf("HPUB %s %d %d\r\n%s%s\r\n", words, len(headers), len(headers+body), headers, body)
	}
	const version, trace = "NATS/1.0\r\n", "Nats-Trace-Dest: b\r\n\r\n"
	for _, tt := range []struct{ name, in, out string }{
		{"small letters, tabs, and a line without a return", "pub\ta \t 03\nabc\r\n", "PUB a 3\r\nabc\r\n"},
		{"an own inbox", "PUB a _INBOX.eve.x.y 2\r\nhi\r\n", "PUB a _INBOX.eve.x.y 2\r\nhi\r\n"},
		{"headers", hpub("a _INBOX.eve.x", version+"A: b\r\n\r\n", "body"), hpub("a _INBOX.eve.x", version+"A: b\r\n\r\n", "body")},
		{"headers longer than the buffer", hpub("a _INBOX.eve.x", version+"A: "+strings.Repeat(long, 4)+"\r\n\r\n", "body"), hpub("a _INBOX.eve.x", version+"A: "+strings.Repeat(long, 4)+"\r\n\r\n", "body")},
		{"headers that are too long", hpub("a", version+strings.Repeat(long, 16), ""), hpub("a _R_.long", version+strings.Repeat(long, 16), "")},
		{"very many headers", hpub("a", version+strings.Repeat("a:\r\n", maxHeaderFields)+"\r\n", ""), hpub("a", version+strings.Repeat("a:\r\n", maxHeaderFields)+"\r\n", "")},
		{"more headers than that", hpub("a", version+strings.Repeat("a:\r\n", maxHeaderFields+1)+"\r\n", ""), hpub("a _R_.headers", version+strings.Repeat("a:\r\n", maxHeaderFields+1)+"\r\n", "")},
		{"headers for a trace", hpub("a", version+trace, "body"), hpub("a _R_.headers", version+trace, "body")},
		{"headers for a trace, to be stored without the status", hpub("a _INBOX.eve.x", "NATS/1.0 1\r\n"+trace, "body"), hpub("a _R_.headers", "NATS/1.0 1\r\n"+trace, "body")},
		{"headers with a status", hpub("a", "NATS/1.0 1\r\n\r\n", ""), hpub("a _R_.headers", "NATS/1.0 1\r\n\r\n", "")},
		{"a trace header in the payload", hpub("a", version+"\r\n", trace), hpub("a", version+"\r\n", trace)},
		{"nothing", "PUB a 0\r\n\r\nPING\r\n", "PUB a 0\r\n\r\nPING\r\n"},
		{"other commands", "sub a.> 1\r\nSUB a q 2\r\nUNSUB 1 \r\nUnsub 2 5\r\nping\r\npong\r\n", "SUB a.> 1\r\nSUB a q 2\r\nUNSUB 1\r\nUNSUB 2 5\r\nPING\r\nPONG\r\n"},
		{"lines in the payload", "PUB a 13\r\nPUB b c 0\r\n\r\n\r\nPING\r\n", "PUB a 13\r\nPUB b c 0\r\n\r\n\r\nPING\r\n"},
		{"the inbox of somebody else", "PUB a _INBOX.bob.x 1\r\nb\r\nPING\r\n", "PUB a _R_._INBOX.bob.x 1\r\nb\r\nPING\r\n"},
		{"the inbox of somebody with a longer name", "PUB a _INBOX.evelyn.x 0\r\n\r\n", "PUB a _R_._INBOX.evelyn.x 0\r\n\r\n"},
		{"an inbox with a wildcard", "PUB a _INBOX.eve.> 0\r\n\r\n", "PUB a _R_._INBOX.eve.> 0\r\n\r\n"},
		{"an inbox with an empty token", "PUB a _INBOX.eve..x 0\r\n\r\n", "PUB a _R_._INBOX.eve..x 0\r\n\r\n"},
		{"the inbox alone", "PUB a _INBOX.eve. 0\r\n\r\n", "PUB a _R_._INBOX.eve. 0\r\n\r\n"},
		{"a request to the server as the reply subject", "PUB a $JS.API.STREAM.DELETE.s 0\r\n\r\n", "PUB a _R_.$JS.API.STREAM.DELETE.s 0\r\n\r\n"},
		{"a pull consumer", pub(create, consumer("")), pub(create, consumer(""))},
		{"a consumer that pushes to an own inbox", pub(create, consumer("_INBOX.eve.x")), pub(create, consumer("_INBOX.eve.x"))},
		{"a consumer that pushes elsewhere", pub(create, consumer("b")), pub(create+" _R_.b", consumer("b"))},
		{"a consumer that pushes to no subject", pub(create, consumer("a b")), pub(create+" _R_.unclear", consumer("a b"))},
		{"a consumer twice", pub(create, "{}{}"), pub(create+" _R_.unclear", "{}{}")},
		{"a consumer with an unknown field", pub(create, `{"x":1}`), pub(create+" _R_.unclear", `{"x":1}`)},
		{"a consumer with headers", hpub(create, version+"\r\n", "{}"), hpub(create, version+"\r\n", "{}")},
		{"a consumer with headers that pushes elsewhere", hpub(create, version+"\r\n", consumer("b")), hpub(create+" _R_.b", version+"\r\n", consumer("b"))},
		{"a request for a consumer that is too long", pub(create, strings.Repeat(" ", maxInspected+1)), pub(create+" _R_.long", strings.Repeat(" ", maxInspected+1))},
		{"a payload longer than the buffer", pub("a", strings.Repeat("0123456789", 20_000)), pub("a", strings.Repeat("0123456789", 20_000))},
		{"the longest line", "SUB " + long[:maxLine-2] + " 1\r\n", "SUB " + long[:maxLine-2] + " 1\r\n"},
		{"a line that is too long", "SUB " + long + " 1\r\nPING\r\n", tooLong},
		{"a line that does not end", "SUB " + strings.Repeat(long, 3), tooLong},
		{"CONNECT twice", "CONNECT {}\r\n", garbage},
		{"a command of servers", "RS+ $G a\r\n", garbage},
		{"a command to clients", "INFO {}\r\n", garbage},
		{"no command", "GET / HTTP/1.1\r\n", garbage},
		{"a letter that only looks like one", "\u017fub a 1\r\n", garbage},
		{"a line that begins with a blank", " PING\r\n", garbage},
		{"an empty line", "\r\nPING\r\n", garbage},
		{"a return in the middle", "PUB a\rb 1\r\nx\r\n", garbage},
		{"a subject with a control character", "SUB a\x00 1\r\n", garbage},
		{"too many words", "PUB a b c 1\r\nx\r\n", garbage},
		{"too few words", "PUB 1\r\nx\r\n", garbage},
		{"no number", "PUB a -1\r\n", garbage},
		{"a number that is too large", "PUB a 1000000000\r\n", garbage},
		{"more headers than there is", "HPUB a 5 4\r\nhhhh\r\n", garbage},
		{"no end of a message", "PUB a 1\r\nxyPING\r\n", "PUB a 1\r\nx" + garbage},
		{"one line end of two", "PUB a 1\r\nx\nPING\r\n", "PUB a 1\r\nx" + garbage},
	} {
		out, err := relayed(strings.NewReader(hello + tt.in))
		want := hello + tt.out
		if tt.out == tooLong {
			want = hello + "PUB " + strings.Repeat("x", maxLine+1) + "\r\n"
		}
		stops := tt.out == tooLong || strings.HasSuffix(tt.out, garbage)
		if out != want || errors.Is(err, errRefused) != stops || !stops && err != io.EOF {
			t.Errorf("%s: got %.200q, %v, want %.200q", tt.name, out, err, want)
		}
	}
	// A client that has not logged in has no inbox.
	if out, _ := relayed(strings.NewReader("PUB a _INBOX.eve.x 0\r\n\r\n")); out != "PUB a _R_._INBOX.eve.x 0\r\n\r\n" {
		t.Errorf("before CONNECT: got %q", out)
	}
}

// said is a command as the server understands it.
type said struct{ verb, subject, reply, rest, body string }

// serverReads parses input as the server does (parser.go of nats-server), and
// returns the complete commands. It is lenient where the server is.
func serverReads(in string) (all []said) {
	verbs := []string{"CONNECT", "HPUB", "PUB", "UNSUB", "SUB", "PING", "PONG", "+OK", "-ERR", "INFO"}
next:
	for in != "" {
		for _, verb := range verbs {
			if len(in) < len(verb) || asciiUpper(in[:len(verb)]) != verb {
				continue
			}
			rest := in[len(verb):]
			args := strings.TrimLeft(rest, " \t")
			line, after, whole := strings.Cut(args, "\n")
			if !whole {
				return all
			}
			switch verb {
			case "PING", "PONG", "+OK":
				_, in, _ = strings.Cut(rest, "\n")
				all = append(all, said{verb: verb})
				continue next
			case "CONNECT":
			default:
				if args == rest {
					return all // there is no blank
				}
			}
			// A carriage return is dropped from the end of the line if there is one
			// anywhere but at its beginning.
			if len(line) > 0 && strings.Contains(line[1:], "\r") {
				line = line[:len(line)-1]
			}
			words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
			s := said{verb: verb, rest: strings.Join(words, " ")}
			sizes := map[string]int{"PUB": 1, "HPUB": 2}[verb]
			if sizes == 0 {
				all, in = append(all, s), after
				continue next
			}
			if n := len(words) - sizes; n != 1 && n != 2 {
				return all
			} else if s.subject = words[0]; n == 2 {
				s.reply = words[1]
			}
			var header, total int
			for _, digits := range words[len(words)-sizes:] {
				header, total = total, sizeOf([]byte(digits))
				if total < 0 {
					return all
				}
			}
			s.rest = fmt.Sprint(header, " ", total)
			if header > total || len(after) < total+2 || after[total:total+2] != "\r\n" {
				return all
			}
			s.body, in = after[:total], after[total+2:]
			all = append(all, s)
			continue next
		}
		return all
	}
	return all
}

func asciiUpper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// harmless reports whether the server, as it reads a user's input, replies only
// where it may.
func (s said) harmless() bool {
	mine := func(subject string) bool {
		return strings.HasPrefix(subject, "_INBOX.eve.") && len(subject) > len("_INBOX.eve.") && !strings.ContainsAny(subject, "*>")
	}
	if s.verb != "PUB" && s.verb != "HPUB" || strings.HasPrefix(s.reply, "_R_.") {
		return true
	}
	if s.reply != "" && !mine(s.reply) {
		return false
	}
	var header, total int
	_, _ = fmt.Sscan(s.rest, &header, &total) // serverReads has formatted it
	if head := s.body[:header]; strings.Contains(head, "Nats-Trace-Dest") || head != "" && !strings.HasPrefix(head, "NATS/1.0\r\n") {
		return false
	}
	if !strings.HasPrefix(s.subject, "$JS.API.CONSUMER.CREATE") && !strings.HasPrefix(s.subject, "$JS.API.CONSUMER.DURABLE.CREATE") {
		return true
	}
	// The server decodes one text after the other into the same variable.
	var asked struct {
		Config struct {
			To string `json:"deliver_subject"`
		} `json:"config"`
	}
	for d := json.NewDecoder(strings.NewReader(s.body[header:])); ; {
		if err := d.Decode(&asked); err != nil {
			return asked.Config.To == "" || mine(asked.Config.To)
		}
	}
}

// FuzzRelay compares the relay's output with how the server would have read the
// client's input. The server must get the same commands, though perhaps not all of
// them, and none that directs a reply to a subject that is not the user's.
func FuzzRelay(f *testing.F) {
	for _, seed := range []string{
		"PING\r\n", "PUB a b 3\r\nabc\r\nPING\r\n", "hpub a _INBOX.eve.x 12 13\nNATS/1.0\r\n\r\ny\r\n", "HPUB a 33 33\r\nNATS/1.0 1\r\nNats-Trace-Dest: b\r\n\r\n\r\n", "PUB a\rb c 0\r\n\r\n", "PUB a 9\r\nPUB b c 0\r\n\r\n", "SUB a q 1\r\nUNSUB 1\r\n",
		"PUB $JS.API.CONSUMER.CREATE.s.c 49\r\n{\"config\":{\"deliver_subject\":\"x\"}}{\"config\":null}\r\n", "CONNECT{}\r\nPUB \r 1\r\nPUB a 1\r\n", "\r\n", "+OK\r\nPUB a x 0\r\n\r\n",
		"PUB $JS.API.CONSUMER.DURABLE.CREATE.s.c _INBOX.eve.1 38\r\n{\"CONFIG\":{\"Deliver_\\u0053ubject\":\"x\"}}\r\n", "PUB a _INBOX.eve.* 0\r\n\r\n", "PUB a _INBOX.eve.x\t_R_.y 0\r\n\r\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		in = "CONNECT {}\r\n" + in
		out, err := relayed(strings.NewReader(in))
		got, want := serverReads(out), serverReads(in)
		if errors.Is(err, errRefused) && !strings.HasSuffix(out, "?\r\n") && !strings.HasSuffix(out, strings.Repeat("x", maxLine+1)+"\r\n") {
			t.Errorf("%q: the server is not told anything that it refuses: %q", in, out)
		}
		for i, g := range got {
			if !g.harmless() {
				t.Errorf("%q: the server gets %q", in, g)
			}
			if i >= len(want) {
				t.Fatalf("%q: the server gets %q, which it would not have read", in, g)
			}
			w := want[i]
			if strings.HasPrefix(g.reply, "_R_.") {
				w.reply = g.reply
			}
			if g != w {
				t.Errorf("%q: the server gets %q, and would have read %q", in, g, w)
			}
		}
		if slow, slowErr := relayed(iotest.OneByteReader(strings.NewReader(in))); slow != out || !errors.Is(slowErr, err) {
			t.Errorf("%q: byte by byte the server gets %q, %v, want %q, %v", in, slow, slowErr, out, err)
		}
	})
}

// TestRelayWaitsForNothing sends part of a message. The input before it must reach
// the server, and so must the part.
func TestRelayWaitsForNothing(t *testing.T) {
	parts := []string{"CONNECT {}\r\n", "SUB a 1\r\nPU", "B a 10\r\n01234", "56789\r", "\nPING\r\n"}
	want := []string{"CONNECT {}\r\n", "SUB a 1\r\n", "PUB a 10\r\n01234", "56789\r", "\nPING\r\n"}
	want[3], want[4] = "56789", "\r\nPING\r\n"
	var got []string
	var server bytes.Buffer
	client := readerFunc(func(p []byte) (int, error) {
		if server.Len() > 0 {
			got = append(got, server.String())
			server.Reset()
		}
		if len(parts) == 0 {
			return 0, io.EOF
		}
		n := copy(p, parts[0])
		parts[0] = parts[0][n:]
		if parts[0] == "" {
			parts = parts[1:]
		}
		return n, nil
	})
	if err := newRelay(client, &server, func() (*replyRule, error) { return eveRule, nil }).run(); err != io.EOF {
		t.Error(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestRelayInPieces sends messages of many sizes in pieces of many sizes. Each
// arrives unchanged, whichever buffer it is in, and the large buffer is released.
func TestRelayInPieces(t *testing.T) {
	var in strings.Builder
	in.WriteString("CONNECT {}\r\n")
	for _, size := range []int{0, 1, readBufferSize - 20, readBufferSize, readBufferSize + 1, 1, 1, largeBufferSize - 10, largeBufferSize, largeBufferSize + 1, 3*largeBufferSize + readBufferSize, 5, 6, 7} {
		fmt.Fprintf(&in, "PUB a.b _INBOX.eve.%d %d\r\n%s\r\n", size, size, strings.Repeat("0123456789", size/10+1)[:size])
		headers := "NATS/1.0\r\nA: " + strings.Repeat("x", min(size, maxInspected-20)) + "\r\n\r\n"
		fmt.Fprintf(&in, "HPUB a.b %d %d\r\n%s%s\r\nPING\r\n", len(headers), len(headers)+3, headers, "abc")
	}
	for _, most := range []int{1, 7, 1000, readBufferSize - 1, readBufferSize, largeBufferSize - 1, largeBufferSize, 1 << 20} {
		all, rest := in.String(), strings.NewReader(in.String())
		var server bytes.Buffer
		r := newRelay(readerFunc(func(p []byte) (int, error) { return rest.Read(p[:min(len(p), most)]) }), &server, func() (*replyRule, error) { return eveRule, nil })
		if err := r.run(); err != io.EOF {
			t.Errorf("in pieces of %d: %v", most, err)
		}
		if got := server.String(); got != all {
			n := 0
			for n < min(len(got), len(all)) && got[n] == all[n] {
				n++
			}
			t.Errorf("in pieces of %d: the server gets %d bytes of %d, and something else from %d on: %.100q", most, len(got), len(all), n, got[n:])
		}
		if r.largeBuf != nil {
			t.Errorf("in pieces of %d: the large buffer is not released", most)
		}
	}
}

type readerFunc func([]byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
