package natsdriver

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

// A waiting receiver has asked the server for one value, and a try has asked for
// one if there is one. An arriving value goes to the first try here, or else to the
// receiver that has been waiting longest. Nothing overtakes, because all values
// come over one subscription and no more are asked for than there are waiters. A
// value that arrives for a receiver that has left is kept a moment for the next
// one, and then goes back, since others may have received later values by then.

// intake is the subject to which the server sends the values asked for. To take the
// requests back, the channel abandons it for a new one.
type intake struct {
	sub   *nats.Subscription
	inbox string
	asked int        // answers still to come, for receivers and tries
	pulls []chanPull // the requests that they answer, in the order in which the server does
	at    time.Time  // when a receiver last asked

	withdrawal *withdrawal // which arriving values belong to, if the requests are being taken back

	// On several servers, the requests that may still be answered, by the last
	// token of their subject: the leader of the consumer may die, and its requests
	// with it, while the connection stays up.
	requests map[string]chanRequest
}

// chanPull is a request whose values have not all come.
type chanPull struct {
	id     string
	values int
	at     time.Time
}

// answeredLocked notes that a value has come, and returns when it was asked for, or
// earlier.
func (in *intake) answeredLocked() (at time.Time) {
	in.asked = max(in.asked-1, 0)
	if len(in.pulls) == 0 {
		return at
	}
	p := &in.pulls[0]
	at = p.at
	if p.values--; p.values == 0 {
		in.pulls = slices.Delete(in.pulls, 0, 1)
	}
	return at
}

// endedLocked notes that n values of a request will not come.
func (in *intake) endedLocked(id string, n int) {
	in.asked = max(in.asked-n, 0)
	i := slices.IndexFunc(in.pulls, func(p chanPull) bool { return p.id == id })
	if i < 0 {
		return
	}
	if in.pulls[i].values -= n; in.pulls[i].values <= 0 {
		in.pulls = slices.Delete(in.pulls, i, i+1)
	}
}

// chanRequest is a request that the server may still answer.
type chanRequest struct {
	values int
	sign   time.Time // its last sign of life
}

// lostLocked reports whether more answers are awaited than can come.
func (in *intake) lostLocked() bool {
	if in.asked == 0 {
		clear(in.requests)
		return false
	}
	if time.Since(in.at) > chanPullExpires+2*chanAnswer {
		return true
	}
	if in.requests == nil {
		return false
	}
	may := 0
	for id, r := range in.requests {
		if time.Since(r.sign) > chanSilence {
			delete(in.requests, id) // answered, or lost
			continue
		}
		may += r.values
	}
	return may < in.asked
}

const (
	chanPullExpires = 10 * time.Second
	// On several servers, a request that waits gets a heartbeat this often. After
	// silence for longer than chanSilence it counts as forgotten.
	chanHeartbeat = time.Second
	chanSilence   = 4 * time.Second
	// chanSpare is how long values are kept, and requests left standing, when
	// nobody waits.
	chanSpare = 20 * time.Millisecond
)

// intakeLocked returns the intake, creating it if needed.
func (ch *channel) intakeLocked() (*intake, error) {
	if ch.intake != nil {
		return ch.intake, nil
	}
	in := &intake{inbox: ch.conn.nc.NewInbox()}
	if ch.spread {
		in.requests = map[string]chanRequest{}
	}
	sub, err := ch.conn.nc.Subscribe(in.inbox+".*", func(m *nats.Msg) { ch.arrived(in, m) })
	if err != nil {
		return nil, err
	}
	in.sub = sub
	ch.intake = in
	return in, nil
}

// forgetLocked takes the requests back. Values on their way still arrive.
func (ch *channel) forgetLocked() {
	if ch.intake != nil {
		_ = ch.intake.sub.Drain() // nothing to do if the connection is closed
		ch.intake = nil
	}
	for _, r := range ch.tries {
		r.finish(nil, errCut)
	}
	ch.tries = nil
}

// askLocked asks for as many values as there are receivers. It reports false if it
// is too early for that; the keeper then does it later.
func (ch *channel) askLocked() bool {
	if in := ch.intake; in != nil && in.lostLocked() {
		ch.forgetLocked()
	}
	if len(ch.receivers) == 0 || ch.gone {
		return true
	}
	if time.Until(ch.askAfter) > 0 {
		return false
	}
	in, err := ch.intakeLocked()
	if err != nil { // it is closed, or the keeper tries again
		return true
	}
	if n := len(ch.receivers) + len(ch.tries) - in.asked; n > 0 && ch.pull(in, "n", n, false) == nil {
		in.at = time.Now()
		if ch.config.Capacity == 0 {
			_ = ch.conn.nc.Publish(chanWaitPrefix+ch.config.Name, nil) // if it is lost, they look now and then anyway
		}
	}
	return true
}

// pull asks the server for values. Refusals arrive at id; for a request that is not
// a try, on several servers, at a token that begins with id.
func (ch *channel) pull(in *intake, id string, n int, try bool) error {
	request := make([]byte, 0, 64)
	request = append(request, `{"batch":`...)
	request = strconv.AppendInt(request, int64(n), 10)
	if try {
		request = append(request, `,"no_wait":true}`...)
	} else {
		request = append(request, `,"expires":`...)
		request = strconv.AppendInt(request, int64(chanPullExpires), 10)
		if ch.spread {
			id += ch.conn.ids.next()
			request = append(request, `,"idle_heartbeat":`...)
			request = strconv.AppendInt(request, int64(chanHeartbeat), 10)
		}
		request = append(request, '}')
	}
	now := time.Now()
	err := ch.conn.nc.PublishRequest(ch.nextSubject(), in.inbox+"."+id, request)
	if err != nil {
		return err
	}
	in.asked += n
	in.pulls = append(in.pulls, chanPull{id, n, now})
	if in.requests != nil {
		in.requests[id] = chanRequest{n, now}
	}
	return nil
}

// nextSubject returns the subject for requests of values.
func (ch *channel) nextSubject() string {
	return ch.conn.apiPrefix() + "CONSUMER.MSG.NEXT." + ch.stream + "." + chanConsumer
}

// readValue reads a message of the server that is a value.
func (ch *channel) readValue(m *nats.Msg) (*chanDelivery, error) {
	p, err := placeOf(m.Reply)
	if err != nil {
		return nil, err
	}
	return &chanDelivery{
		ch: ch, data: m.Data, reply: m.Reply, offer: m.Header.Get(harkOffer), seq: p.seq, server: ch.conn.nc.ConnectedServerId(),
		stored: p.at, shared: p.deliveries > 1,
	}, nil
}

// leaseLocked sets the begin of the lease of a value that has just come, and was
// asked for at the given time. The server sent it after that, and after it had stored
// it. If both were long ago, the process or its connection may have stood still until
// the lease ended.
func (d *chanDelivery) leaseLocked(asked time.Time) {
	now := time.Now()
	age := max(min(now.Sub(asked), now.Sub(d.stored.Add(d.ch.clock))), 0)
	if age > d.ch.lease/2 {
		age, d.shared = 0, true
	}
	d.at = now.Add(-age)
}

// arrived handles a message that the server sends to the intake.
func (ch *channel) arrived(in *intake, m *nats.Msg) {
	if strings.HasPrefix(m.Subject, in.inbox) { // values keep their subjects
		if m.Header.Get("Status") != "" { // otherwise it is somebody else's
			ch.refused(in, m)
		}
		return
	}
	d, err := ch.readValue(m)
	if err != nil {
		return
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	d.leaseLocked(in.answeredLocked())
	switch {
	case ch.gone:
		d.say(sayBack)
		return
	case in.withdrawal != nil:
		in.withdrawal.addLocked(d)
		return
	case ch.firstLocked(d):
	case in != ch.intake:
		d.say(sayBack)
		return
	default:
		ch.spare = append(ch.spare, d)
		ch.tell()
	}
	ch.deliveries[d] = struct{}{}
}

// firstLocked gives a value to the first waiter. It reports whether there was one.
func (ch *channel) firstLocked(d *chanDelivery) bool {
	from := &ch.tries
	if len(*from) == 0 {
		from = &ch.receivers
	}
	if len(*from) == 0 {
		return false
	}
	(*from)[0].finish(d, nil)
	*from = slices.Delete(*from, 0, 1)
	ch.leaveLocked()
	return true
}

// leaveLocked notes when the last waiter left.
func (ch *channel) leaveLocked() {
	if len(ch.receivers) == 0 && len(ch.tries) == 0 {
		ch.left = time.Now()
		if ch.intake != nil && ch.intake.asked > 0 {
			ch.tell()
		}
	}
}

// refused handles an answer of the server that is not a value.
func (ch *channel) refused(in *intake, m *nats.Msg) {
	id := lastToken(m.Subject)
	ch.mu.Lock()
	defer ch.mu.Unlock()
	r, known := in.requests[id]
	if m.Header.Get("Status") == "100" { // a heartbeat
		if known {
			in.requests[id] = chanRequest{r.values, time.Now()}
		}
		return
	}
	delete(in.requests, id)
	if strings.HasPrefix(id, "t") {
		in.endedLocked(id, 1)
		if i := slices.IndexFunc(ch.tries, func(r *chanReceiver) bool { return r.id == id }); i >= 0 {
			ch.tries[i].finish(nil, tryError(m))
			ch.tries = slices.Delete(ch.tries, i, i+1)
			ch.leaveLocked()
		}
	} else if left, err := strconv.ParseUint(m.Header.Get("Nats-Pending-Messages"), 10, 31); err == nil {
		in.endedLocked(id, int(left))
	} else if ch.intake == in { // there is nobody to ask; do not ask again at once
		ch.forgetLocked()
		ch.askAfter = time.Now().Add(chanPoll)
		ch.tell()
		return
	}
	if ch.intake == in {
		ch.askLocked()
	}
}

// tryError returns why a try got nothing.
func tryError(m *nats.Msg) error {
	if m.Header.Get("Status") == "404" {
		return driver.ErrAgain
	}
	return errNoConsumer
}
