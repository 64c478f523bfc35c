package natsdriver

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// Messages that are not due wait in a stream of their own, where they neither count
// towards the limits of their topics nor leave gaps in their sequences. When a
// message is due the server publishes it there on a subject of its topic, from
// which the stream of the topic sources it.
const (
	dueStream    = "hark-due"
	duePrefix    = "$HARK.due." // followed by the topic and a unique token
	firePrefix   = "$HARK.fire."
	firePlain    = firePrefix + "t." // followed by the topic
	fireKeyed    = firePrefix + "k." // followed by the topic and the partition
	fireStored   = firePrefix + "s." // followed by the partition and the topic of a store
	dueRemembers = 2 * time.Minute   // how long IDs are remembered
)

// The headers of schedules.
const (
	natsSchedule       = "Nats-Schedule"
	natsScheduleTarget = "Nats-Schedule-Target"
)

// dueKnown is how long a topic is known to receive messages that became due. Somebody may
// have deleted its stream, and another process have created it again.
const dueKnown = 5 * time.Second

// dueTopics records which topics receive messages that became due.
type dueTopics struct {
	mu    sync.Mutex           // guards ready
	ready map[string]time.Time // by stream: when that was last seen
}

func (d *dueTopics) has(stream string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Since(d.ready[stream]) < dueKnown
}

func (d *dueTopics) add(stream string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ready == nil {
		d.ready = map[string]time.Time{}
	}
	d.ready[stream] = time.Now()
}

// forget is called when a stream has been created or deleted.
func (d *dueTopics) forget(stream string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.ready, stream)
}

// delay turns a message of the topic into one that waits until it is due.
func (t *stored) delay(m *nats.Msg, due time.Time) {
	target := firePlain + t.topic
	if rest, keyed := strings.CutPrefix(m.Subject, keyedPrefix); keyed {
		target = fireKeyed + rest
	}
	if t.shared() {
		rest, keyed := strings.CutPrefix(m.Subject, storePrefix)
		if target = fireStored + storePlain + "." + t.topic; keyed {
			target = fireStored + rest
		}
	}
	setNATSHeader(m, natsSchedule, "@at "+due.UTC().Format(time.RFC3339Nano))
	setNATSHeader(m, natsScheduleTarget, target)
	if id, ok := m.Header[natsMsgID]; ok && !t.shared() { // all topics share the window
		setNATSHeader(m, natsMsgID, t.ownID(id[0]))
	}
	m.Subject = duePrefix + t.topic + "." + t.conn.ids.next()
}

// takeDue makes sure that messages that become due reach the topic.
func (t *stored) takeDue(ctx context.Context) error {
	d := &t.conn.due
	if d.has(t.stream) {
		return nil
	}
	return t.conn.reconfigure(ctx, func(ctx context.Context) error {
		if d.has(t.stream) { // somebody else was faster
			return nil
		}
		if err := t.conn.makeDueStream(ctx); err != nil {
			return t.openError(ctx, err)
		}
		err := t.addDue(ctx)
		if err == nil {
			d.add(t.stream)
		}
		return err
	})
}

// reconfigure calls f, which changes the configuration of a stream, as state.do does.
// Only one attempt of the connection is made at a time: the server cannot tell that a
// configuration has changed since it was read.
func (c *Conn) reconfigure(ctx context.Context, f func(ctx context.Context) error) error {
	return c.state.do(ctx, func(ctx context.Context) error {
		select {
		case c.configuring <- struct{}{}:
			defer func() { <-c.configuring }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return f(ctx)
	})
}

// addDue adds the messages that become due to the sources of the stream, unless they
// are among them.
func (t *stored) addDue(ctx context.Context) error {
	stream, err := t.conn.api(ctx).Stream(ctx, t.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return t.absent(ctx, err)
	}
	if err != nil {
		return t.openError(ctx, err)
	}
	cfg := stream.CachedInfo().Config
	if slices.ContainsFunc(cfg.Sources, func(s *jetstream.StreamSource) bool { return s.Name == dueStream }) {
		return nil
	}
	cfg.Sources = append(cfg.Sources, t.fromDue())
	if _, err = t.conn.api(ctx).UpdateStream(ctx, cfg); err != nil {
		return t.openError(ctx, err)
	}
	return nil
}

// fromDue is the source of due messages, which maps their subjects to those of the
// stream.
func (t *stored) fromDue() *jetstream.StreamSource {
	to := []jetstream.SubjectTransformConfig{
		{Source: firePlain + t.topic, Destination: t.topic},
		{Source: fireKeyed + t.topic + ".*", Destination: keyedPrefix + t.topic + ".{{wildcard(1)}}"},
	}
	if t.shared() {
		to = []jetstream.SubjectTransformConfig{{Source: fireStored + "*." + t.store, Destination: moved(t.store, storePrefix+"{{wildcard(1)}}.", 1)}}
	}
	return &jetstream.StreamSource{Name: dueStream, SubjectTransforms: to}
}

// hasDue reports whether anybody has ever delayed a message, as far as the user may know.
func (c *Conn) hasDue(ctx context.Context) (bool, error) {
	if c.mayAsk(ctx, c.apiPrefix()+"STREAM.INFO."+dueStream) != nil {
		return false, nil
	}
	asking, w := c.state.watchRefusals(ctx) // a refusal must not end the attempt
	_, err := c.api(asking).Stream(asking, dueStream)
	err = w.end(err)
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, ErrNotAllowed) {
		return false, nil
	}
	return err == nil, err
}

func (c *Conn) makeDueStream(ctx context.Context) error {
	_, err := c.api(ctx).Stream(ctx, dueStream)
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	_, err = c.api(ctx).CreateStream(ctx, jetstream.StreamConfig{
		Name: dueStream, Description: "messages of hark that are not due", Subjects: []string{duePrefix + ">", firePrefix + ">"},
		// Messages are removed once the streams of topics have taken them.
		Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage, Replicas: c.opts.replicas,
		AllowMsgSchedules: true, AllowMsgTTL: true, Duplicates: dueRemembers,
	})
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // somebody else was faster
		return nil
	}
	return err
}

// delayed returns how many messages of the topic are not yet due.
func (t *stored) delayed(ctx context.Context) (uint64, error) {
	if !t.conn.info.Has(driver.Delay) {
		return 0, nil
	}
	var n uint64
	err := t.conn.state.do(ctx, func(ctx context.Context) error {
		stream, err := t.conn.api(ctx).Stream(ctx, dueStream)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil
		}
		var info *jetstream.StreamInfo
		if err == nil {
			info, err = stream.Info(ctx, jetstream.WithSubjectFilter(duePrefix+t.topic+".*"))
		}
		if err != nil {
			return t.openError(ctx, err)
		}
		n = uint64(len(info.State.Subjects))
		return nil
	})
	return n, err
}
