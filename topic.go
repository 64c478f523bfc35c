package hark

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark/internal/feed"
)

// Topic is a named stream of values of one Go type. Everyone who names the same
// topic of a bus shares one Topic. It is safe for concurrent use.
type Topic[T any] struct {
	// mode is what Publish does without options: nothing if no one listens,
	// append, or the full procedure. It is beside what appending touches.
	mode   atomic.Uint32
	log    feed.Log[entry[T]]
	core   topicCore
	remote *remoteTopic // used instead of the log over an engine; nil in process

	mu          sync.Mutex     // guards the fields below
	consumers   []*consumer[T] // each knows its index; see snapshot
	groups      map[string]*consumer[T]
	patternTaps map[tap[T]]struct{} // consumers of patterns, which also read the logs
	listening   int                 // number of consumers that read the logs, including patternTaps
	mixed       bool                // consumers are not in order
	lanes       []*Publisher[T]
	sealed      bool

	holders int // number of responders to its name, if it is of KindRequest; guarded by Bus.mu
}

// The modes of a topic.
const (
	silent uint32 = iota // no one listens and nothing is stored
	plain                // append the bare value
	full                 // see publish
)

// topicCore is the part of a topic that does not depend on its type.
type topicCore struct {
	scope
	typ       reflect.Type
	keyOf     func(data any) string // data is a *T; nil without KeyBy
	keyFunc   uintptr               // identifies the function passed to KeyBy
	retention *Retention            // nil on an ephemeral topic
	existing  bool                  // an engine may have it with another retention
	dedup     *dedup                // nil if IDs are not remembered
	delayed   delayed
	codec     Codec
	bare      bool
	pointers  bool // values hold pointers
	inbox     bool // it is the log of an inbox
	lasting   bool // the log of a group that keeps its place
	// bury publishes a dead letter with the value that data points to.
	bury      func(to string, data any, m *meta) error
	at        []uintptr     // callers of NewTopic
	published atomic.Uint64 // messages published by handles that are closed
	repeats   atomic.Uint64
}

// scope is what has consumers: a topic, a pattern or a name of requests.
type scope struct {
	bus   *Bus
	kind  Kind
	name  string
	hands *sync.Pool // of *hand[T]
}

// entry is a message in a log.
type entry[T any] struct {
	value T
	meta  *meta
}

// NewTopic returns the topic of that name, and creates it if it does not exist.
// The first caller sets its type and options: another T is ErrTypeMismatch, and
// different options are ErrInvalidOption. Later callers may omit the options. Without a
// bus there are no topics: nil is ErrInvalidOption.
//
// Over an engine the limits of a stored topic that exists there must be those in
// Retention, unless Existing takes it as it is. A process that omits Stored uses an
// ephemeral topic of that name: what it publishes is stored if the engine stores the
// topic, but Publish does not wait for that. NewTopic waits for the engine, at most ten
// seconds.
func NewTopic[T any](b *Bus, name string, opts ...TopicOption) (*Topic[T], error) {
	if b == nil {
		return nil, fail("topic", name, errNoBus)
	}
	t, err := newTopic[T](b, KindTopic, name, caller(), opts)
	if err != nil {
		return nil, fail("topic", name, err)
	}
	return t, nil
}

func newTopic[T any](b *Bus, kind Kind, name string, at uintptr, opts []TopicOption) (*Topic[T], error) {
	return newTopicUntil[T](b, func() bool { return b.closing }, kind, name, at, opts)
}

func newTopicUntil[T any](b *Bus, over func() bool, kind Kind, name string, at uintptr, opts []TopicOption) (*Topic[T], error) {
	c := topicConfig{dedup: -1}
	for opt := range given(opts) {
		if err := opt.applyTopic(&c); err != nil {
			return nil, err
		}
	}
	switch {
	case c.existing && c.retention == nil:
		return nil, fmt.Errorf("%w: Existing without Stored, which says how to create the topic if it is not there", ErrInvalidOption)
	case c.existing && c.dedup == 0 && !c.dead:
		return nil, fmt.Errorf("%w: DedupWindow(0) with Existing, which takes the window that the topic has", ErrInvalidOption)
	}
	var key func(T) string
	if c.keyOf != nil {
		var ok bool
		if key, ok = c.keyOf.(func(T) string); !ok {
			return nil, fmt.Errorf("%w: KeyBy takes %T, the topic carries %v", ErrTypeMismatch, c.keyOf, reflect.TypeFor[T]())
		}
		if key == nil {
			return nil, fmt.Errorf("%w: KeyBy(nil)", ErrInvalidOption)
		}
	}
	if b.engine != nil && kind == KindTopic {
		return openRemoteTopic(b, over, kind, name, at, opts, c, key)
	}
	if r := c.retention; r != nil && r.MaxBytes > 0 {
		return nil, fmt.Errorf("%w: in-process engine: Retention.MaxBytes (values are not encoded)", ErrUnsupported)
	} else if r != nil && r.Durability != 0 && r.Durability != Memory {
		return nil, fmt.Errorf("%w: in-process engine: durability %v", ErrUnsupported, r.Durability)
	}
	// Patterns must see each topic from its first message on.
	b.patterns.mu.Lock()
	defer b.patterns.mu.Unlock()
	if kind == KindTopic {
		if err := b.patterns.acceptLocked(name, reflect.TypeFor[T]()); err != nil {
			return nil, err
		}
	}
	t, existed, err := attachUntil(b, over, kind, name, func() *Topic[T] { return makeTopic(b, kind, name, c, key) })
	if err != nil {
		return nil, err
	}
	if err := t.declare(existed, at, opts, c); err != nil {
		return nil, err
	}
	if !existed && kind == KindTopic {
		b.patterns.joinLocked(name, t)
	}
	return t, nil
}

// declare records a maker of the topic, and checks the options of a later one.
func (t *Topic[T]) declare(existed bool, at uintptr, opts []TopicOption, c topicConfig) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at != 0 && len(t.core.at) < maxPlaces && !slices.Contains(t.core.at, at) {
		t.core.at = append(t.core.at, at)
	}
	if existed && len(opts) > 0 {
		return t.core.agrees(c)
	}
	return nil
}

func makeTopic[T any](b *Bus, kind Kind, name string, c topicConfig, key func(T) string) *Topic[T] {
	typ := reflect.TypeFor[T]()
	if c.codec == nil {
		c.codec = b.codecFor(typ)
	}
	t := &Topic[T]{core: topicCore{
		scope: scope{b, kind, name, handsOf[T](b)}, typ: typ, retention: c.retention, existing: c.existing && !c.dead, codec: c.codec, bare: c.bare, pointers: refers(typ),
	}}
	t.core.bury = burial[T](b)
	if key != nil {
		t.core.keyFunc = reflect.ValueOf(key).Pointer()
		t.core.keyOf = func(data any) string { return key(valueAt[T](data)) }
	}
	if c.dedup > 0 || c.dedup < 0 && c.retention != nil {
		t.core.dedup = newDedup(c.dedup)
	}
	t.log.Init(t.logConfig(false))
	t.setModeLocked()
	return t
}

// valueAt returns the value that the Data of a message points to. In a
// subscription to values of any type, Data points to an any.
func valueAt[T any](data any) T {
	if p, ok := data.(*T); ok {
		return *p
	}
	return (*data.(*any)).(T)
}

// agrees returns an error if the options of a later maker differ from those of
// the topic.
func (t *topicCore) agrees(c topicConfig) error {
	switch {
	case c.keyOf != nil && reflect.ValueOf(c.keyOf).Pointer() != t.keyFunc:
		return fmt.Errorf("%w: it exists without this KeyBy; the first call must have the options", ErrInvalidOption)
	case c.retention != nil && t.retention == nil:
		return fmt.Errorf("%w: it was opened without Stored, so it is ephemeral in this process; the first call must have the options", ErrInvalidOption)
	case c.retention != nil && t.existing && !c.existing:
		return fmt.Errorf("%w: it was opened with Existing, so its limits may be others; the first call must have the options", ErrInvalidOption)
	case c.retention != nil && !c.existing && *c.retention != *t.retention:
		return fmt.Errorf("%w: it exists with Stored(%+v), not Stored(%+v)", ErrInvalidOption, *t.retention, *c.retention)
	case otherCodec(c.codec, t.codec):
		return errOtherCodec
	case c.bare && !t.bare:
		return fmt.Errorf("%w: it exists without Bare; the first call must have the options", ErrInvalidOption)
	case c.dedup >= 0 && !c.existing && c.dedup != t.dedup.span():
		return fmt.Errorf("%w: it exists with DedupWindow(%v), not %v", ErrInvalidOption, t.dedup.span(), c.dedup)
	}
	return nil
}

func (t *Topic[T]) logConfig(sole bool) feed.Config[entry[T]] {
	c := feed.Config[entry[T]]{Sole: sole, Pointers: t.core.pointers}
	if r := t.core.retention; r != nil {
		c.Keep, c.Most = true, uint64(r.MaxMessages)
		if r.MaxAge > 0 {
			c.Expired = func(e *entry[T]) bool { return time.Since(e.meta.entered()) > r.MaxAge }
		}
	}
	return c
}

// Name returns the name of the topic.
func (t *Topic[T]) Name() string { return t.core.name }

// setModeLocked sets mode from the present state. Publishers that read the old
// mode an instant later behave as if they had come an instant earlier.
func (t *Topic[T]) setModeLocked() {
	mode := plain
	switch {
	case t.sealed || t.remote != nil || t.core.retention != nil || len(t.core.bus.hooks.publish) > 0:
		mode = full
	case t.listening == 0:
		mode = silent
	}
	t.mode.Store(mode)
}

// maxPlaces limits how many places in the program a topology records for each
// topic.
const maxPlaces = 16

// caller returns the program counter of the caller of the exported function
// that calls it.
func caller() uintptr {
	var pcs [1]uintptr
	runtime.Callers(3, pcs[:])
	return pcs[0]
}

// place formats a program counter from caller as file:line.
func place(pc uintptr) string {
	frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	return fmt.Sprintf("%s:%d", frame.File, frame.Line)
}

// The topic as a component of its bus.

func (t *Topic[T]) valueType() reflect.Type {
	var v T
	if c, ok := any(v).(interface{ signature() reflect.Type }); ok { // of requests
		return c.signature()
	}
	return reflect.TypeFor[T]()
}

func (t *Topic[T]) seal() {
	if t.remote != nil {
		t.remote.seal()
		return
	}
	t.mu.Lock()
	t.sealed = true
	t.setModeLocked()
	lanes := slices.Clone(t.lanes)
	t.mu.Unlock()
	t.log.Seal()
	for _, p := range lanes {
		p.own.Seal()
	}
	for _, c := range t.snapshot() {
		c.resume()
	}
}

func (t *Topic[T]) drain(ctx context.Context) {
	if t.remote != nil {
		t.remote.drain(ctx)
		return
	}
	for _, c := range t.snapshot() {
		c.settle(ctx)
	}
}

func (t *Topic[T]) work() (accepted uint64, done bool) {
	if t.remote != nil {
		return t.remote.work()
	}
	accepted, done = t.accepted(), true
	for _, c := range t.snapshot() {
		done = done && c.idle()
	}
	return accepted, done
}

func (t *Topic[T]) stop(ctx context.Context, cause error) []Left {
	if t.remote != nil {
		return t.remote.stop(ctx, cause)
	}
	// Refuse everything new first, since no one would handle it.
	t.mu.Lock()
	lanes := slices.Clone(t.lanes)
	t.mu.Unlock()
	for _, p := range lanes {
		p.own.Close()
	}
	t.log.Close()
	var left []Left
	for _, c := range t.snapshot() {
		if l := c.stop(ctx, cause); l.any() {
			left = append(left, l)
		}
	}
	if n := t.core.delayed.stop(ctx); n > 0 {
		left = append(left, Left{Kind: t.core.kind, Name: t.core.name, Delayed: n})
	}
	return left
}

// cancel implements canceller.
func (t *Topic[T]) cancel(cause error) {
	if t.remote != nil {
		t.remote.cancel(cause)
		return
	}
	for _, c := range t.snapshot() {
		c.cancel(cause)
	}
}

// snapshot returns the consumers in order of arrival.
func (t *Topic[T]) snapshot() []*consumer[T] {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mixed {
		slices.SortFunc(t.consumers, func(a, b *consumer[T]) int { return cmp.Compare(a.serial, b.serial) })
		for i, c := range t.consumers {
			c.place = i + 1
		}
		t.mixed = false
	}
	return slices.Clone(t.consumers)
}

// accepted returns the number of messages that the topic has accepted.
func (t *Topic[T]) accepted() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.log.Tail() + t.core.published.Load()
	for _, p := range t.lanes {
		n += p.log.Tail()
	}
	return n
}

func (t *Topic[T]) addStats(s *Stats) {
	ts := TopicStats{
		Name:         t.core.name,
		Published:    t.accepted(),
		Deduplicated: t.core.repeats.Load(),
		Delayed:      uint64(t.core.delayed.count()),
	}
	if t.core.retention != nil {
		ts.Stored = t.log.Kept()
	}
	for _, c := range t.snapshot() {
		ts.Subscriptions = append(ts.Subscriptions, c.stats())
	}
	if t.remote != nil {
		t.remote.addStats(&ts)
	}
	if t.core.kind == KindRequest {
		s.Requests = append(s.Requests, ts)
	} else {
		s.Topics = append(s.Topics, ts)
	}
}

func (t *Topic[T]) addTopology(top *Topology) {
	node := Node{
		Kind: t.core.kind, Name: t.core.name, Type: t.valueType().String(), Stored: t.core.retention != nil,
	}
	t.mu.Lock()
	places := slices.Clone(t.core.at)
	for _, p := range t.lanes {
		node.Ends = append(node.Ends, End{Role: "publish", At: place(p.at)})
	}
	t.mu.Unlock()
	for _, pc := range places {
		node.Ends = append(node.Ends, End{Role: "declare", At: place(pc)})
	}
	for _, c := range t.snapshot() {
		node.Ends = append(node.Ends, c.places()...)
	}
	if t.remote != nil {
		for _, in := range t.remote.snapshot() {
			node.Ends = append(node.Ends, in.places()...)
		}
	}
	top.Nodes = append(top.Nodes, node)
}
