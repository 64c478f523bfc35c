package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

const (
	// A request for messages stands for so long before it is made again.
	pullExpires = 30 * time.Second
	// While it stands and there are no messages the server says that it is
	// there; without a word for twice that time the request is taken for lost.
	pullHeartbeat = 2 * time.Second
	pullSilence   = 2*pullHeartbeat + pullHeartbeat/2
)

// puller receives the messages of a consumer by asking for them, such that never
// more are on their way than are wanted. next is called by one goroutine at a
// time.
type puller struct {
	inlet
	inbox   string // replies come to inbox.N
	subject string // of the consumer, for requests

	asked   atomic.Int64 // messages that the server has been asked for and that were not taken yet
	granted uint64       // messages that it was asked for in all, but for those of requests that ended before
	dry     []uint64     // what granted was when the server had sent all and was not asked for more
	count   int          // requests
	cut     atomic.Bool  // the connection was lost since the first request
	wake    chan struct{}
	asking  chan *fence // for who calls nextMessages
	fences  []*fence    // that the server has been asked for
}

// fence is what settled asks for.
type fence struct {
	reply  string    // its subject
	come   bool      // after all that was on its way
	passed chan bool // gets whether it was
}

// The server answers a request that it cannot read behind the messages that it has
// sent, and with no message.
var fenceRequest = []byte("{")

var (
	// errNoConsumer says that the consumer does not answer: it is gone, or its
	// server is.
	errNoConsumer = errors.New("no consumer")
	// errCut says that the connection was lost, and perhaps messages with it.
	errCut = errors.New("the connection was lost")
	// errWoken says that somebody has something to tell who waits for messages.
	errWoken = errors.New("woken")
)

// apiPrefix is how the subjects of requests to JetStream begin.
func (c *Conn) apiPrefix() string {
	if d := c.opts.domain; d != "" {
		return "$JS." + d + ".API."
	}
	return "$JS.API."
}

func newPuller(c *Conn, stream, consumer string) *puller {
	return &puller{
		inlet: inlet{conn: c}, inbox: c.nc.NewInbox(), wake: make(chan struct{}, 1), asking: make(chan *fence),
		subject: c.apiPrefix() + "CONSUMER.MSG.NEXT." + stream + "." + consumer,
	}
}

// open begins to listen for up to room messages that were asked for.
func (p *puller) open(ctx context.Context, room int) error {
	// Four times as much, because requests that are made again may both be
	// answered.
	if err := p.begin(ctx, []string{p.inbox + ".*"}, "", 4*room+64); err != nil {
		return err
	}
	p.conn.state.mu.Lock()
	p.conn.state.losers[p] = struct{}{}
	p.conn.state.mu.Unlock()
	return nil
}

// lost implements loser.
func (p *puller) lost() {
	p.cut.Store(true)
	p.rouse()
}

// rouse makes nextMessages return.
func (p *puller) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// settled waits until everything that the server had sent has been returned by
// nextMessages and passed on by who calls it, which is so when that is called again.
// It is false if the connection was lost meanwhile, or ctx ends first.
func (p *puller) settled(ctx context.Context) bool {
	f := &fence{passed: make(chan bool, 1)}
	select {
	case p.asking <- f:
	case <-p.ended:
		return len(p.msgs) == 0
	case <-ctx.Done():
		return false
	}
	select {
	case passed := <-f.passed:
		return passed
	case <-p.ended:
		return len(p.msgs) == 0
	case <-ctx.Done():
		return false
	}
}

// demand asks the server for a fence.
func (p *puller) demand(f *fence) {
	p.count++
	f.reply = p.inbox + "." + strconv.Itoa(p.count)
	if p.conn.nc.PublishRequest(p.subject, f.reply, fenceRequest) != nil {
		f.passed <- false
		return
	}
	p.fences = append(p.fences, f)
}

// passFences answers for the fences that have come: what was before them has been
// passed on.
func (p *puller) passFences() {
	p.fences = slices.DeleteFunc(p.fences, func(f *fence) bool {
		if f.come {
			f.passed <- true
		}
		return f.come
	})
}

// discard takes no more messages and forgets those that are here.
func (p *puller) discard() {
	p.unlist()
	p.end()
	p.empty()
}

func (p *puller) empty() {
	for {
		select {
		case <-p.msgs:
		default:
			return
		}
	}
}

func (p *puller) unlist() {
	p.conn.state.mu.Lock()
	defer p.conn.state.mu.Unlock()
	delete(p.conn.state.losers, p)
}

// stop takes no more messages: those that the server sent before are the last.
func (p *puller) stop(ctx context.Context) error {
	p.unlist()
	var err error
	if p.conn.state.connected() {
		// The client goes on to take them until the server has seen this.
		for _, sub := range p.subs {
			err = errors.Join(err, sub.Drain())
		}
		err = errors.Join(err, p.conn.Flush(ctx))
	}
	p.end()
	return err
}

// nextMessages returns between 1 and most messages, having asked for up to
// depth. It returns errNoConsumer or errCut when there is nothing left that was
// received before, and driver.ErrEnded after stop. The slice is used again by
// the next call.
func (p *puller) nextMessages(ctx context.Context, most, depth int) ([]*nats.Msg, error) {
	var silence *time.Timer
	gone := false
	clear(p.taken)
	for {
		p.passFences()
		ms := p.take(p.taken[:0], most, &gone)
		ended := p.over()
		if !ended && !gone && !p.cut.Load() {
			if err := p.ask(depth); err != nil {
				return nil, err
			}
		}
		if len(ms) > 0 {
			p.taken = ms
			return ms, nil
		}
		if silence == nil {
			silence = time.NewTimer(pullSilence)
			defer silence.Stop()
		}
		switch {
		case ended && len(p.msgs) == 0:
			return nil, driver.ErrEnded
		case ended:
			continue
		case p.cut.Load():
			return nil, errCut
		case gone:
			return nil, errNoConsumer
		}
		select {
		case m := <-p.msgs:
			if p.isMessage(m, &gone) {
				runtime.Gosched() // to the client, which has read more than one
				p.taken = p.take(append(p.taken[:0], m), most, &gone)
				return p.taken, nil
			}
			silence.Reset(pullSilence)
		case <-silence.C:
			p.forgetRequests()
			return nil, errNoConsumer
		case <-p.wake:
			if !p.cut.Load() {
				return nil, errWoken
			}
		case f := <-p.asking:
			p.demand(f)
		case <-p.ended:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// take adds what has arrived to ms, up to most.
func (p *puller) take(ms []*nats.Msg, most int, gone *bool) []*nats.Msg {
	for len(ms) < most {
		select {
		case m := <-p.msgs:
			if p.isMessage(m, gone) {
				ms = append(ms, m)
			}
		default:
			return ms
		}
	}
	return ms
}

func (p *puller) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (p *puller) forgetRequests() {
	for _, f := range p.fences {
		f.passed <- false
	}
	p.fences = nil
	p.asked.Store(0)
	p.cut.Store(false)
}

// ask makes sure that up to depth messages are here or on their way. It asks
// when half of them are missing.
func (p *puller) ask(depth int) error {
	asked := int(p.asked.Load())
	if asked > depth/2 {
		return nil
	}
	if err := p.conn.refused(p.subject); err != nil {
		return err
	}
	n := depth - asked
	if p.count > 0 && asked <= len(p.msgs) {
		p.dry = append(p.dry, p.granted)
	}
	p.count++
	reply := p.inbox + "." + strconv.Itoa(p.count)
	request := fmt.Appendf(nil, `{"batch":%d,"expires":%d,"idle_heartbeat":%d}`, n, pullExpires, pullHeartbeat)
	err := p.conn.nc.PublishRequest(p.subject, reply, request)
	switch {
	case err == nil:
		p.asked.Add(int64(n))
		p.granted += uint64(n)
		return nil
	case p.conn.state.passes(err):
		p.cut.Store(true)
		return nil
	}
	return kind(err)
}

// isMessage reports whether m is a message; otherwise it takes notice of what
// the server says.
func (p *puller) isMessage(m *nats.Msg, gone *bool) bool {
	status, isStatus := m.Header["Status"]
	if !isStatus || len(m.Data) > 0 || m.Reply != "" && !strings.HasPrefix(m.Subject, p.inbox) {
		p.less(1)
		return true
	}
	if status[0] == "100" { // a heartbeat
		return false
	}
	if i := slices.IndexFunc(p.fences, func(f *fence) bool { return f.reply == m.Subject }); i >= 0 && status[0] == "400" {
		p.fences[i].come = true
		return false
	}
	// A request is over: the server says how many messages it still stood for.
	if left, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages")); err == nil {
		p.less(int64(left))
		p.granted -= min(uint64(left), p.granted)
	} else {
		p.granted -= min(uint64(p.asked.Swap(0)), p.granted)
	}
	description := m.Header.Get("Description")
	*gone = *gone || status[0] == noResponders || status[0] == "409" && (strings.Contains(description, "Consumer Deleted") || strings.Contains(description, "Leadership Change") || strings.Contains(description, "Server Shutdown"))
	return false
}

// ranDry reports whether the server had sent all that it was asked for with the nth
// message. It is called with growing numbers.
func (p *puller) ranDry(nth uint64) bool {
	for len(p.dry) > 0 && p.dry[0] < nth {
		p.dry = p.dry[1:]
	}
	return len(p.dry) > 0 && p.dry[0] == nth
}

// less notes that n messages fewer are to come. More may come than were asked
// for, when a request was made again.
func (p *puller) less(n int64) {
	if p.asked.Add(-n) < 0 {
		p.asked.Store(0)
	}
}

// place is what the server says of a message of a consumer.
type place struct {
	deliveries int
	seq        uint64 // on the stream
	nth        uint64 // of the consumer
	at         time.Time
	pending    uint64 // messages behind it
}

// placeOf reads the subject of acknowledgements:
// $JS.ACK.[domain.account.]stream.consumer.deliveries.seq.nth.time.pending[.random].
func placeOf(reply string) (place, error) {
	var p place
	rest, ok := strings.CutPrefix(reply, "$JS.ACK.")
	if !ok {
		return p, errNoPlace(reply)
	}
	skip := 2 // the stream and the consumer
	if strings.Count(rest, ".") > 6 {
		skip = 4
	}
	for range skip {
		if _, rest, ok = strings.Cut(rest, "."); !ok {
			return p, errNoPlace(reply)
		}
	}
	var numbers [5]uint64
	for i := range numbers {
		var token string
		token, rest, _ = strings.Cut(rest, ".")
		if numbers[i], ok = readNumber(token); !ok {
			return p, errNoPlace(reply)
		}
	}
	return place{int(numbers[0]), numbers[1], numbers[2], time.Unix(0, int64(numbers[3])), numbers[4]}, nil
}

func errNoPlace(reply string) error {
	return fmt.Errorf("the message is none of a stream: its reply subject is %q", reply)
}

// receive reads a message of a stream into r.
func (t *stored) receive(r *driver.Received, m *nats.Msg) (place, error) {
	p, err := placeOf(m.Reply)
	if err != nil {
		return p, err
	}
	topic := t.topic
	if t.shared() && isPattern(topic) {
		topic, _ = storedTopic(m.Subject)
	}
	t.conn.decodeInto(r, m, topic)
	r.Seq, r.Deliveries = p.seq, p.deliveries
	if r.Time.IsZero() {
		r.Time = p.at
	}
	return p, nil
}
