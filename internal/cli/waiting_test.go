package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harkbus/hark/internal/certs"
)

// greeter listens, writes a greeting to every client, and keeps the connections. It
// returns its address.
func greeter(t *testing.T, greeting string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var all []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			_, _ = io.WriteString(c, greeting) // the client may be gone
			all = append(all, c)
		}
		for _, c := range all {
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

// TestNoBroker connects to servers that are no broker, or that expect another
// protocol. Each command names the address, the problem and the remedy, on standard
// error alone, and exits with the code from the help. What a server refuses is
// tested in TestLogin of natsdriver.
func TestNoBroker(t *testing.T) {
	ours := certs.New(t)
	cert, key := ours.Server(t)
	startBroker(t, "tls: {cert: '"+cert+"', key: '"+key+"'}\n")
	secureHTTP := strings.TrimPrefix(os.Getenv("HARK_HTTP_URL"), "http://")
	startBroker(t, "")
	plain, plainHTTP := strings.TrimPrefix(os.Getenv("HARK_URL"), "hark://"), strings.TrimPrefix(os.Getenv("HARK_HTTP_URL"), "http://")
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	silent, ssh := greeter(t, ""), greeter(t, "SSH-2.0-OpenSSH_9.6\r\n")
	const nobody = "127.0.0.1:1"
	tests := []struct {
		args string
		code int
		want []string // must be part of standard error
	}{
		{"pub a 1 --url hark://" + nobody, exitFailed, []string{"hark://" + nobody + " (--url): waiting until ", "; Ctrl-C ends\nhark: pub: connect to " + nobody, "nobody listens there (--url); hark serve starts a broker"}},
		{"sub a --url hark://" + silent, exitFailed, []string{"hark: no answer yet from hark://" + silent + " (--url): waiting until ", "hark: sub: connect to " + silent, "i/o timeout; what listens there does not speak first", "run hark doctor"}},
		{"wait a --timeout 4s --url hark://" + silent, exitFailed, []string{"hark: no answer yet from hark://" + silent, "hark: wait: no connection to hark://" + silent + " (--url) within --timeout ("}},
		{"request a 1 --timeout 4s --url hark://" + silent, exitFailed, []string{"hark: no answer yet from hark://" + silent, "hark: request: no connection to hark://" + silent + " (--url) within --timeout ("}},
		{"value watch a --timeout 4s --url hark://" + silent, exitFailed, []string{"no connection to hark://" + silent + " (--url) within --timeout ("}},
		{"pub a 1 --timeout 4s --url hark://" + silent, exitFailed, []string{"no connection to hark://" + silent + " (--url) within --timeout ("}},
		{"pub a 1 --url hark://" + web.Listener.Addr().String(), exitFailed, []string{"want the port for messages, not one for HTTP"}},
		{"pub a 1 --url hark://" + plainHTTP, exitFailed, []string{"want the port for messages, not one for HTTP"}},
		{"pub a 1 --url hark://" + ssh, exitFailed, []string{"connect to " + ssh, "what listens there is no NATS server"}},
		{"pub a 1 --url tls://" + plain, exitFailed, []string{"connect to " + plain, "the server has no TLS: want nats:// instead of tls://"}},
		{"topic list --http http://" + nobody, exitFailed, []string{"http://" + nobody + ": waiting until ", "hark: topic list: ", "nobody listens there; hark serve starts a broker"}},
		{"topic list --http http://" + plain, exitFailed, []string{"that is the port for messages, not the one for HTTP; hark serve"}},
		{"topic list --http https://" + plainHTTP, exitFailed, []string{"the server has no TLS: want http:// instead of https://"}},
		{"topic list --http http://" + secureHTTP, exitFailed, []string{"http://" + secureHTTP + " wants TLS: give its URL with https://"}},
		{"topic list --http https://" + secureHTTP, exitFailed, []string{"?tlsca=FILE in the URL for messages says whose certificates to trust"}},
		{"sub a --where data.n==1 --http http://" + nobody, exitFailed, []string{"http://" + nobody + ": waiting until ", "no HTTP API of a hark broker found at http://" + nobody, "nobody listens there"}},
		{"sub a --where data.n==1 --timeout 4s --http http://" + silent, exitFailed, []string{"hark: no answer yet from http://" + silent, "no connection to http://" + silent + " within --timeout (timed out)"}},
		{"sub a --where data.n==1 --http http://" + plain, exitFailed, []string{"that is the port for messages, not the one for HTTP"}},
	}
	var all sync.WaitGroup
	codes, outs, errs := make([]int, len(tests)), make([]screen, len(tests)), make([]screen, len(tests))
	for i, tt := range tests { // all at once, since most of them wait
		all.Go(func() {
			codes[i] = Run(t.Context(), strings.Fields(tt.args), Streams{In: strings.NewReader(""), Out: &outs[i], Err: &errs[i]})
		})
	}
	all.Wait()
	for i, tt := range tests {
		if out := outs[i].text.String(); codes[i] != tt.code || out != "" {
			t.Errorf("%s: got %d %q, want %d and nothing", tt.args, codes[i], out, tt.code)
		}
		for _, part := range tt.want {
			if !errs[i].has(part) {
				t.Errorf("%s: got %q, which does not say %q", tt.args, errs[i].text.String(), part)
			}
		}
	}
}

// TestWaiting waits for a broker that starts late, or not at all, and checks that
// the command says so once it takes long.
func TestWaiting(t *testing.T) {
	refused := fmt.Errorf("connect: %w", os.NewSyscallError("connect", syscall.ECONNREFUSED))
	reset := fmt.Errorf("connect: %w", os.NewSyscallError("read", syscall.ECONNRESET))
	other := errors.New("who are you?")
	for _, tt := range []struct {
		name    string
		from    time.Duration // when something starts to listen
		answers time.Duration // how long connecting then takes
		err     error         // its error
		want    error
		took    time.Duration
		until   time.Duration // what the notice says; 0 for no notice
		what    string
	}{
		{"at once", 0, 0, nil, nil, 0, 0, ""},
		{"refused for another reason", 0, 0, other, other, 0, 0, ""},
		{"soon", 400 * time.Millisecond, 0, nil, nil, 400 * time.Millisecond, 0, ""},
		{"late", 2 * time.Second, 0, nil, nil, 2 * time.Second, startTimeout, "nobody listens yet at"},
		{"never", time.Hour, 0, nil, refused, startTimeout + startPause, startTimeout, "nobody listens yet at"},
		{"slow", 0, time.Second, nil, nil, time.Second, connectTimeout, "no answer yet from"},
		{"silent", 0, time.Hour, nil, errSilent, connectTimeout, connectTimeout, "no answer yet from"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				ctx, cancel := context.WithTimeoutCause(t.Context(), connectTimeout, errSilent)
				defer cancel()
				var notes screen
				w := waitFor(ctx, &notes, "here")
				err := w.attempts(ctx, func() error {
					if time.Since(start) < min(tt.from/2, time.Second) {
						return reset
					}
					if time.Since(start) < tt.from {
						return refused
					}
					if sleep(ctx, tt.answers) != nil {
						return context.Cause(ctx)
					}
					return tt.err
				})
				w.end()
				said, want := notes.text.String(), ""
				if tt.until > 0 {
					want = fmt.Sprintf("hark: %s here: waiting until %s; Ctrl-C ends\n", tt.what, start.Add(tt.until).Format(time.TimeOnly))
				}
				if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) || time.Since(start) != tt.took || said != want {
					t.Errorf("got %v after %v and %q, want %v after %v and %q", err, time.Since(start), said, tt.want, tt.took, want)
				}
			})
		})
	}
}

// TestLostConnection cuts the connections of commands, which must say so, and say
// when they are back.
func TestLostConnection(t *testing.T) {
	startBroker(t, "topics: [{name: stored}]")
	for _, tt := range []struct {
		name string
		args []string
		web  bool
		back string
	}{
		{"messages", []string{"sub", "stored"}, false, " again"},
		{"http", []string{"sub", "stored", "--where", "data.n > 0"}, true, " again"},
		{"http of what is not stored", []string{"sub", "live", "--where", "data.n > 0"}, true, " again; what was published meanwhile is lost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			messages, web, direct := doors(t)
			door, where := messages, os.Getenv("HARK_URL")
			if tt.web {
				door, where = web, os.Getenv("HARK_HTTP_URL")
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out, errs, done := newScreen(), newScreen(), make(chan int, 1)
			go func() { done <- Run(ctx, tt.args, Streams{Out: out, Err: errs}) }()
			for !out.has("\n") { // it has not subscribed yet
				publish(t, direct, tt.args[1], 1)
			}
			door.cut(true)
			errs.after(t, "hark: not connected to "+where+" any more")
			door.let()
			errs.after(t, "hark: connected to "+where)
			cancel()
			if code := <-done; code != exitInterrupted || !errs.has("hark: connected to "+where+tt.back+"\n") {
				t.Errorf("got %d %s", code, errs.text.String())
			}
		})
	}
}
