package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// The metadata keys of a stream.
const (
	metaTopic      = "hark-topic"
	metaDurability = "hark-durability"
)

// The stream of a topic for dead letters has one more subject, to which nobody
// publishes. It serves to find such topics among many.
const (
	deadPrefix = "$HARK.dead." // followed by the topic
	deadSuffix = ".dead"
)

// repeatWindow is the minimum time that servers of a cluster remember messages, so
// that sending one again does no harm. It is longer than they take to elect a
// leader, but not so long that they hold the IDs of very many messages.
const repeatWindow = time.Minute

// forever is the maximum age of messages of a stream that has no other but allows TTLs.
// Without any, the server (2.15) starts a timer, and a goroutine that looks for messages
// to remove, for nearly each message that it stores.
const forever = 100 * 365 * 24 * time.Hour

// maxAge returns the maximum age of the messages of a stream, 0 for none.
func maxAge(c *jetstream.StreamConfig) time.Duration {
	if c.MaxAge >= forever {
		return 0
	}
	return c.MaxAge
}

var durabilities = map[driver.Durability]struct {
	name  string
	needs driver.Capability
}{
	driver.DurableStrict:  {"strict", driver.Strict},
	driver.DurableRelaxed: {"relaxed", driver.Relaxed},
	driver.DurableMemory:  {"memory", driver.Memory},
}

// stored is a stored topic, or all topics of a store that match a pattern. Nothing
// can be published to a pattern.
type stored struct {
	backing
	conn     *Conn
	topic    string // or a pattern
	wanted   driver.StoredConfig
	perTopic int                                    // of a store to be created
	partly   bool                                   // the user may use only some topics of the store
	config   atomic.Pointer[jetstream.StreamConfig] // the actual configuration
	writer   writer

	unanswered bool         // no broker has said where the topic is; used only while opening it
	calls      atomic.Int64 // calls in progress that publish a single message

	deduplicated atomic.Uint64
}

// openStored implements OpenTopic for stored topics.
func (c *Conn) openStored(ctx context.Context, name string, cfg driver.StoredConfig) (driver.Topic, error) {
	if c.js == nil {
		return nil, c.refuse(string(driver.Stored))
	}
	if _, ok := durabilities[cfg.Durability]; !ok {
		return nil, fmt.Errorf("durability %d is unknown", cfg.Durability)
	}
	t := &stored{conn: c, topic: name, backing: ownBacking(name), wanted: cfg}
	return t, t.begins(ctx)
}

// begins opens a topic for the first time.
func (t *stored) begins(ctx context.Context) error {
	if !t.wanted.Existing {
		if err := t.allowed(); err != nil {
			return err
		}
	}
	t.writer.init(t)
	err := t.open(ctx)
	if t.again(err) {
		err = t.open(ctx)
	}
	if err != nil {
		return err
	}
	if t.wanted.AnyClass {
		t.takeAsItIs()
	}
	return t.noteDead(ctx)
}

// takeAsItIs makes the durability of the stream the wanted one, if it is weaker, and so
// its limits, if any will do: the stream of a topic in memory is gone when the server
// restarts, and is made again as it was.
func (t *stored) takeAsItIs() {
	have := storedConfig(t.config.Load())
	if t.inMemory() { // also a stream that is not hark's
		have.Durability = driver.DurableMemory
	}
	w := &t.wanted
	w.Durability = max(w.Durability, have.Durability)
	if w.Existing {
		w.MaxMessages, w.MaxAge, w.MaxBytes = have.MaxMessages, have.MaxAge, have.MaxBytes
		if w.Dedup > 0 {
			w.Dedup = have.Dedup
		}
	}
}

// open finds the stream, or creates it.
func (t *stored) open(ctx context.Context) error {
	c := t.conn
	return c.state.do(ctx, func(ctx context.Context) error {
		if done, err := t.ask(ctx); done || err != nil {
			return err
		}
		stream, err := c.api(ctx).Stream(ctx, t.stream)
		if t.unanswered {
			c.served(err)
		}
		if errors.Is(err, jetstream.ErrStreamNotFound) && !t.shared() && t.config.Load() == nil {
			found, findErr := t.moveIn(ctx)
			if findErr != nil {
				return findErr
			}
			if found {
				stream, err = c.api(ctx).Stream(ctx, t.stream)
			}
		}
		if errors.Is(err, jetstream.ErrStreamNotFound) && t.shared() && t.topic != t.store {
			return fmt.Errorf("the store of %s is %w", t.store, ErrNotFound)
		}
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			if err := t.allowed(); err != nil {
				return err
			}
			stream, err = t.create(ctx)
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // somebody else was faster, with another configuration
				stream, err = c.api(ctx).Stream(ctx, t.stream)
			}
		}
		if err != nil {
			return t.openError(ctx, err)
		}
		have := stream.CachedInfo().Config
		t.config.Store(&have)
		return t.agrees(&have)
	})
}

// create creates the stream.
func (t *stored) create(ctx context.Context) (jetstream.Stream, error) {
	c, cfg := t.conn, t.streamConfig()
	if cfg.Storage == jetstream.MemoryStorage { // it may replace one whose messages were delayed
		delayed, err := c.hasDue(ctx)
		if err != nil {
			return nil, err
		}
		if delayed {
			cfg.Sources = append(cfg.Sources, t.fromDue())
		}
	}
	defer c.due.forget(t.stream)
	return c.api(ctx).CreateStream(ctx, cfg)
}

// allowed returns an error if the stream would have a durability that is not
// declared.
func (t *stored) allowed() error {
	d := durabilities[t.wanted.Durability]
	if t.conn.info.Has(d.needs) {
		return nil
	}
	return t.conn.refuse(string(d.needs) + " cannot be promised: the server does not tell when it writes to disk." +
		" If its configuration has sync_interval: always, say so (sync=always in the URL, option SyncAlways); otherwise ask for Relaxed or Memory")
}

func (t *stored) openError(ctx context.Context, err error) error {
	return t.conn.openError(ctx, t.topic, err)
}

// openError explains what is wrong with the stream of a subject, and classifies
// whether it may be available later.
func (c *Conn) openError(ctx context.Context, subject string, err error) error {
	const overlap = 10065
	switch code := apiCode(err); {
	case code == overlap:
		return fmt.Errorf("%w: %s already stores what is published to %s", driver.ErrConflict, c.overlapping(ctx, subject), subject)
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil, code >= 500 && isUnavailable(err):
		return again(err)
	}
	if api, ok := noStore(err); ok {
		return c.state.full(api)
	}
	return kind(storeError(err))
}

// overlapping returns the name of a stream that has a subject.
func (c *Conn) overlapping(ctx context.Context, subject string) string {
	stream, err := c.api(ctx).StreamNameBySubject(ctx, subject)
	switch {
	case err != nil:
		return "another stream"
	case strings.HasPrefix(stream, topicStreams):
		if topic, err := c.nameOf(ctx, stream, topicStreams); err == nil && topic != "" {
			return "the existing stored topic " + topic
		}
	case strings.HasPrefix(stream, storeStreams):
		if pattern, err := c.patternOf(ctx, stream); err == nil && pattern != "" {
			return "the existing store " + pattern
		}
	}
	return "the stream " + stream + ", which does not belong to hark,"
}

// noStore returns the server's own error if it could not create the files for a
// stream or a consumer.
func noStore(err error) (api error, ok bool) {
	var e *jetstream.APIError
	if !errors.As(err, &e) {
		return err, false
	}
	const stream, consumer = 10049, 10012
	return e, (e.ErrorCode == stream || e.ErrorCode == consumer) && strings.HasPrefix(e.Description, "error creating store")
}

// apiCode returns the code of an error of JetStream's API, or 0 for other errors.
func apiCode(err error) int {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return int(api.ErrorCode)
	}
	var js jetstream.JetStreamError
	if errors.As(err, &js) && js.APIError() != nil {
		return int(js.APIError().ErrorCode)
	}
	return 0
}

// isUnavailable reports whether JetStream may be able to do it later. A server that
// is shutting down may send an empty answer.
func isUnavailable(err error) bool {
	if errors.Is(err, jetstream.ErrInvalidJetStreamResponse) {
		return true
	}
	switch apiCode(err) {
	case notAvailable, 10009, 10167, 10049, 10158: // unavailable, no leader, too many requests, still being deleted, still storing a message with this ID
		return true
	}
	return false
}

// passing marks the transient errors of JetStream's API.
func passing(err error) error {
	if errors.Is(err, jetstream.ErrNoStreamResponse) || isUnavailable(err) {
		return again(err)
	}
	return err
}

// again marks an error as transient, once.
func again(err error) error {
	if errors.Is(err, driver.ErrAgain) {
		return err
	}
	return fmt.Errorf("%w: %w", driver.ErrAgain, leaderless(err))
}

// storeError turns errors about missing room into ErrFull.
func storeError(err error) error {
	switch apiCode(err) {
	case 10023, 10047, 10028, 10054, 10077, 10001, 10002, 10122:
		return fmt.Errorf("%w: %w", driver.ErrFull, err)
	}
	return err
}

func (t *stored) streamConfig() jetstream.StreamConfig {
	w := t.wanted
	cfg := jetstream.StreamConfig{
		Name: t.stream, Subjects: []string{t.topic, keyedSubjects(t.topic)}, Description: "hark topic " + t.topic,
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		MaxMsgs: -1, MaxBytes: -1, MaxAge: w.MaxAge, Replicas: t.conn.opts.replicas, AllowDirect: true,
		Duplicates: w.Dedup, Storage: jetstream.FileStorage,
		Metadata: map[string]string{metaTopic: t.topic, metaDurability: durabilities[w.Durability].name},
	}
	if w.MaxMessages > 0 {
		cfg.MaxMsgs = int64(w.MaxMessages)
	}
	if w.MaxBytes > 0 {
		cfg.MaxBytes = w.MaxBytes
	}
	if w.Durability == driver.DurableMemory {
		cfg.Storage = jetstream.MemoryStorage
	}
	if cfg.Replicas > 1 && w.Dedup == 0 {
		cfg.Duplicates = repeatWindow
	}
	// The server requires that an ID is not remembered for longer than its message
	// is kept.
	if w.MaxAge > 0 && cfg.Duplicates > w.MaxAge {
		cfg.Duplicates = w.MaxAge
	}
	switch {
	case t.shared():
		cfg.Description, cfg.Subjects = "hark store "+t.topic, []string{t.topic, storeSubjects(t.topic)}
		cfg.SubjectTransform = &jetstream.SubjectTransformConfig{Source: t.topic, Destination: moved(t.topic, storePrefix+storePlain+".", 0)}
		cfg.MaxMsgsPerSubject = int64(max(t.perTopic, 0))
	case w.DeadLetters || strings.HasSuffix(t.topic, deadSuffix):
		cfg.Subjects = append(cfg.Subjects, deadPrefix+t.topic)
	}
	if cfg.AllowMsgTTL = t.conn.level >= levelTTL; cfg.AllowMsgTTL && cfg.MaxAge == 0 {
		cfg.MaxAge = forever
	}
	cfg.AllowAtomicPublish = t.conn.level >= levelBatch
	cfg.AllowBatchPublish = t.conn.level >= levelBurst
	return cfg
}

// agrees returns how an existing stream differs from what is wanted.
func (t *stored) agrees(have *jetstream.StreamConfig) error {
	if t.wanted.Existing {
		return nil
	}
	if t.shared() && t.topic != t.store {
		return t.fitsStore(have)
	}
	want := t.streamConfig()
	var differ []string
	check := func(what string, have, want any) {
		if have != want {
			differ = append(differ, fmt.Sprintf("%s is %v, not %v", what, have, want))
		}
	}
	check("MaxMessages", max(have.MaxMsgs, 0), max(want.MaxMsgs, 0))
	check("MaxBytes", max(have.MaxBytes, 0), max(want.MaxBytes, 0))
	check("MaxAge", maxAge(have), maxAge(&want))
	if t.wanted.Dedup > 0 {
		check("the window of deduplication", have.Duplicates, want.Duplicates)
	}
	if !t.wanted.AnyClass {
		check("its storage", have.Storage.String(), want.Storage.String())
		if d, ok := have.Metadata[metaDurability]; ok {
			check("the durability", d, want.Metadata[metaDurability])
		}
	}
	if t.shared() {
		check("the number of messages of each topic", max(have.MaxMsgsPerSubject, 0), max(want.MaxMsgsPerSubject, 0))
	} else if t.wanted.DeadLetters && !slices.Contains(have.Subjects, deadPrefix+t.topic) {
		differ = append(differ, "it is not one for dead letters")
	}
	if len(differ) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s (stream %s; open it with these, or as it is with Existing, or change the stream)", driver.ErrConflict, strings.Join(differ, ", "), t.stream)
}

// info returns the state of the stream.
func (t *stored) info(ctx context.Context, opts ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	if err := t.whole(); err != nil {
		return nil, err
	}
	var info *jetstream.StreamInfo
	err := t.conn.state.do(ctx, func(ctx context.Context) error {
		stream, err := t.conn.api(ctx).Stream(ctx, t.stream)
		if err == nil {
			info = stream.CachedInfo()
			if len(opts) > 0 {
				info, err = stream.Info(ctx, opts...)
			}
		}
		if err != nil {
			return t.openError(ctx, err)
		}
		return nil
	})
	return info, err
}

// inMemory reports whether the messages are lost when the server ends.
func (t *stored) inMemory() bool { return t.config.Load().Storage == jetstream.MemoryStorage }

// replaced reports whether a stream is another one than that which was made at a time and
// stored its message last at another time, which is zero if it is not known. A cluster
// can recreate a stream in memory as if it were the same one, so that only its messages
// tell: all of them were stored later than those of the former.
func (t *stored) replaced(now *jetstream.StreamInfo, made time.Time, last uint64, at time.Time) bool {
	if !made.IsZero() && !made.Equal(now.Created) {
		return true
	}
	s := now.State
	return t.inMemory() && (s.LastSeq < last || s.FirstSeq <= last && !at.IsZero() && s.FirstTime.After(at))
}

// isReplaced is replaced, but does not rely on the order of times alone, because the
// clocks of servers differ that have led one after the other: it asks for the message.
func (t *stored) isReplaced(ctx context.Context, now *jetstream.StreamInfo, made time.Time, last uint64, at time.Time) (bool, error) {
	sure := t.replaced(now, made, last, time.Time{})
	if sure || !t.replaced(now, made, last, at) {
		return sure, nil
	}
	m, err := t.conn.messageAt(ctx, t.stream, map[string]any{"seq": last})
	if errors.Is(err, ErrNotAllowed) {
		return true, nil
	}
	return !m.Time.Equal(at), err // also if it has been deleted: messages may come again, but are not skipped
}

// made returns when the stream was created, or the zero time if there is none.
func (t *stored) made(ctx context.Context) (made time.Time, err error) {
	err = t.conn.state.do(ctx, func(ctx context.Context) error {
		stream, err := t.conn.api(ctx).Stream(ctx, t.stream)
		switch {
		case err == nil:
			made = stream.CachedInfo().Created
		case !errors.Is(err, jetstream.ErrStreamNotFound):
			return t.openError(ctx, err)
		}
		return nil
	})
	return made, err
}

// Stats implements driver.Topic.
func (t *stored) Stats(ctx context.Context) (driver.TopicStats, error) {
	if err := t.whole(); err != nil {
		return driver.TopicStats{}, err
	}
	if t.shared() {
		return t.shareStats(ctx)
	}
	info, err := t.info(ctx)
	if err != nil {
		return driver.TopicStats{}, err
	}
	s := driver.TopicStats{Stored: info.State.Msgs, Deduplicated: t.deduplicated.Load(), Newest: info.State.LastSeq, Created: info.Created}
	if s.Delayed, err = t.delayed(ctx); err != nil {
		return s, err
	}
	if s.Stored > 0 {
		s.First, s.Last = info.State.FirstSeq, info.State.LastSeq
	}
	return s, nil
}
