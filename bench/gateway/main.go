// Command gateway measures the gateway of the broker beside the same thing written
// plainly with net/http, in one process that serves both in turn:
//
//	go run -C bench ./gateway [-runs 5] [-clients 1000] [-only publish] [-cpuprofile FILE]
//
// What is published comes over the loopback interface, and what clients get goes
// over it. Every run is checked: each client gets every message, in order.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"mime"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/harkbus/hark/broker"
)

const (
	publishers = 16
	payload    = `{"n":%d,"region":"eu","customer":"ada","total":7,"items":[{"sku":"a-1","count":2},{"sku":"b-2","count":1}],"note":"an order as others are"}`
	// burst is the number of messages in flight at once. It is less than what a
	// plain server drops.
	burst   = 32
	timeout = 60 * time.Second
)

func main() {
	log.SetFlags(0)
	runs := flag.Int("runs", 5, "timed `runs` of each contender; one before is not counted")
	clients := flag.Int("clients", 1000, "`clients` that follow the topic")
	posts := flag.Int("posts", 4000, "`messages` of a run that publishes")
	messages := flag.Int("messages", 192, "`messages` of a run that is followed")
	only := flag.String("only", "", "work to measure, by a part of its `name`; all without it")
	contenders := flag.String("contenders", "", "contenders to measure, by a part of their `name`; all without it")
	profile := flag.String("cpuprofile", "", "`file` for a profile of the processor")
	flag.Parse()
	if *profile != "" {
		file, err := os.Create(*profile)
		must(err)
		must(pprof.StartCPUProfile(file))
		defer pprof.StopCPUProfile()
	}
	report := func(work, unit string, runs int, all []contender) {
		if strings.Contains(work, *only) {
			all = slices.DeleteFunc(all, func(c contender) bool { return !strings.Contains(c.name, *contenders) })
			report(work, unit, runs, all)
		}
	}

	b, dir := startBroker()
	defer os.RemoveAll(dir)
	hark := "http://" + b.HTTPAddr().String() + "/v1/topics/"
	p := newPlain(dir)
	plain := "http://" + p.addr + "/"

	fmt.Printf("%s %s/%s, %d processors. Medians of %d runs, contenders taking turns (lowest–highest).\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), *runs)

	report("publish, nobody listens", "ns a message", *runs, []contender{
		{"net/http", func() float64 { return publish(plain+"live", publishers, *posts) }},
		{"hark", func() float64 { return publish(hark+"live", publishers, *posts) }},
	})
	report("publish, one client follows", "ns a message", *runs, []contender{
		{"net/http", func() float64 { return publishFollowed(plain+"live", *posts) }},
		{"hark", func() float64 { return publishFollowed(hark+"live", *posts) }},
	})
	for _, n := range []int{publishers, 4 * publishers} {
		report(fmt.Sprintf("publish, on disk before it is answered, %d at once", n), "ns a message", *runs, []contender{
			{"net/http, a file, fsync for each", func() float64 { return publish(plain+"stored", n, *posts/4) }},
			{"net/http, a file, fsync for all who wait", func() float64 { return publish(plain+"gathered", n, *posts/4) }},
			{"hark, strict", func() float64 { return publish(hark+"strict", n, *posts/4) }},
		})
	}
	report(fmt.Sprintf("server-sent events to %d clients", *clients), "ns a delivery", *runs, []contender{
		{"net/http, a channel for each client", func() float64 { return fanOut(plain+"live", plain+"live/events", *clients, 0, *messages) }},
		{"hark", func() float64 { return fanOut(hark+"live", hark+"live/events", *clients, 0, *messages) }},
		{"hark, a stored topic", func() float64 { return fanOut(hark+"memory", hark+"memory/events", *clients, 0, *messages) }},
	})
	report(fmt.Sprintf("the same beside %d clients that never read", *clients/10), "ns a delivery", *runs, []contender{
		{"net/http, a channel for each client", func() float64 {
			return fanOut(plain+"live", plain+"live/events", *clients, *clients/10, *messages)
		}},
		{"hark", func() float64 { return fanOut(hark+"live", hark+"live/events", *clients, *clients/10, *messages) }},
		{"hark, a stored topic", func() float64 {
			return fanOut(hark+"memory", hark+"memory/events", *clients, *clients/10, *messages)
		}},
	})
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	must(b.Stop(ctx))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func startBroker() (*broker.Broker, string) {
	dir, err := os.MkdirTemp("", "hark-bench-")
	must(err)
	c := broker.Default()
	c.Listen, c.HTTP, c.Data = "127.0.0.1:0", "127.0.0.1:0", dir
	c.Limits.HTTPRate = 0
	c.Topics = []broker.TopicConfig{{Name: "strict", Durability: "strict", Dedup: time.Minute}, {Name: "memory", Durability: "memory", Dedup: time.Minute}}
	b, err := broker.New(c, nil)
	must(err)
	must(b.Start(context.Background()))
	return b, dir
}

// contender is one way to do the work. A run returns the time for one unit of
// it, in ns.
type contender struct {
	name string
	run  func() float64
}

// report runs the contenders in turn and prints their medians.
func report(work, unit string, runs int, all []contender) {
	got, processor := make([][]float64, len(all)), make([][]float64, len(all))
	for round := range runs + 1 {
		for i := range all {
			i = (i + round) % len(all)
			runtime.GC()
			began, busy := time.Now(), processorTime()
			v := all[i].run()
			share := float64(processorTime()-busy) / float64(time.Since(began))
			if round > 0 {
				got[i], processor[i] = append(got[i], v), append(processor[i], share*v)
			}
		}
	}
	fmt.Printf("\n## %s\n\n| contender | %s | lowest–highest | × %s | of processors |\n|---|---:|---:|---:|---:|\n", work, unit, all[0].name)
	base := 0.0
	for i, c := range all {
		slices.Sort(got[i])
		slices.Sort(processor[i])
		median := got[i][len(got[i])/2]
		if i == 0 {
			base = median
		}
		fmt.Printf("| %s | %.0f | %.0f–%.0f | %.2f | %.0f |\n", c.name, median, got[i][0], got[i][len(got[i])-1], base/median, processor[i][len(processor[i])/2])
	}
}

// processorTime returns how long the processors have worked for this process, clients
// and servers together.
func processorTime() time.Duration {
	var u syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// publishFollowed is publish with one client that follows the topic.
func publishFollowed(topic string, n int) float64 {
	conn := dial(topic + "/events")
	_, err := conn.Read(make([]byte, 1))
	must(err)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, conn)
	}()
	took := publish(topic, publishers, n)
	must(conn.Close())
	<-gone
	return took
}

// publish posts n messages from the given number of clients at once.
func publish(url string, publishers, n int) float64 {
	transport := &http.Transport{MaxIdleConnsPerHost: publishers}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: timeout}
	post(client, url, 0)
	began := time.Now()
	var all sync.WaitGroup
	for k := range publishers {
		all.Go(func() {
			for i := k; i < n; i += publishers {
				post(client, url, i)
			}
		})
	}
	all.Wait()
	return float64(time.Since(began).Nanoseconds()) / float64(n)
}

func post(client *http.Client, url string, i int) {
	res, err := client.Post(url, "application/json", strings.NewReader(fmt.Sprintf(payload, i)))
	must(err)
	text, err := io.ReadAll(res.Body)
	must(err)
	must(res.Body.Close())
	if res.StatusCode >= 300 {
		log.Fatalf("publish: %s %s", res.Status, text)
	}
}

// fanOut publishes to a topic that clients follow, some of which never read. It
// publishes a burst at a time, the next one when every reading client has
// received the one before.
func fanOut(topic, events string, clients, deaf, n int) float64 {
	began := make(chan struct{}, clients)
	gone := make(chan struct{}, clients)
	got := make(chan int, clients)
	var conns []net.Conn
	for i := range clients + deaf {
		conn := dial(events)
		conns = append(conns, conn)
		if i < clients {
			go follow(conn, n, began, got, gone)
		}
	}
	for range clients {
		<-began
	}
	transport := &http.Transport{}
	client := &http.Client{Transport: transport, Timeout: timeout}
	post(client, topic, -1) // until all clients are connected
	wait(got, clients)
	start := time.Now()
	for i := 0; i < n; i += burst {
		for j := range burst {
			post(client, topic, i+j)
		}
		wait(got, clients)
	}
	took := time.Since(start)
	for _, c := range conns {
		must(c.Close())
	}
	for range clients {
		<-gone
	}
	transport.CloseIdleConnections()
	return float64(took.Nanoseconds()) / float64(n*clients)
}

func wait(got chan int, clients int) {
	late := time.After(timeout)
	for range clients {
		select {
		case <-got:
		case <-late:
			log.Fatal("not every client gets every message")
		}
	}
}

func dial(events string) net.Conn {
	host, path, _ := strings.Cut(strings.TrimPrefix(events, "http://"), "/")
	conn, err := net.Dial("tcp", host)
	must(err)
	_, err = fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", path, host)
	must(err)
	return conn
}

// follow reads what is sent to a client, and reports the first byte and each
// burst.
func follow(conn net.Conn, n int, began chan struct{}, got chan int, gone chan struct{}) {
	defer func() { gone <- struct{}{} }()
	r := bufio.NewReaderSize(conn, 4<<10)
	_, err := r.ReadSlice('\n')
	must(err)
	began <- struct{}{}
	for {
		line, err := r.ReadSlice('\n')
		must(err)
		if string(line) == "\r\n" { // the end of the headers
			break
		}
	}
	r = bufio.NewReaderSize(httputil.NewChunkedReader(r), 4<<10)
	next := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return // the measurement is over
		}
		_, rest, ok := bytes.Cut(line, []byte(`{"n":`))
		if !ok {
			continue
		}
		number, _, _ := bytes.Cut(rest, []byte(","))
		if i, err := strconv.Atoi(string(number)); err != nil || i != next {
			log.Fatalf("got message %s, want %d", number, next)
		}
		next++
		if next == 0 || next%burst == 0 {
			got <- next
		}
		if next == n {
			_, _ = io.Copy(io.Discard, conn)
			return
		}
	}
}

// plain is a server as one writes it in an afternoon. What is posted goes into
// a channel for each client, and is dropped for clients whose channel is full.
type plain struct {
	addr string

	mu      sync.Mutex // guards the fields below
	clients map[chan []byte]struct{}
	file    *os.File
	written int // number of messages

	syncing sync.Mutex // guards synced
	synced  int        // number of messages that are on the disk
}

func newPlain(dir string) *plain {
	file, err := os.Create(dir + "/plain")
	must(err)
	p := &plain{clients: map[chan []byte]struct{}{}, file: file}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /live", p.publish)
	mux.HandleFunc("POST /stored", p.store(p.append))
	mux.HandleFunc("POST /gathered", p.store(p.appendTogether))
	mux.HandleFunc("GET /live/events", p.events)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	p.addr = l.Addr().String()
	// It has hark's limits: without them a few slow clients would bring a
	// server down.
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
	go func() { log.Fatal(server.Serve(l)) }()
	return p
}

// read returns what was posted. It must be JSON on one line, to be the data of
// an event.
func read(rw http.ResponseWriter, r *http.Request) ([]byte, bool) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		http.Error(rw, "want application/json", http.StatusUnsupportedMediaType)
		return nil, false
	}
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, 8<<20))
	if err != nil || !json.Valid(body) || bytes.ContainsAny(body, "\r\n") {
		http.Error(rw, "want JSON on one line", http.StatusBadRequest)
		return nil, false
	}
	return body, true
}

// answer answers as hark does, with its headers and the name of what was
// published.
func answer(rw http.ResponseWriter, r *http.Request, status int) {
	h := rw.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_, _ = fmt.Fprintf(rw, "{\"topic\":%q,\"id\":%q}\n", strings.TrimPrefix(r.URL.Path, "/"), rand.Text())
}

func (p *plain) publish(rw http.ResponseWriter, r *http.Request) {
	body, ok := read(rw, r)
	if !ok {
		return
	}
	event := append(append([]byte("data: "), body...), "\n\n"...)
	p.mu.Lock()
	for c := range p.clients {
		select {
		case c <- event:
		default:
		}
	}
	p.mu.Unlock()
	answer(rw, r, http.StatusAccepted)
}

func (p *plain) store(add func(line []byte) error) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		body, ok := read(rw, r)
		if !ok {
			return
		}
		if err := add(append(body, '\n')); err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(rw, r, http.StatusCreated)
	}
}

// append writes a line to the disk and syncs it.
func (p *plain) append(line []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.file.Write(line); err != nil {
		return err
	}
	return p.file.Sync()
}

// appendTogether is append with one sync for all who wait.
func (p *plain) appendTogether(line []byte) error {
	p.mu.Lock()
	_, err := p.file.Write(line)
	p.written++
	own := p.written
	p.mu.Unlock()
	if err != nil {
		return err
	}
	p.syncing.Lock()
	defer p.syncing.Unlock()
	if p.synced >= own {
		return nil
	}
	p.mu.Lock()
	written := p.written
	p.mu.Unlock()
	if err := p.file.Sync(); err != nil {
		return err
	}
	p.synced = written
	return nil
}

func (p *plain) events(rw http.ResponseWriter, r *http.Request) {
	c := make(chan []byte, 256)
	p.mu.Lock()
	p.clients[c] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.clients, c)
		p.mu.Unlock()
	}()
	control := http.NewResponseController(rw)
	if control.SetReadDeadline(time.Time{}) != nil || control.SetWriteDeadline(time.Time{}) != nil { // the stream has no end
		return
	}
	rw.Header().Set("Content-Type", "text/event-stream")
	rw.WriteHeader(http.StatusOK)
	_, _ = rw.Write([]byte(": it begins\n\n"))
	for {
		// Everything that is ready is written in one go.
		if err := control.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case event := <-c:
			if !write(rw, event, c) {
				return
			}
		}
	}
}

func write(rw http.ResponseWriter, event []byte, more chan []byte) bool {
	for {
		if _, err := rw.Write(event); err != nil {
			return false
		}
		select {
		case event = <-more:
		default:
			return true
		}
	}
}
