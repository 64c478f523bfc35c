package natsdriver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// processVariable turns the test binary into a server. Its value is the task to
// run, as JSON.
const processVariable = "HARK_NATSDRIVER_PROCESS"

// processTask is the task of a child process: to be the server of this module, or
// to supervise that of another program.
type processTask struct {
	Config  string // path
	Program string
}

// runProcess is the child's main function. It returns when standard input ends, so
// that no child outlives its test, however that ends.
func runProcess(value string) {
	var task processTask
	err := json.Unmarshal([]byte(value), &task)
	if err == nil && task.Program != "" {
		cmd := exec.Command(task.Program, "-c", task.Config)
		if err = cmd.Start(); err == nil {
			_, _ = io.Copy(io.Discard, os.Stdin) // only the end matters
			_ = cmd.Process.Kill()               // it may have exited
			_ = cmd.Wait()                       // it was killed
			os.Exit(0)
		}
	}
	var opts *server.Options
	if err == nil {
		opts, err = server.ProcessConfigFile(task.Config)
	}
	var srv *server.Server
	if err == nil {
		opts.NoSigs = true
		srv, err = server.NewServer(opts)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	srv.ConfigureLogger()
	srv.Start()
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// process is a server in its own process.
type process struct {
	t    *testing.T
	name string
	task processTask
	port int
	dir  string

	cmd       *exec.Cmd
	input     io.Closer
	complaint bytes.Buffer
}

// accounts returns the configuration of n users, each in a separate account, so
// that one server stands for many empty ones.
func accounts(n int) string {
	var b strings.Builder
	b.WriteString("accounts {\n")
	for i := range n {
		fmt.Fprintf(&b, "  c%d { jetstream: enabled, users: [ { user: c%d, password: p } ] }\n", i, i)
	}
	b.WriteString("}\n")
	return b.String()
}

// newProcess prepares a server; more is appended to its configuration. An empty
// program means the server of this module.
func newProcess(t *testing.T, name, program, more string) *process {
	t.Helper()
	p := &process{t: t, name: name, port: freePort(t), dir: t.TempDir()}
	p.task = processTask{Config: filepath.Join(p.dir, "server.conf"), Program: program}
	config := fmt.Sprintf("server_name: %s\nlisten: 127.0.0.1:%d\nlog_file: %q\njetstream { store_dir: %q }\n%s",
		name, p.port, p.logFile(), filepath.Join(p.dir, "data"), more)
	if err := os.WriteFile(p.task.Config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *process) logFile() string { return filepath.Join(p.dir, "log") }

// start starts the server, which runs at most until the end of the test.
func (p *process) start() {
	p.t.Helper()
	value, err := json.Marshal(p.task)
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), processVariable+"="+string(value))
	p.complaint.Reset()
	p.cmd.Stderr = &p.complaint
	if p.input, err = p.cmd.StdinPipe(); err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// await returns once the server accepts connections.
func (p *process) await() {
	p.t.Helper()
	eventually(p.t, "server "+p.name+" listens", func() bool {
		c, err := net.Dial("tcp", p.address())
		if err == nil {
			_ = c.Close() // the connection was only a probe
		}
		return err == nil
	})
}

// kill ends the server as kill -9 does.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have exited
	p.wait()
}

// stop ends the server by closing its input.
func (p *process) stop() {
	if p.cmd == nil {
		return
	}
	_ = p.input.Close() // it may have exited
	p.wait()
	if p.complaint.Len() > 0 {
		p.t.Errorf("server %s: %s", p.name, &p.complaint)
	}
}

func (p *process) wait() {
	_ = p.cmd.Wait() // how it exited is known
	p.cmd = nil
}

func (p *process) address() string { return "127.0.0.1:" + strconv.Itoa(p.port) }

// tell logs the end of the server's own log if the test has failed.
func (p *process) tell() {
	if !p.t.Failed() {
		return
	}
	text, err := os.ReadFile(p.logFile())
	if err != nil {
		p.t.Log(err)
	}
	p.t.Logf("the end of the log of %s:\n%s", p.name, text[max(0, len(text)-4000):])
}

// freePort finds a free port that is not given to outgoing connections either, so
// that a server can be started on it again.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 10000 + rand.N(20000)
		if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return port
		}
	}
	t.Fatal("there is no free port")
	return 0
}
