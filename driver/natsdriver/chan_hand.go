package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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
	asked int       // answers still to come, for receivers and tries
	at    time.Time // when a receiver last asked

	rest *chanRest // set while values are given back; arriving ones go back too

	// On several servers, the requests that may still be answered, by the last
	// token of their subject: the leader of the consumer may die, and its requests
	// with it, while the connection stays up.
	requests map[string]chanRequest
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

// chanReceiver is a caller waiting for a value.
type chanReceiver struct {
	id   string        // of a try
	done chan struct{} // closed by finish
	hand *chanHand
	err  error
}

func (r *chanReceiver) finish(h *chanHand, err error) {
	r.hand, r.err = h, err
	close(r.done)
}

// chanHand is a value in hand.
type chanHand struct {
	ch     *channel
	data   []byte
	reply  string // of the server's message
	offer  string // with capacity 0: where to ask the sender for the value
	seq    uint64
	at     time.Time // when the server gave or lent it
	server string    // the server that did
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

// restLocked gives up the values that nobody here has wanted for a moment, and
// begins a rest. It returns how long to wait until then, or a negative number if
// there is nothing to wait for.
func (ch *channel) restLocked() time.Duration {
	if len(ch.receivers) > 0 || len(ch.tries) > 0 || len(ch.spare) == 0 && (ch.intake == nil || ch.intake.asked == 0) {
		return -1
	}
	if wait := chanSpare - time.Since(ch.left); wait > 0 {
		return wait
	}
	in := ch.intake
	if in != nil && in.rest != nil && !in.rest.late() {
		return chanSpare
	}
	rest := newChanRest()
	ch.rest = rest
	defer rest.done()
	if in != nil {
		in.rest = rest
	}
	if len(ch.spare) == 0 {
		rest.await(in.sub)
		ch.forgetLocked()
		return -1
	}
	// Leave the requests standing until everything is back: without them the server
	// would redeliver a value as soon as it came back.
	for _, h := range ch.spare {
		delete(ch.hands, h)
		rest.giveBack(h, in)
	}
	ch.spare = nil
	return -1
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
	err := ch.conn.nc.PublishRequest(ch.conn.apiPrefix()+"CONSUMER.MSG.NEXT."+ch.stream+"."+chanConsumer, in.inbox+"."+id, request)
	if err != nil {
		return err
	}
	in.asked += n
	if in.requests != nil {
		in.requests[id] = chanRequest{n, time.Now()}
	}
	return nil
}

// arrived handles a message that the server sends to the intake.
func (ch *channel) arrived(in *intake, m *nats.Msg) {
	p, err := placeOf(m.Reply)
	if err != nil {
		ch.refused(in, m)
		return
	}
	h := &chanHand{ch: ch, data: m.Data, reply: m.Reply, offer: m.Header.Get(harkOffer), seq: p.seq, at: time.Now(), server: ch.conn.nc.ConnectedServerId()}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	in.asked = max(in.asked-1, 0)
	switch {
	case ch.gone:
		h.say(sayBack)
		return
	case in.rest != nil: // an earlier value may be on its way back
		in.rest.giveBack(h, in)
		return
	case ch.firstLocked(h):
	case in != ch.intake:
		h.say(sayBack)
		return
	default:
		ch.spare = append(ch.spare, h)
		ch.tell()
	}
	ch.hands[h] = struct{}{}
}

// firstLocked gives a value to the first waiter. It reports whether there was one.
func (ch *channel) firstLocked(h *chanHand) bool {
	from := &ch.tries
	if len(*from) == 0 {
		from = &ch.receivers
	}
	if len(*from) == 0 {
		return false
	}
	(*from)[0].finish(h, nil)
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
	id := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
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
	if id == backToken {
		if in.rest != nil && in.rest.done() {
			in.rest = nil
			ch.tell()
		}
		return
	}
	if id[0] == 't' {
		in.asked = max(in.asked-1, 0)
		if i := slices.IndexFunc(ch.tries, func(r *chanReceiver) bool { return r.id == id }); i >= 0 {
			ch.tries[i].finish(nil, tryError(m))
			ch.tries = slices.Delete(ch.tries, i, i+1)
			ch.leaveLocked()
		}
	} else if left, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages")); err == nil {
		in.asked = max(in.asked-left, 0)
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

// Receive implements driver.Chan.
func (ch *channel) Receive(ctx context.Context, try bool) (*driver.ChanValue, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for pause := time.Millisecond; ; pause = min(2*pause, chanPoll) {
		ch.mu.Lock()
		gone, closed := ch.gone, ch.closed
		ch.mu.Unlock()
		switch {
		case gone:
			return nil, errConnClosed
		case closed && ch.config.Capacity == 0:
			return nil, errChanClosed
		}
		h, err := ch.next(ctx, try || closed)
		switch {
		case err == nil:
			return &driver.ChanValue{Data: h.data, Done: h.done, Return: h.giveBack}, nil
		case errors.Is(err, errCut), errors.Is(err, errNoConsumer):
			if err := ch.recover(ctx, nats.ErrNoResponders); err != nil {
				return nil, err
			}
			continue
		case !errors.Is(err, driver.ErrAgain):
			return nil, err
		}
		if closed { // it is over once nobody has a value in hand either
			n, err := ch.Len(ctx)
			if err != nil {
				return nil, err
			}
			if n == 0 {
				return nil, errChanClosed
			}
		}
		if try {
			none, err := ch.confirm(ctx)
			if err != nil {
				return nil, err
			}
			ch.mu.Lock()
			found := ch.closed && !closed
			ch.mu.Unlock()
			switch {
			case found:
				continue
			case none:
				return nil, driver.ErrAgain
			}
		}
		select { // a value is in hand, or is stored and about to reach the consumer
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// confirm reports whether there is nothing to receive, and finds out whether the
// channel is closed. A server may answer a try before it has told its consumer of a
// value already stored.
func (ch *channel) confirm(ctx context.Context) (none bool, err error) {
	err = ch.conn.state.do(ctx, func(ctx context.Context) error {
		name := ch.config.Name
		info, err := ch.values.Info(ctx, jetstream.WithSubjectFilter("$HARK.*."+name))
		if err != nil {
			return chanError(ctx, err)
		}
		if info.State.Subjects[chanEndPrefix+name] > 0 {
			ch.setClosed()
		}
		if none = info.State.Subjects[chanPrefix+name] == 0; none {
			return nil
		}
		consumer, err := ch.values.Consumer(ctx, chanConsumer)
		if err != nil {
			return chanError(ctx, err)
		}
		// Everything before the consumer's place is in hand, or has been. On
		// several servers its own counts trail what is stored and removed.
		next := consumer.CachedInfo().Delivered.Stream + 1
		_, err = ch.values.GetMsg(ctx, next, jetstream.WithGetMsgSubject(chanPrefix+name))
		if none = errors.Is(err, jetstream.ErrMsgNotFound); none || err == nil {
			return nil
		}
		return chanError(ctx, err)
	})
	return none, err
}

// next receives a value; with try it returns driver.ErrAgain if there is none.
func (ch *channel) next(ctx context.Context, try bool) (*chanHand, error) {
	r := &chanReceiver{done: make(chan struct{})}
	ch.mu.Lock()
	for ch.rest != nil {
		rest := ch.rest
		ch.mu.Unlock()
		if err := rest.wait(ctx, ch.quit); err != nil {
			return nil, err
		}
		ch.mu.Lock()
		if ch.rest == rest {
			ch.rest = nil
			if in := ch.intake; in != nil && in.rest == rest {
				in.rest = nil
			}
		}
	}
	switch {
	case ch.gone:
		ch.mu.Unlock()
		return nil, errConnClosed
	case len(ch.spare) > 0:
		h := ch.spare[0]
		ch.spare = slices.Delete(ch.spare, 0, 1)
		ch.left = time.Now()
		ch.mu.Unlock()
		return h, nil
	case ch.closed && ch.config.Capacity == 0:
		ch.mu.Unlock()
		return nil, errChanClosed
	case try:
		r.id = "t" + ch.conn.ids.next()
		in, err := ch.intakeLocked()
		if err == nil {
			if in.asked == 0 {
				in.at = time.Now()
			}
			err = ch.pull(in, r.id, 1, true)
		}
		if err != nil {
			ch.mu.Unlock()
			if ch.passes(err) {
				return nil, errCut
			}
			return nil, kind(err)
		}
		ch.tries = append(ch.tries, r)
	default:
		ch.receivers = append(ch.receivers, r)
		if !ch.askLocked() {
			ch.tell()
		}
	}
	ch.mu.Unlock()
	over, pause := ch.over, time.Millisecond
	var late, look <-chan time.Time
	if try {
		timer := time.NewTimer(chanAnswer)
		defer timer.Stop()
		over, late = nil, timer.C
	}
	var err error
	for err == nil {
		select {
		case <-r.done:
			return r.hand, r.err
		case <-late:
			err = errNoConsumer
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-over:
			over = nil
			look, err = ch.lookLeft(ctx, pause)
		case <-look:
			pause = min(2*pause, chanPoll)
			look, err = ch.lookLeft(ctx, pause)
		}
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	from := &ch.receivers
	if try {
		from = &ch.tries
	}
	i := slices.Index(*from, r)
	if i < 0 { // it has got an answer
		return r.hand, r.err
	}
	*from = slices.Delete(*from, i, i+1)
	ch.leaveLocked()
	return nil, err
}

// lookLeft serves a receiver on a closed channel. It returns errChanClosed if no
// value is left, not even in anybody's hand, and otherwise when to look again. The
// requests stay in place meanwhile: after another request the server would send one
// value too many, which would be in hand for nobody while others get later ones.
func (ch *channel) lookLeft(ctx context.Context, pause time.Duration) (again <-chan time.Time, err error) {
	n, err := ch.Len(ctx)
	if err == nil && n == 0 {
		err = errChanClosed
	}
	if err != nil {
		return nil, err
	}
	return time.After(pause), nil
}

// say tells the server something about the value, if it can.
func (h *chanHand) say(what []byte) { _ = h.ch.conn.nc.Publish(h.reply, what) }

// letGo takes the value out of hand. It reports whether it was in hand.
func (h *chanHand) letGo() bool {
	h.ch.mu.Lock()
	defer h.ch.mu.Unlock()
	_, held := h.ch.hands[h]
	delete(h.ch.hands, h)
	return held
}

// ours reports whether nobody else can have received the value.
func (h *chanHand) ours() bool { return h.leased() && h.given(h.ch.conn.nc.ConnectedServerId()) }

// given reports whether the server knows that the value is in hand.
func (h *chanHand) given(server string) bool { return h.ch.spread || h.server == server }

// leased reports whether the lease has not ended.
func (h *chanHand) leased() bool {
	h.ch.mu.Lock()
	defer h.ch.mu.Unlock()
	return time.Since(h.at) < h.ch.lease
}

// extendLocked extends the leases of the values in hand.
func (ch *channel) extendLocked() {
	if len(ch.hands) == 0 || !ch.conn.state.connected() {
		return
	}
	server := ch.conn.nc.ConnectedServerId()
	now := time.Now()
	for h := range ch.hands {
		// A value whose lease has ended may be in other hands.
		if h.given(server) && now.Sub(h.at) < ch.lease && now.Sub(h.at) > ch.lease/4 && ch.conn.nc.Publish(h.reply, sayAtWork) == nil {
			h.at = now
		}
	}
}

// done implements ChanValue.Done.
func (h *chanHand) done(ctx context.Context) error {
	ch := h.ch
	defer h.letGo()
	if h.offer != "" {
		return h.want(ctx)
	}
	ch.mu.Lock()
	_, held := ch.hands[h]
	ch.mu.Unlock()
	if !held {
		return errConnClosed
	}
	if ch.spread {
		return h.remove(ctx)
	}
	var unsure time.Time
	for {
		if !h.ours() {
			if unsure.IsZero() {
				h.say(sayBack)
				return driver.ErrEnded
			}
			return h.resolve(ctx)
		}
		begin := time.Now()
		_, err, sent := ch.exchange(ctx, &nats.Msg{Subject: h.reply, Data: sayDone})
		switch {
		case err == nil:
			return nil
		case !ch.passes(err):
			return orUnsure(kind(err), unsure)
		}
		if sent && unsure.IsZero() {
			unsure = begin
		}
		if err := ch.recover(ctx, errNoAnswer); err != nil {
			return orUnsure(err, unsure)
		}
	}
}

// remove is done on several servers. There the consumer and the values have
// separate leaders: an acknowledgement is answered before the value is removed, and
// is lost if the leader of the values dies in between. So the value is removed
// first. The servers order removals with everything else, perform each once, and
// confirm it to one receiver only.
func (h *chanHand) remove(ctx context.Context) error {
	ch := h.ch
	m := &nats.Msg{Subject: ch.conn.apiPrefix() + "STREAM.MSG.DELETE." + ch.stream, Data: deleteRequest(h.seq)}
	var unsure time.Time
	for {
		if unsure.IsZero() && !h.leased() {
			h.say(sayBack)
			return driver.ErrEnded
		}
		begin := time.Now()
		_, err, sent := ch.exchange(ctx, m)
		switch {
		case err == nil:
			h.say(sayDone)
			_ = ch.conn.nc.Publish(chanWaitPrefix+ch.config.Name, nil) // if it is lost, they look now and then anyway
			return nil
		case isRemoved(err) && unsure.IsZero():
			return driver.ErrEnded
		case isRemoved(err):
			return fmt.Errorf("%w: the value is removed, by this or by somebody else, because a server did not answer", driver.ErrUnsure)
		case !ch.passes(err) && apiCode(err) != codeNotDeleted:
			return orUnsure(kind(err), unsure)
		}
		if sent && unsure.IsZero() {
			unsure = begin
		}
		if err := ch.recover(ctx, err); err != nil {
			return orUnsure(err, unsure)
		}
	}
}

// codeNotDeleted is the error of a server that could not remove a message; only its
// text gives the reason.
const codeNotDeleted = 10057

// isRemoved reports whether removing a message failed because the message does not
// exist.
func isRemoved(err error) bool {
	switch apiCode(err) {
	case 10037, 10043: // no message, no such sequence
		return true
	case codeNotDeleted: // otherwise the disk of this server may be full while others have removed it
		return strings.Contains(err.Error(), "no message found") || strings.Contains(err.Error(), "stream store EOF")
	}
	return false
}

// deleteRequest encodes a request to remove a message.
func deleteRequest(seq uint64) []byte { return fmt.Appendf(nil, `{"seq":%d,"no_erase":true}`, seq) }

// resolve finds out whether the server learned that the value is done before others
// could get it.
func (h *chanHand) resolve(ctx context.Context) error {
	ch := h.ch
	if ch.restarted(h.server) {
		h.say(sayBack)
		return fmt.Errorf("%w: the server has been started anew", driver.ErrUnsure)
	}
	here := false
	err := ch.conn.state.do(ctx, func(ctx context.Context) error {
		_, err := ch.values.GetMsg(ctx, h.seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return chanError(ctx, err)
		}
		here = true
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", driver.ErrUnsure, err)
	case here: // it comes again
		h.say(sayBack)
		return driver.ErrEnded
	case h.leased(): // it is too soon for anybody else to have received it
		return nil
	}
	return fmt.Errorf("%w: %w", driver.ErrUnsure, errNoAnswer)
}

// giveBack implements ChanValue.Return.
func (h *chanHand) giveBack(ctx context.Context) error {
	if !h.letGo() {
		return errConnClosed
	}
	if !h.ours() {
		return driver.ErrEnded
	}
	return h.ch.conn.state.do(ctx, func(context.Context) error { return h.ch.conn.nc.Publish(h.reply, sayBack) })
}
