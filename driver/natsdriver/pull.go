package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

const (
	// pullExpires is how long a request for messages stands before it is renewed.
	pullExpires = 30 * time.Second
	// While a request stands and there are no messages the server sends heartbeats.
	// After silence for two intervals and a half the request counts as lost.
	pullHeartbeat = 2 * time.Second
	pullSilence   = 2*pullHeartbeat + pullHeartbeat/2
	// pullBytes is how large the messages of one request may be together. A message
	// that is larger by itself is requested alone.
	pullBytes = 4 << 20
)

// puller requests the messages of a consumer, such that never more are on their way
// than are wanted. next is called by one goroutine at a time.
type puller struct {
	inlet
	inbox   string // replies come to inbox.N
	subject string // subject of requests to the consumer
	pace    *pace  // says how many messages are requested ahead, for a short time; nil if the caller does

	asked   atomic.Int64 // messages requested but not yet taken
	granted uint64       // messages requested in all, without those that requests ended without delivering
	dry     []uint64     // values of granted at which the server had sent everything and nothing more was requested
	count   int          // requests made
	none    bool         // no message has come since the last request
	single  bool         // the next message is too large to be requested with others
	cut     atomic.Bool  // the connection was lost since the first request
	wake    chan struct{}
	silence *time.Timer // runs while nextMessages waits
	several bool        // messages have come together lately
	asking  chan *fence // for the caller of nextMessages
	fences  []*fence    // requested from the server

	turn  sync.Mutex  // held by who takes from the buffer; guards what that needs
	swept []*nats.Msg // taken from the buffer, to count them
	gone  bool        // a status that was found then says that the consumer is
}

// fence is a marker in the stream of messages, for settled.
type fence struct {
	reply  string    // the subject on which it comes
	come   bool      // it has come, after everything on its way before it
	passed chan bool // gets whether it has passed
}

// fenceRequest is a request that the server cannot parse. The server answers it
// after the messages it has already sent, and with no message.
var fenceRequest = []byte("{")

var (
	// errNoConsumer says that the consumer does not answer: it, or its server, is
	// gone.
	errNoConsumer = errors.New("no consumer")
	// errCut says that the connection was lost, perhaps with messages.
	errCut = errors.New("the connection was lost")
	// errWoken says that there is news for the goroutine waiting for messages.
	errWoken = errors.New("woken")
)

// apiPrefix returns the prefix of the subjects of JetStream requests.
func (c *Conn) apiPrefix() string {
	if d := c.opts.domain; d != "" {
		return "$JS." + d + ".API."
	}
	return "$JS.API."
}

// newPuller returns a puller that can be asked for up to room messages.
func newPuller(c *Conn, stream, consumer string, room int) *puller {
	return &puller{
		inlet: newInlet(c, 4*room+64), // four times as much, because a renewed request may be answered twice
		inbox: c.nc.NewInbox(), wake: make(chan struct{}, 1), asking: make(chan *fence),
		subject: c.apiPrefix() + "CONSUMER.MSG.NEXT." + stream + "." + consumer,
	}
}

// open starts to listen for requested messages.
func (p *puller) open(ctx context.Context) error {
	if err := p.begin(ctx, []string{p.inbox + ".*"}, ""); err != nil {
		return err
	}
	p.conn.state.mu.Lock()
	p.conn.state.lossListeners[p] = struct{}{}
	p.conn.state.mu.Unlock()
	return nil
}

// lost implements lossListener.
func (p *puller) lost() {
	p.cut.Store(true)
	p.rouse()
}

// rouse makes nextMessages return early.
func (p *puller) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// settled waits until nextMessages has returned everything that the server had
// sent, and its caller has passed that on, as it has when it calls nextMessages
// again. It returns false if the connection was lost meanwhile, or ctx ends first.
func (p *puller) settled(ctx context.Context) bool {
	f := &fence{passed: make(chan bool, 1)}
	select {
	case p.asking <- f:
	case <-p.ended:
		return p.buffered() == 0
	case <-ctx.Done():
		return false
	}
	select {
	case passed := <-f.passed:
		return passed
	case <-p.ended:
		return p.buffered() == 0
	case <-ctx.Done():
		return false
	}
}

// demand requests a fence from the server.
func (p *puller) demand(f *fence) {
	p.count++
	f.reply = p.inbox + "." + strconv.Itoa(p.count)
	if p.conn.nc.PublishRequest(p.subject, f.reply, fenceRequest) != nil {
		f.passed <- false
		return
	}
	p.fences = append(p.fences, f)
}

// passFences reports the fences that have come: all messages before them have been
// passed on.
func (p *puller) passFences() {
	if len(p.swept) > 0 {
		return // these may have come before them
	}
	p.fences = slices.DeleteFunc(p.fences, func(f *fence) bool {
		if f.come {
			f.passed <- true
		}
		return f.come
	})
}

// discard stops taking messages and drops the buffered ones.
func (p *puller) discard() {
	p.unlist()
	p.end()
	p.empty()
}

func (p *puller) empty() {
	p.turn.Lock()
	defer p.turn.Unlock()
	p.swept, p.gone = nil, false
	for p.more() != nil {
	}
}

func (p *puller) unlist() {
	p.conn.state.mu.Lock()
	defer p.conn.state.mu.Unlock()
	delete(p.conn.state.lossListeners, p)
}

// stop stops taking messages: the last are those that the server has already sent.
func (p *puller) stop(ctx context.Context) error {
	p.unlist()
	var err error
	if p.conn.state.connected() {
		// The client keeps taking them until the server has processed the end.
		for _, sub := range p.subs {
			err = errors.Join(err, sub.Drain())
		}
		err = errors.Join(err, p.conn.flush(ctx))
	}
	p.end()
	return err
}

// nextMessages returns between 1 and most messages. It sees to it that as many others
// are on their way as most leaves room for, or ahead, or the pace, if that is more. Once
// no received messages are left, it returns errNoConsumer or errCut if one of them
// applies, and driver.ErrEnded after stop. The next call reuses the slice.
func (p *puller) nextMessages(ctx context.Context, most, ahead int) ([]*nats.Msg, error) {
	p.turn.Lock()
	defer p.turn.Unlock()
	timed, gone := false, p.gone
	p.gone = false
	clear(p.taken)
	for {
		p.passFences()
		ms := p.take(p.taken[:0], most, &gone)
		ended := p.over()
		if !ended && !gone && !p.cut.Load() {
			if p.pace != nil {
				ahead = p.pace.ahead(time.Now())
			}
			if err := p.ask(most-len(ms), ahead); err != nil {
				return nil, err
			}
		}
		if len(ms) > 0 {
			p.taken, p.several = ms, len(ms) > 1
			return ms, nil
		}
		if !timed {
			timed = true
			if p.silence == nil {
				p.silence = time.NewTimer(pullSilence)
			} else {
				p.silence.Reset(pullSilence)
			}
			defer p.silence.Stop()
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
				if p.several {
					runtime.Gosched() // lets the client run, which has read more than one
				}
				p.taken = p.take(append(p.taken[:0], m), most, &gone)
				p.several = len(p.taken) > 1
				return p.taken, nil
			}
			p.silence.Reset(pullSilence)
		case <-p.silence.C:
			p.forgetRequestsLocked()
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

// buffered returns how many messages have arrived and have not been taken.
func (p *puller) buffered() int {
	if !p.turn.TryLock() {
		return len(p.msgs) // they are being taken
	}
	defer p.turn.Unlock()
	return len(p.sweep())
}

// waiting returns the messages that have arrived and have not been taken, or none while
// somebody waits for them.
func (p *puller) waiting() []*nats.Msg {
	if !p.turn.TryLock() {
		return nil
	}
	defer p.turn.Unlock()
	return slices.Clone(p.sweep())
}

// sweep empties the buffer into swept, without statuses.
func (p *puller) sweep() []*nats.Msg {
	p.swept = p.take(nil, math.MaxInt, &p.gone)
	return p.swept
}

// rest returns the messages that nextMessages has not returned, once it has ended.
func (p *puller) rest() []*nats.Msg {
	p.turn.Lock()
	defer p.turn.Unlock()
	return p.take(nil, math.MaxInt, &p.gone)
}

// take appends the messages that have arrived to ms, up to most.
func (p *puller) take(ms []*nats.Msg, most int, gone *bool) []*nats.Msg {
	n := min(len(p.swept), most-len(ms))
	ms = append(ms, p.swept[:n]...)
	if p.swept = p.swept[n:]; len(p.swept) == 0 {
		p.swept = nil // so that they are not kept in memory
	}
	for len(ms) < most {
		m := p.more()
		if m == nil {
			break
		}
		if p.isMessage(m, gone) {
			ms = append(ms, m)
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
	p.turn.Lock()
	defer p.turn.Unlock()
	p.forgetRequestsLocked()
}

func (p *puller) forgetRequestsLocked() {
	for _, f := range p.fences {
		f.passed <- false
	}
	p.fences = nil
	p.asked.Store(0)
	p.cut.Store(false)
}

// ask makes sure that as many messages are here or on their way as there is room for,
// or ahead if that is more. It requests more when half of them are missing.
func (p *puller) ask(room, ahead int) error {
	depth := max(room, ahead)
	asked := int(p.asked.Load()) + len(p.swept)
	if asked > depth/2 || depth == 0 {
		return nil
	}
	if err := p.conn.refused(p.subject); err != nil {
		return err
	}
	n, size := depth-asked, pullBytes
	if p.single {
		n, size = 1, 0 // no limit
	}
	if p.count > 0 && asked <= len(p.msgs) {
		p.dry = append(p.dry, p.granted)
	}
	p.count++
	reply := p.inbox + "." + strconv.Itoa(p.count)
	expires, heartbeat := pullExpires, pullHeartbeat
	if p.pace != nil && n > room { // the caller may become slow
		expires, heartbeat = paceExpires, 0
	}
	request := fmt.Appendf(nil, `{"batch":%d,"max_bytes":%d,"expires":%d,"idle_heartbeat":%d}`, n, size, expires, heartbeat)
	err := p.conn.nc.PublishRequest(p.subject, reply, request)
	switch {
	case err == nil:
		p.asked.Add(int64(n))
		p.granted += uint64(n)
		p.none, p.single = true, false
		return nil
	case p.conn.state.passes(err):
		p.cut.Store(true)
		return nil
	}
	return kind(err)
}

// isMessage reports whether m is a message; otherwise it handles the status that m
// carries.
func (p *puller) isMessage(m *nats.Msg, gone *bool) bool {
	status, isStatus := m.Header["Status"]
	toInbox := strings.HasPrefix(m.Subject, p.inbox) // messages of a stream keep their subjects
	if !isStatus || len(m.Data) > 0 || m.Reply != "" && !toInbox {
		if toInbox { // somebody else's
			return false
		}
		p.less(1)
		p.none = false
		return true
	}
	if status[0] == "100" { // a heartbeat
		return false
	}
	if i := slices.IndexFunc(p.fences, func(f *fence) bool { return f.reply == m.Subject }); i >= 0 && status[0] == "400" {
		p.fences[i].come = true
		return false
	}
	// A request has ended; the status says how many messages it was still owed.
	if left, err := strconv.ParseUint(m.Header.Get("Nats-Pending-Messages"), 10, 31); err == nil {
		p.less(int64(left))
		p.granted -= min(left, p.granted)
	} else {
		p.granted -= min(uint64(p.asked.Swap(0)), p.granted)
	}
	description := m.Header.Get("Description")
	p.single = p.single || p.none && strings.Contains(description, "Exceeds MaxBytes")
	*gone = *gone || status[0] == noResponders || status[0] == "409" && (strings.Contains(description, "Consumer Deleted") || strings.Contains(description, "Leadership Change") || strings.Contains(description, "Server Shutdown"))
	return false
}

// ranDry reports whether the nth message was the last one requested at the time. It
// must be called with increasing numbers.
func (p *puller) ranDry(nth uint64) bool {
	for len(p.dry) > 0 && p.dry[0] < nth {
		p.dry = p.dry[1:]
	}
	return len(p.dry) > 0 && p.dry[0] == nth
}

// less notes that n fewer messages are awaited. More may arrive than were
// requested, when a request was renewed.
func (p *puller) less(n int64) {
	if p.asked.Add(-n) < 0 {
		p.asked.Store(0)
	}
}

// place is what the server says about a message of a consumer.
type place struct {
	deliveries int
	seq        uint64 // sequence in the stream
	nth        uint64 // count of the consumer
	at         time.Time
	pending    uint64 // how many messages are behind it
}

// placeOf parses the reply subject of a message:
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
	return fmt.Errorf("the message does not come from a stream: its reply subject is %q", reply)
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
