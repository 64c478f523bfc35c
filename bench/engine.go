package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// The rest of this file measures hark over engines: clients in this process and
// a NATS server in another, reached over the loopback interface and started
// anew for each run.

// engineWorkloads are the workloads of make bench-engines.
var engineWorkloads = []workload{
	{
		name: "X ephemeral, 128 B", units: []string{"ns"}, messages: 1_600_000, peers: ephemeral(128), baseline: rawNATS, run: carrying,
		note: "One publisher, one subscriber, at most 32,768 messages on their way.",
	},
	{name: "X ephemeral, 1 kB", units: []string{"ns"}, messages: 800_000, peers: ephemeral(1024), baseline: rawNATS, run: carrying},
	{
		name: "X stored, one at a time, 128 B", units: []string{"ns"}, messages: 10_000, peers: storedSingly(128), baseline: rawNATS, run: carrying,
		note: "One goroutine that waits for each message to be stored; until all have been delivered and acknowledged.",
	},
	{
		name: "X stored, 64 goroutines, 128 B", units: []string{"ns"}, messages: 100_000, peers: storedByMany(128), baseline: rawAsync, run: carrying,
		note: "Until all have been delivered and acknowledged. 64 goroutines wait for each of their messages, or each for 16 at a time (`PublishAll`), so that 1,024 are on their way; raw nats.go has a window of 1,024 messages without waiting. The fast batch by hand is one endless `PublishAll` with nats.go as the consumer: the fastest that we know.",
	},
	{name: "X stored, 64 goroutines, 1 kB", units: []string{"ns"}, messages: 50_000, peers: storedByMany(1024), baseline: rawAsync, run: carrying},
	{
		name: "X read in order, 128 B", units: []string{"ns"}, messages: 200_000, peers: readInOrder(128), baseline: rawNATS, run: carrying,
		note: "Everything that a topic has, from the start, by one subscription that is not in a group.",
	},
	{
		name: "X synced to disk, 64 goroutines, 128 B", units: []string{"ns"}, messages: 20_000, peers: synced(128), baseline: rawAsync, run: carrying,
		note: "Published only; each message is on disk before it counts. raw nats.go has a window of 1,024 messages.",
	},
	{
		name: "X group of 4, 128 B", units: []string{"ns"}, messages: 100_000, peers: groupOfFour(128), baseline: harkUnordered, run: carrying,
		note: "Everything that a topic with 1,000 keys has, by four members, until all is acknowledged.",
	},
	{name: "X request", units: []string{"ns", "ns"}, parts: []string{"p50", "p99"}, messages: 10_000, peers: requests, baseline: rawNATS, run: asking},
	{
		name: "X one publish at a time, in a directory or over TCP", units: []string{"ns"}, messages: 10_000, peers: inDirectory(128), baseline: harkTCP, run: carrying,
		note: "Durability Relaxed, published only.",
	},
	{
		name: "X channel 8→8, capacity 0", units: []string{"ns"}, messages: 20_000, peers: chansOf(0), baseline: rawPrototype, run: carrying,
		note: "128 B in memory. The prototypes are the least that can be done: nothing can be closed, and but for the one that confirms a value may come twice.",
	},
	{name: "X channel 8→8, capacity 1", units: []string{"ns"}, messages: 10_000, peers: chansOf(1), baseline: rawPrototype, run: carrying},
	{name: "X channel 8→8, capacity 16", units: []string{"ns"}, messages: 20_000, peers: chansOf(16), baseline: rawPrototype, run: carrying},
	{name: "X channel 8→8, capacity 1024", units: []string{"ns"}, messages: 20_000, peers: chansOf(1024), baseline: rawPrototype, run: carrying},
}

const (
	rawNATS  = "nats.go"
	rawAsync = "nats.go, window of 1,024"
)

// carrying is operating without the count of allocations, many of which are
// made only once.
func carrying(p peer, n int) (outcome, error) {
	took := p.operate(p.share(max(n, 64)))
	return outcome{[]float64{float64(took) / float64(p.share(max(n, 64)))}, -1, 0}, nil
}

// asking times each request separately.
func asking(p peer, n int) (outcome, error) {
	took := p.ask(max(n, 20))
	slices.Sort(took)
	return outcome{[]float64{quantile(took, 0.50), quantile(took, 0.99)}, -1, 0}, nil
}

// serverVariable makes this program a NATS server until its standard input
// ends. Its value is the directory for streams, prefixed with sync: if each
// message is to be synced.
const serverVariable = "HARK_BENCH_SERVER"

// serveIfAsked runs the server and never returns, if this process is to be one.
func serveIfAsked() {
	dir := os.Getenv(serverVariable)
	if dir == "" {
		return
	}
	dir, sync := strings.CutPrefix(dir, "sync:")
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: dir, SyncAlways: sync, MaxPending: 1 << 30,
	})
	must(err)
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		panic("the NATS server does not start")
	}
	fmt.Println(s.ClientURL())
	_, _ = io.Copy(io.Discard, os.Stdin) // ends when the parent does
	s.Shutdown()
	os.Exit(0)
}

// engineServer is a NATS server in another process.
type engineServer struct {
	url string
	end func()
}

func startServer(sync bool) *engineServer {
	self, err := os.Executable()
	must(err)
	dir, err := os.MkdirTemp("", "hark-bench-")
	must(err)
	value := dir
	if sync {
		value = "sync:" + dir
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), serverVariable+"="+value)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(err)
	out, err := cmd.StdoutPipe()
	must(err)
	must(cmd.Start())
	url, err := bufio.NewReader(out).ReadString('\n')
	must(err)
	return &engineServer{url: strings.TrimSpace(url), end: func() {
		must(in.Close())
		must(cmd.Wait())
		must(os.RemoveAll(dir))
	}}
}

// tally counts the messages that arrive.
type tally struct {
	want int64
	got  atomic.Int64
	done chan struct{}
}

func newTally(n int) *tally { return &tally{want: int64(n), done: make(chan struct{})} }

// one counts a message, which must have the right size.
func (t *tally) one(data []byte, size int) {
	if len(data) != size {
		panic(fmt.Sprintf("a message has %d bytes, not %d", len(data), size))
	}
	switch n := t.got.Add(1); {
	case n == t.want:
		close(t.done)
	case n > t.want:
		panic("more messages came than were published")
	}
}

// wait waits until everything has arrived.
func (t *tally) wait() {
	select {
	case <-t.done:
	case <-time.After(waitTimeout):
		panic(fmt.Sprintf("%d of %d messages came", t.got.Load(), t.want))
	}
}

// maxAhead is how far a publisher of ephemeral messages may be ahead of their
// subscriber, in messages.
const maxAhead = 32768

// keepPace waits if the publisher is too far ahead.
func (t *tally) keepPace(published int) {
	if published%1024 != 0 {
		return
	}
	for late := time.Now().Add(waitTimeout); int64(published)-t.got.Load() > maxAhead; time.Sleep(50 * time.Microsecond) {
		if time.Now().After(late) {
			panic(fmt.Sprintf("%d of %d messages came", t.got.Load(), published))
		}
	}
}
