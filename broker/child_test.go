package broker

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/leak"
)

// childVariable turns the test binary into a broker to be killed or measured. Its
// value is the configuration file.
const childVariable = "HARK_BROKER_CHILD"

func TestMain(m *testing.M) {
	if dir, step, ok := strings.Cut(os.Getenv(replayChild), " "); ok {
		runReplayChild(dir, step)
	}
	for variable, run := range map[string]func(value string) error{childVariable: serveChild, consumerVariable: consumeUntilKilled} {
		value := os.Getenv(variable)
		if value == "" {
			continue
		}
		if err := run(value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	leak.Main(m, "github.com/nats-io/nats-server/")
}

// serveChild runs a broker until its standard input ends.
func serveChild(file string) error {
	c, err := Load(Source{File: file})
	if err != nil {
		return err
	}
	b, err := New(c, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.Log.SlogLevel()})))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := b.Start(ctx); err != nil {
		return err
	}
	fmt.Println(b.Addr(), b.HTTPAddr())
	_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent
	return b.Stop(ctx)
}

// child is a broker in its own process.
type child struct {
	addr, http string
	cmd        *exec.Cmd
	in         io.Closer
	complaint  *strings.Builder
	read       chan struct{} // closed when all its output has been read
	once       sync.Once
}

// startChild runs a broker in its own process, until the test ends.
func startChild(t *testing.T, file string) *child {
	t.Helper()
	c, lines := startProcess(t, childVariable, file)
	line, ok := <-lines
	if !ok {
		c.kill()
		t.Fatalf("the broker does not start: %s", c.complaint)
	}
	if _, err := fmt.Sscan(line, &c.addr, &c.http); err != nil {
		t.Fatal(err)
	}
	return c
}

// connect returns a connection to the broker, with options for its URL, until the
// test ends.
func (c *child) connect(ctx context.Context, t *testing.T, options string) *natsdriver.Conn {
	t.Helper()
	conn, err := natsdriver.Open(ctx, "nats://"+c.addr+options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = conn.Close(ctx) // the broker may be gone
	})
	return conn
}

// startProcess runs the test binary with a variable set, until the test ends. The
// channel delivers the lines that it writes, and is closed after the last.
func startProcess(t *testing.T, variable, value string) (*child, <-chan string) {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0]), complaint: &strings.Builder{}, read: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), variable+"="+value)
	c.cmd.Stderr = c.complaint
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	lines := make(chan string, 4096)
	go func() {
		defer close(c.read)
		defer close(lines)
		for reader := bufio.NewReader(out); ; {
			line, err := reader.ReadString('\n')
			if err != nil {
				return // ignore an incomplete line
			}
			lines <- strings.TrimSuffix(line, "\n")
		}
	}()
	return c, lines
}

// kill ends the process at once, as kill -9 does.
func (c *child) kill() {
	c.once.Do(func() {
		_ = c.cmd.Process.Kill() // it may have exited
		<-c.read                 // before Wait, which closes the pipe
		_ = c.cmd.Wait()         // the error is that it was killed
	})
}

// memory returns how much memory the process uses, in MiB, or 0 if that is not
// known.
func (c *child) memory(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	n, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "kB", 2)[0]))
	if err != nil {
		t.Fatal(err)
	}
	return n / 1024
}

// childConfig writes the configuration of a broker in its own process, with
// addresses that stay the same across restarts.
func childConfig(t *testing.T, text string) string {
	t.Helper()
	return write(t, fmt.Sprintf("listen: %s\nhttp: %s\ndata: %s\nlog: {level: error}\n%s", freeAddress(t), freeAddress(t), t.TempDir(), text))
}

// freeAddress returns an address that is not in use.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// long returns n with HARK_LONG=1, and otherwise short, which takes seconds.
func long(short, n int) int {
	if os.Getenv("HARK_LONG") == "1" {
		return n
	}
	return short
}
