package natsdriver

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/drivertest"
	"github.com/harkbus/hark/internal/race"
)

// cluster is three servers, each in a process of its own.
type cluster struct {
	t     *testing.T
	nodes []*process
}

// startCluster starts three servers that know each other; more is appended to the
// configuration of each.
func startCluster(t *testing.T, more string) *cluster {
	t.Helper()
	c := &cluster{t: t}
	var routes []string
	for range 3 {
		routes = append(routes, "127.0.0.1:"+strconv.Itoa(freePort(t)))
	}
	for i, route := range routes {
		c.nodes = append(c.nodes, newProcess(t, "n"+strconv.Itoa(i), "", fmt.Sprintf(
			"%s\ncluster { name: test, listen: %q, routes: [ nats-route://%s ] }\n", more, route, strings.Join(routes, ", nats-route://"))))
	}
	for _, n := range c.nodes {
		t.Cleanup(n.tell)
		n.start()
		t.Cleanup(n.stop)
	}
	for _, n := range c.nodes {
		n.await()
	}
	return c
}

func (c *cluster) addresses() string {
	var all []string
	for _, n := range c.nodes {
		all = append(all, n.address())
	}
	return strings.Join(all, ",")
}

// open connects to one of the servers, and to another one when that server is gone.
func (c *cluster) open(t *testing.T) *Conn {
	t.Helper()
	conn, err := Open(longContext(t), "nats://"+c.addresses()+"?replicas=3&lease=5s") // messages that were in flight come again soon
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(t, conn) })
	return conn
}

// longContext outlasts an election, which can take up to nine seconds for each
// stream and for the servers themselves.
func longContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(cancel)
	return ctx
}

// streams returns the streams that have a leader, as their leaders describe them.
func (c *cluster) streams(conn *Conn) []*jetstream.StreamInfo {
	c.t.Helper()
	var all []*jetstream.StreamInfo
	err := conn.state.do(longContext(c.t), func(ctx context.Context) error {
		all = nil
		names := conn.js.StreamNames(ctx) // nobody answers this during an election
		for name := range names.Name() {
			stream, err := conn.js.Stream(ctx, name)
			if err != nil {
				return passing(err)
			}
			all = append(all, stream.CachedInfo())
		}
		return passing(names.Err())
	})
	if err != nil {
		c.t.Fatalf("streams: %v", err)
	}
	return all
}

// leader returns the server that leads most of the streams, and the names of those
// streams.
func (c *cluster) leader(conn *Conn) (*process, []string) {
	c.t.Helper()
	leads := map[string][]string{}
	for _, info := range c.streams(conn) {
		leads[info.Cluster.Leader] = append(leads[info.Cluster.Leader], info.Config.Name)
	}
	most := slices.MaxFunc(c.nodes, func(a, b *process) int { return len(leads[a.name]) - len(leads[b.name]) })
	if len(leads[most.name]) == 0 {
		c.t.Fatalf("no server leads anything: %v", leads)
	}
	return most, leads[most.name]
}

// settle returns when every server holds everything in the streams, so that after
// one death two complete copies are left. A restarted server has to catch up before
// that.
func (c *cluster) settle(conn *Conn) {
	c.t.Helper()
	behind := func(info *jetstream.StreamInfo) bool {
		return info.Cluster.Leader == "" || len(info.Cluster.Replicas) != 2 ||
			slices.ContainsFunc(info.Cluster.Replicas, func(p *jetstream.PeerInfo) bool { return !p.Current || p.Offline })
	}
	ctx := longContext(c.t)
	for slices.ContainsFunc(c.streams(conn), behind) {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			c.t.Fatal("a server does not catch up")
		}
	}
}

// clusterKinds are the kinds of clauses that every run checks on a cluster: those
// about what it keeps.
var clusterKinds = []string{"CHN", "DED", "DLQ", "GRP", "ITR", "KEY", "STA", "TTL", "VAL"}

// TestConformanceOnCluster runs the clauses on buses over three servers that keep
// everything three times. With HARK_LONG=1, and when docs/drivers.md is written, it
// runs all clauses, which takes one to two minutes; otherwise those of
// clusterKinds. With the race detector it runs only with HARK_LONG=1, because the
// tests on single servers hold the same code to all clauses.
func TestConformanceOnCluster(t *testing.T) {
	t.Parallel()
	if race.Enabled && os.Getenv("HARK_LONG") == "" {
		t.Skip("SKIPPED with the race detector, because HARK_LONG=1 is not set")
	}
	c := startCluster(t, accounts(len(drivertest.Clauses())+len(drivertest.AcrossClauses())+100)) // some clauses need several
	kinds := clusterKinds
	if os.Getenv("HARK_LONG") != "" || os.Getenv("HARK_UPDATE") != "" {
		kinds = nil
	}
	// Messages on their way to a leaving member come again when its lease ends.
	report := suite(t, inAccounts(c.addresses(), "?replicas=3&lease=10s"), kinds...)
	report.Info.Lease = defaultLease // the page says what holds without that parameter
	report.Compare(t, "../../docs/drivers.md", "NATS cluster")
}

// TestLeaderIsKilled kills the server that leads most streams, as by kill -9, while
// messages are published and received, values changed and channels used. Nothing
// that was accepted is lost, nothing is stored twice, and values and channels
// behave as on one server. With HARK_LONG=1 there are HARK_KILLS kills of each
// kind, five by default; otherwise one, while values are changed. The first failure
// ends the test. Its findings are in docs/drivers.md.
func TestLeaderIsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: it takes ten seconds, most of them for an election")
	}
	long := os.Getenv("HARK_LONG") != ""
	kills := 1
	if long {
		kills = 5
	}
	if text := os.Getenv("HARK_KILLS"); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatalf("HARK_KILLS: %v", err)
		}
	}
	t.Run("values", func(t *testing.T) { killLeaders(t, kills, &updateWork{}, &registerWork{}) })
	if !long {
		t.Log("SKIPPED: messages and channels, because HARK_LONG=1 is not set")
		return
	}
	t.Run("messages", func(t *testing.T) { killLeaders(t, kills, &topicWork{}) })
	t.Run("channels", func(t *testing.T) { killLeaders(t, kills, &chanWork{capacity: 3}, &chanWork{capacity: 1}) })
}

// killLeaders kills the leader repeatedly while work goes on, each time after all
// servers have caught up.
func killLeaders(t *testing.T, kills int, work ...clusterWork) {
	c := startCluster(t, "")
	for _, w := range work {
		w.begin(t, c)
		t.Cleanup(w.stop) // before its connections are closed
	}
	asks := c.open(t)
	for round := range kills {
		for _, w := range work {
			w.goOn(t)
		}
		c.settle(asks)
		victim, led := c.leader(asks)
		killed := time.Now()
		victim.kill()
		for _, w := range work {
			w.goOn(t)
		}
		t.Logf("round %d: %s, which led %v, was killed, and all goes on after %v", round, victim.name, led, time.Since(killed).Round(time.Millisecond))
		victim.start()
		victim.await()
	}
	for _, w := range work {
		w.end(t)
	}
}

// clusterWork is work that goes on while leaders are killed.
type clusterWork interface {
	begin(t *testing.T, c *cluster)
	// goOn returns when the work has made progress since the call.
	goOn(t *testing.T)
	// end stops the work and checks its outcome.
	end(t *testing.T)
	// stop stops the work. The context of the test may have ended already.
	stop()
}

// progress counts the work of goroutines that can be stopped.
type progress struct {
	count   atomic.Int64
	stopped atomic.Bool
	tasks   sync.WaitGroup
}

// repeat calls f in a goroutine until stop, or until the test has failed. An error
// fails the test.
func (p *progress) repeat(t *testing.T, what string, f func(ctx context.Context, n int) error) {
	p.tasks.Go(func() {
		for n := 0; !p.stopped.Load() && !t.Failed(); n++ {
			ctx, cancel := context.WithTimeout(t.Context(), 3*patience) // as longContext
			err := f(ctx, n)
			cancel()
			if t.Context().Err() != nil {
				return // the test is over
			}
			if err != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
			p.count.Add(1)
		}
	})
}

func (p *progress) goOn(t *testing.T) {
	t.Helper()
	at := p.count.Load()
	ctx := longContext(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for p.count.Load() < at+10 {
		select {
		case <-tick.C:
			if t.Failed() {
				t.FailNow()
			}
		case <-ctx.Done():
			t.Fatal("nothing goes on")
		}
	}
}

func (p *progress) stop() {
	p.stopped.Store(true)
	p.tasks.Wait()
}

// topicWork publishes to a stored topic.
type topicWork struct {
	progress
	conn      *Conn
	topic     driver.Topic
	published [4]int // by publisher
	followed  collector
	shared    collector
	cancel    context.CancelFunc
	receiving sync.WaitGroup
}

func (w *topicWork) begin(t *testing.T, c *cluster) {
	w.conn = c.open(t)
	cfg := &driver.StoredConfig{Durability: driver.DurableRelaxed}
	w.topic = openTopic(t, w.conn, "t", cfg)
	in := openTopic(t, c.open(t), "t", cfg)
	follower := subscribe(t, in, driver.SubscribeConfig{From: driver.FromStart})
	group := subscribe(t, in, driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 64})
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(t.Context())
	w.receiving.Go(func() { w.followed.collect(ctx, t, follower, false) })
	w.receiving.Go(func() { w.shared.collect(ctx, t, group, true) })
	for i := range w.published {
		w.repeat(t, "publish", func(ctx context.Context, n int) error {
			if err := w.topic.Publish(ctx, bare(fmt.Sprintf("%d %d", i, n))); err != nil {
				return err
			}
			w.published[i]++
			return nil
		})
	}
}

func (w *topicWork) stop() {
	w.progress.stop()
	w.cancel()
	w.receiving.Wait()
}

func (w *topicWork) end(t *testing.T) {
	w.progress.stop()
	total := 0
	for i, n := range w.published {
		total += n
		for name, c := range map[string]*collector{"a follower": &w.followed, "a group": &w.shared} {
			ctx := longContext(t) // the group may be behind, and messages in flight come when their leases end
			for !c.has(i, n) {
				select {
				case <-time.After(50 * time.Millisecond):
				case <-ctx.Done():
					t.Fatalf("%s has not all %d messages of publisher %d, and %d of all", name, n, i, len(c.seen))
				}
			}
		}
	}
	w.stop()
	if w.followed.disorder != "" {
		t.Error(w.followed.disorder)
	}
	stats, err := w.topic.Stats(longContext(t))
	if err != nil || int(stats.Stored) != total {
		t.Errorf("%d messages are stored (%v), and %d were published", stats.Stored, err, total)
	}
	next := map[string]int{} // by publisher
	for _, r := range receive(t, subscribe(t, w.topic, driver.SubscribeConfig{From: driver.FromStart}), total) {
		publisher, n, _ := strings.Cut(string(r.Data), " ")
		if n != strconv.Itoa(next[publisher]) {
			t.Fatalf("message %d is number %s of publisher %s, want %d", r.Seq, n, publisher, next[publisher])
		}
		next[publisher]++
	}
	t.Logf("%d messages, each stored once, in order", total)
}

// updateWork updates a value from several processes.
type updateWork struct {
	progress
	value *hark.Value[int]
	last  atomic.Int64 // last version an observer was told of
	made  atomic.Int64
}

func (w *updateWork) begin(t *testing.T, c *cluster) {
	open := func() *hark.Value[int] {
		bus := hark.Over(c.open(t))
		t.Cleanup(func() { closeBus(t, bus) })
		v, err := hark.NewValue(bus, "counter", 0)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	w.value = open()
	if _, err := w.value.Observe(func(old, now int) {
		if before := w.last.Swap(int64(now)); before != int64(old) || now <= old {
			t.Errorf("told of %d to %d after %d", old, now, before)
		}
	}); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		v := open()
		w.repeat(t, "update", func(ctx context.Context, _ int) error {
			if _, err := v.Update(ctx, func(n int) int { return n + 1 }); err != nil {
				return err
			}
			w.made.Add(1)
			return nil
		})
	}
}

func (w *updateWork) end(t *testing.T) {
	w.stop()
	want := int(w.made.Load())
	if got, err := w.value.WaitUntil(longContext(t), func(n int) bool { return n >= want }); err != nil || got != want {
		t.Errorf("the value is %d (%v) after %d updates", got, err, want)
	}
	eventually(t, "the observer is told of the last state", func() bool { return int(w.last.Load()) == want })
	t.Logf("%d updates", want)
}

// registerWork records the operations of several connections on a value.
type registerWork struct {
	progress
	history valueHistory
}

func (w *registerWork) begin(t *testing.T, c *cluster) {
	w.history.start = time.Now()
	for client := range 3 {
		v, err := c.open(t).OpenValue(longContext(t), "register", []byte("initial"))
		if err != nil {
			t.Fatal(err)
		}
		w.repeat(t, "register", func(ctx context.Context, n int) error {
			client = w.history.step(ctx, t, v, client, n)
			pause(ctx)
			return nil
		})
	}
}

// pause keeps a history short enough to be checked.
func pause(ctx context.Context) {
	select {
	case <-time.After(20 * time.Millisecond):
	case <-ctx.Done():
	}
}

func (w *registerWork) end(t *testing.T) {
	w.stop()
	w.history.check(t)
}

// chanWork sends values through a channel.
type chanWork struct {
	progress
	capacity int
	clients  []*chanClient
	values   atomic.Int32
	start    time.Time
}

func (w *chanWork) open(t *testing.T, c *cluster) driver.Chan {
	t.Helper()
	ch, err := c.open(t).OpenChan(longContext(t), driver.ChanConfig{
		Name: "jobs" + strconv.Itoa(w.capacity), Capacity: w.capacity, Durability: driver.DurableRelaxed,
	})
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func (w *chanWork) begin(t *testing.T, c *cluster) {
	w.start = time.Now()
	var done atomic.Int64
	for id := range 4 {
		client := &chanClient{id: id, ch: w.open(t, c), start: w.start, calm: true, done: &done}
		w.clients = append(w.clients, client)
		if id < 2 {
			w.repeat(t, "send", func(ctx context.Context, _ int) error {
				client.do(t, chanSend, 'A'+w.values.Add(1))
				pause(ctx)
				return nil
			})
			continue
		}
		w.tasks.Go(func() {
			for client.do(t, chanReceive, 0).outcome != chanOver && !t.Failed() {
			}
		})
	}
	last := &chanClient{id: 4, ch: w.open(t, c), start: w.start, calm: true, done: &done}
	w.clients = append(w.clients, last)
}

func (w *chanWork) end(t *testing.T) {
	w.stopped.Store(true)
	w.clients[4].do(t, chanClose, 0)
	w.tasks.Wait()
	var history []porcupine.Operation
	received := 0
	for _, c := range w.clients {
		for _, op := range c.history {
			if out := op.Output.(chanOutput); out.value != 0 && out.outcome == chanDone {
				received++
			}
			history = append(history, op)
		}
	}
	switch got := porcupine.CheckOperationsTimeout(chanModel(w.capacity, false, history), history, 10*time.Second); got {
	case porcupine.Ok:
		t.Logf("capacity %d: %d values", w.capacity, received)
	default:
		t.Errorf("capacity %d: the history is %v:\n%s", w.capacity, got, tellHistory(history))
	}
}
