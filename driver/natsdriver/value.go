package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// The state of each value is the only message on its subject in a stream, and the
// sequence of that message is its version. The server publishes every state that it
// has stored to the watchers, over core NATS; they fetch what they miss.
const (
	valueStream  = "hark-values"
	valuePrefix  = "$HARK.value." // followed by the name
	watchPrefix  = "$HARK.watch." // followed by the name
	natsSequence = "Nats-Sequence"
	// writersHeader lists the last change of each writer that has changed the
	// value, newest last, after sinceMark with the version since which it is whole:
	// what other clients write has no list. A writer whose answer was lost tells by
	// it whether its change was made.
	writersHeader = "hark-writers"
	sinceMark     = "@"
	maxWriters    = 64
	// watchPoll is how often a watch checks whether it has missed a state, because
	// a cluster may change its leader before a state has been sent.
	watchPoll = 10 * time.Second
)

// The server's errors about a message whose expected last sequence is not the
// actual one.
const (
	codeWrongSequence = 10071
	codeBeingWritten  = 10164 // another change of the subject is in progress in the cluster
)

// value is a driver.Value.
type value struct {
	conn *Conn
	name string
	turn chan struct{} // capacity 1; held while changing the value
	ids  ids           // of its changes; not the connection's, on which there may be others

	mu      sync.Mutex // guards the fields below
	since   time.Time  // when the stream was made whose sequences are the versions
	version uint64     // the newest version known here
	writers string     // its writersHeader
	pending string     // the change in progress, until its answer is known
	made    uint64     // the version of that change, once it has been seen
}

// OpenValue implements driver.Values.
func (c *Conn) OpenValue(ctx context.Context, name string, initial []byte) (driver.Value, error) {
	v, _, _, err := c.openValue(ctx, name, initial)
	return v, err
}

// CreateValue creates a value, and reports whether it did: otherwise the value exists,
// with the returned state.
func (c *Conn) CreateValue(ctx context.Context, name string, initial []byte) (state driver.State, made bool, err error) {
	_, state, made, err = c.openValue(ctx, name, initial)
	return state, made, err
}

// openValue returns a value with its state, and reports whether it has made the value.
func (c *Conn) openValue(ctx context.Context, name string, initial []byte) (v *value, state driver.State, made bool, err error) {
	if c.js == nil {
		return nil, state, false, c.refuse("values")
	}
	if c.state.isClosed() {
		return nil, state, false, errConnClosed
	}
	v = &value{conn: c, name: name, turn: make(chan struct{}, 1)}
	v.ids.init()
	if err := v.ensureStream(ctx); err != nil {
		return nil, state, false, err
	}
	state, err = v.Load(ctx)
	if err == nil && state.Version == 0 {
		state, made, err = v.CompareAndSet(ctx, 0, initial)
	}
	return v, state, made, err
}

// ensureStream creates the stream of values if needed.
func (v *value) ensureStream(ctx context.Context) error {
	c := v.conn
	return c.state.do(ctx, func(ctx context.Context) error {
		_, err := c.api(ctx).Stream(ctx, valueStream)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			_, err = c.api(ctx).CreateStream(ctx, jetstream.StreamConfig{
				Name: valueStream, Description: "values of hark", Subjects: []string{valuePrefix + ">"},
				MaxMsgsPerSubject: 1, Storage: jetstream.FileStorage, Replicas: c.opts.replicas,
				RePublish: &jetstream.RePublish{Source: valuePrefix + ">", Destination: watchPrefix + ">"},
			})
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // somebody else was faster
				err = nil
			}
		}
		return passing(err)
	})
}

// Load implements driver.Value. The version of a value that has no state is 0.
func (v *value) Load(ctx context.Context) (state driver.State, err error) {
	err = v.conn.state.do(ctx, func(ctx context.Context) error {
		stream, err := v.conn.api(ctx).Stream(ctx, valueStream)
		if err != nil {
			return passing(err)
		}
		if err := v.of(stream.CachedInfo().Created); err != nil {
			return err
		}
		m, err := stream.GetLastMsgForSubject(ctx, valuePrefix+v.name)
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			if state = (driver.State{}); v.known() > 0 {
				return fmt.Errorf("value %s has been removed from stream %s", v.name, valueStream)
			}
			return nil
		case err != nil:
			return passing(err)
		case m.Sequence < v.known():
			return fmt.Errorf("%w: the server that answered has an older state", driver.ErrAgain)
		}
		state = driver.State{Version: m.Sequence, Data: m.Data}
		v.note(m.Sequence, m.Header.Get(writersHeader))
		return nil
	})
	return state, err
}

// of notes the stream that states belong to. In a recreated stream versions start
// anew, so they say nothing about the known ones.
func (v *value) of(made time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.version > 0 && !v.since.Equal(made) {
		return fmt.Errorf("value %s was removed with stream %s, which has been created again since; open the value again", v.name, valueStream)
	}
	v.since = made
	return nil
}

func (v *value) known() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.version
}

// note records a version, and who has written it and those before it.
func (v *value) note(version uint64, writers string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.pending != "" && strings.HasSuffix(writers, v.pending) {
		v.made = version
	}
	if version > v.version {
		v.version, v.writers = version, writers
	}
}

// wrote reports whether a change of the state with version base is among the writers'
// last changes; known is false if they do not tell: their list is missing or was begun
// later, by the first writer after another client, or so many others have changed the
// value since that it may have dropped out.
func (v *value) wrote(base uint64, id string) (wrote, known bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	since, all := readWriters(v.writers)
	switch {
	case slices.Contains(all, id):
		return true, true
	case slices.ContainsFunc(all, v.isMine): // an earlier one, which this one would have replaced
		return false, true
	case len(all) < maxWriters: // none has dropped out
		return false, since <= base
	}
	return false, v.version-base <= maxWriters
}

// written returns writers, those of the state with version base, with a change by this
// writer added, replacing its previous one.
func (v *value) written(writers string, base uint64, id string) string {
	since, all := readWriters(writers)
	since = min(since, base) // if nobody knows, the list is whole from here on
	all = append(slices.DeleteFunc(all, v.isMine), id)
	all = all[max(len(all)-maxWriters, 0):]
	return sinceMark + strconv.FormatUint(since, 10) + " " + strings.Join(all, " ")
}

// isMine reports whether a change was made by this writer.
func (v *value) isMine(id string) bool { return strings.HasPrefix(id, v.ids.prefix) }

// readWriters returns the changes in a list of writers, and the version since which the
// list is whole: the greatest number if it does not say, as those of older harks.
func readWriters(list string) (since uint64, all []string) {
	all = strings.Fields(list)
	if len(all) > 0 {
		if text, ok := strings.CutPrefix(all[0], sinceMark); ok {
			if since, err := strconv.ParseUint(text, 10, 64); err == nil {
				return since, all[1:]
			}
		}
	}
	return math.MaxUint64, all
}

// CompareAndSet implements driver.Value.
func (v *value) CompareAndSet(ctx context.Context, version uint64, data []byte) (driver.State, bool, error) {
	select {
	case v.turn <- struct{}{}:
		defer func() { <-v.turn }()
	case <-ctx.Done():
		return driver.State{}, false, context.Cause(ctx)
	}
	if v.known() < version {
		if _, err := v.Load(ctx); err != nil {
			return driver.State{}, false, err
		}
	}
	v.mu.Lock()
	present, writers := v.version, v.writers
	v.mu.Unlock()
	if present != version {
		state, err := v.Load(ctx)
		return state, false, err
	}
	id := v.ids.next()
	writers = v.written(writers, version, id)
	m := &nats.Msg{Subject: valuePrefix + v.name, Data: data, Header: nats.Header{}}
	setNATSHeader(m, jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(version, 10))
	setNATSHeader(m, writersHeader, writers)
	seq, err := v.send(ctx, m, version, id)
	switch {
	case err != nil:
		return driver.State{}, false, err
	case seq == 0:
		state, err := v.Load(ctx)
		return state, false, err
	}
	if sync := v.conn.opts.sync; sync != nil {
		if err := sync(ctx, valueStream); err != nil {
			return driver.State{}, false, fmt.Errorf("%w: %w", driver.ErrUnsure, err)
		}
	}
	v.note(seq, writers)
	return driver.State{Version: seq, Data: data}, true, nil
}

// send sends a change of the state with version base until it is known whether it
// was made, and returns its version, or 0 if it was not. If others have changed the
// value again before the answer came, and nobody here has seen the version, base+1
// stands for it: no state of others can have that.
func (v *value) send(ctx context.Context, m *nats.Msg, base uint64, id string) (seq uint64, err error) {
	c := v.conn
	v.expect(id)
	defer v.expect("")
	unsure := false
	err = c.state.do(ctx, func(ctx context.Context) error {
		watchSubject(ctx, m.Subject)
		ack, err := c.api(ctx).PublishMsg(ctx, m)
		switch code := apiCode(err); {
		case err == nil:
			seq = ack.Sequence
			return nil
		case code == codeWrongSequence && unsure:
			seq, err = v.outcome(ctx, base, id)
			return err
		case code == codeWrongSequence:
			return nil // the change was not made
		case code == codeBeingWritten:
			return fmt.Errorf("%w: %w", driver.ErrAgain, err)
		case code != 0:
			return passing(storeError(err))
		}
		unsure = true
		return passing(err)
	})
	if err != nil && unsure && !errors.Is(err, driver.ErrUnsure) {
		err = fmt.Errorf("%w: %w", driver.ErrUnsure, err)
	}
	return seq, err
}

// expect sets the change whose version note should look for.
func (v *value) expect(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pending, v.made = id, 0
}

// outcome finds out whether a change of the state with version base had been made
// before the server refused its repeat, and returns what send should.
func (v *value) outcome(ctx context.Context, base uint64, id string) (seq uint64, err error) {
	state, err := v.Load(ctx)
	if err != nil {
		return 0, err
	}
	if state.Version <= base { // the server that refused it knew a newer state
		return 0, fmt.Errorf("%w: the server that answered has an older state", driver.ErrAgain)
	}
	switch wrote, known := v.wrote(base, id); {
	case !known:
		return 0, fmt.Errorf("%w: a client other than hark has changed the value, or very many others have", driver.ErrUnsure)
	case !wrote:
		return 0, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.made != 0 {
		return v.made, nil
	}
	// Do not use a number after the newest version known: that could be the version
	// of somebody's newer state, which the next change here would then undo.
	return base + 1, nil
}

// valueWatch is a driver.ValueWatch.
type valueWatch struct {
	value *value
	sub   *nats.Subscription
	given uint64        // the version that Next last returned
	stale bool          // a state may have been missed; used by Next alone
	look  chan struct{} // has a token when a state may have been missed
	news  chan struct{} // has a token when newest has changed
	once  sync.Once
	ended chan struct{}

	mu     sync.Mutex // guards newest
	newest driver.State
}

// Watch implements driver.Value.
func (v *value) Watch(ctx context.Context) (driver.ValueWatch, error) {
	c := v.conn
	w := &valueWatch{value: v, look: make(chan struct{}, 1), news: make(chan struct{}, 1), ended: make(chan struct{}), stale: true}
	var err error
	if w.sub, err = c.nc.Subscribe(watchPrefix+v.name, w.receive); err != nil {
		return nil, kind(err)
	}
	if err = w.sub.SetPendingLimits(-1, -1); err == nil { // receive does not block
		err = c.flush(ctx)
	}
	if err == nil {
		err = c.add(closer{w})
	}
	if err != nil {
		_ = w.sub.Unsubscribe() // the error is reported
		return nil, kind(err)
	}
	c.state.mu.Lock()
	c.state.lossListeners[w] = struct{}{}
	c.state.mu.Unlock()
	return w, nil
}

// closer adapts a watch to what ends with the connection.
type closer struct{ *valueWatch }

// Close implements end.
func (c closer) Close(context.Context) error { return c.valueWatch.Close() }

// receive handles a state published by the server.
func (w *valueWatch) receive(m *nats.Msg) {
	seq, err := strconv.ParseUint(m.Header.Get(natsSequence), 10, 64)
	if err != nil {
		return // it is not from the server
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if seq > w.newest.Version {
		w.newest = driver.State{Version: seq, Data: m.Data}
		w.value.note(seq, m.Header.Get(writersHeader))
		tick(w.news)
	}
}

// lost implements lossListener.
func (w *valueWatch) lost() { tick(w.look) }

// tick puts a token into a channel of capacity 1, if it is empty.
func tick(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Next implements driver.ValueWatch.
func (w *valueWatch) Next(ctx context.Context) (driver.State, error) {
	poll := time.NewTicker(watchPoll)
	defer poll.Stop()
	for {
		if w.stale {
			if err := w.fetch(ctx); err != nil {
				return driver.State{}, err
			}
		}
		w.mu.Lock()
		state := w.newest
		w.mu.Unlock()
		if state.Version > w.given {
			w.given = state.Version
			return state, nil
		}
		select {
		case <-w.news:
		case <-w.look:
			w.stale = true
		case <-poll.C:
			w.stale = true
		case <-w.ended:
			return driver.State{}, driver.ErrEnded
		case <-ctx.Done():
			return driver.State{}, context.Cause(ctx)
		}
	}
}

// fetch asks the server for the state, once the connection is up.
func (w *valueWatch) fetch(ctx context.Context) error {
	state, err := w.value.Load(ctx)
	if err != nil {
		if errors.Is(err, driver.ErrClosed) {
			return driver.ErrEnded
		}
		return err
	}
	w.stale = false
	w.mu.Lock()
	defer w.mu.Unlock()
	if state.Version > w.newest.Version {
		w.newest = state
	}
	return nil
}

// Close implements driver.ValueWatch.
func (w *valueWatch) Close() error {
	w.once.Do(func() {
		close(w.ended)
		c := w.value.conn
		c.state.mu.Lock()
		delete(c.state.lossListeners, w)
		c.state.mu.Unlock()
		c.remove(closer{w})
		_ = w.sub.Unsubscribe() // the connection may be closed
	})
	return nil
}
