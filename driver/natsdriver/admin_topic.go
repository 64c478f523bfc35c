package natsdriver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// ErrNotFound says that a topic, group, message, value or latch does not exist.
var ErrNotFound = errors.New("not there")

// TopicInfo describes a stored topic as the server has it.
type TopicInfo struct {
	Name string
	// Store is the pattern of the store that holds the topic, or "" if the topic
	// has a stream of its own. For a topic in a store, Config and Created are those
	// of the store, and Bytes is not known.
	Store               string
	Config              driver.StoredConfig
	Created             time.Time
	Messages, Bytes     uint64 // stored at present
	First, Last         uint64 // their sequences
	FirstTime, LastTime time.Time
	Groups              int // consumers; some groups have several

	newest uint64 // the last sequence that the stream has given out
}

// TopicInfo describes a stored topic as the server has it, or returns ErrNotFound.
// A topic that matches the pattern of a store exists even without a message.
func (c *Conn) TopicInfo(ctx context.Context, name string) (TopicInfo, error) {
	b, err := c.backingNow(ctx, name)
	if err != nil {
		return TopicInfo{}, err
	}
	return c.topicInfo(ctx, b, name)
}

func (c *Conn) topicInfo(ctx context.Context, b backing, name string) (info TopicInfo, err error) {
	if b.shared() && name != b.store {
		return c.shareInfo(ctx, b, name)
	}
	err = c.find(ctx, "topic "+name, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, b.stream)
		if err == nil {
			info = topicInfo(name, stream.CachedInfo())
			info.Store = b.store
		}
		return err
	})
	return info, err
}

func topicInfo(name string, have *jetstream.StreamInfo) TopicInfo {
	s := have.State
	return TopicInfo{
		Name: name, Config: storedConfig(&have.Config), Created: have.Created, Messages: s.Msgs, Bytes: s.Bytes,
		First: s.FirstSeq, Last: s.LastSeq, FirstTime: s.FirstTime, LastTime: s.LastTime, Groups: s.Consumers, newest: s.LastSeq,
	}
}

// storedConfig returns the configuration of the topic that a stream keeps.
func storedConfig(have *jetstream.StreamConfig) driver.StoredConfig {
	cfg := driver.StoredConfig{
		MaxMessages: int(max(have.MaxMsgs, 0)), MaxBytes: max(have.MaxBytes, 0), MaxAge: maxAge(have), Dedup: have.Duplicates,
	}
	for d, class := range durabilities {
		if class.name == have.Metadata[metaDurability] {
			cfg.Durability = d
		}
	}
	return cfg
}

// AwaitStored returns once everything that anybody published to a stored topic, or
// to the topics of a store, before the call has been stored: the server delivers
// messages to listeners before it stores them. In a cluster a message may still be
// on its way.
func (c *Conn) AwaitStored(ctx context.Context, name string) error {
	m := nats.NewMsg(keyedPrefix + name + "." + storePlain)
	if isPattern(name) {
		m.Subject = storePrefix + storePlain + "." + strings.NewReplacer("*", storePlain, ">", storePlain).Replace(name)
	}
	// The stream is never this long, so it refuses the message when its turn comes.
	m.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(math.MaxInt64, 10))
	return c.state.do(ctx, func(ctx context.Context) error {
		watchSubject(ctx, m.Subject)
		answer, err := c.nc.RequestMsgWithContext(ctx, m)
		if err != nil {
			return c.openError(ctx, name, err)
		}
		var said struct {
			Error *jetstream.APIError `json:"error"`
		}
		if err := json.Unmarshal(answer.Data, &said); err != nil || said.Error == nil || said.Error.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence {
			return fmt.Errorf("topic %s: the server answered %q", name, answer.Data)
		}
		return nil
	})
}

// Usage is how much the server keeps for this account.
type Usage struct {
	Streams, Consumers int
	Bytes              uint64 // on disk and in memory
}

// Usage returns how much the server keeps.
func (c *Conn) Usage(ctx context.Context) (u Usage, err error) {
	err = c.admin(ctx, func(ctx context.Context) error {
		account, err := c.api(ctx).AccountInfo(ctx)
		if err == nil {
			u = Usage{account.Streams, account.Consumers, account.Store + account.Memory}
		}
		return passing(err)
	})
	return u, err
}

// TopicQuery selects stored topics.
type TopicQuery struct {
	Pattern string                 // those that match; empty for all
	Dead    bool                   // only topics for dead letters
	Own     bool                   // only topics that are in no store
	After   string                 // those after this name; empty for all
	Limit   int                    // maximum number; at least 1
	Match   func(name string) bool // only those for which it returns true; nil for all

	noted map[string]bool // dead-letter topics that were noted; used with Dead
}

// maxNamesRead is how many names a query examines before it returns what it has
// found.
const maxNamesRead = 100_000

// TopicNames returns names of stored topics in a stable order. next is the name
// after which to go on, or "" if there are no more. Topics of stores come first:
// those that have messages.
func (c *Conn) TopicNames(ctx context.Context, q TopicQuery) (names []string, next string, err error) {
	if q.Dead {
		if q.noted, err = c.deadNotes(ctx, q.Pattern); err != nil {
			return nil, "", err
		}
	}
	names, more, err := c.storeNames(ctx, &q)
	switch {
	case err != nil:
		return nil, "", err
	case more:
		return names, names[len(names)-1], nil
	case q.Limit == 0: // there may be more after them
		q.Limit = 1
		own, _, err := c.ownNames(ctx, q)
		if err != nil || len(own) == 0 {
			return names, "", err
		}
		return names, names[len(names)-1], nil
	}
	own, next, err := c.ownNames(ctx, q)
	return append(names, own...), next, err
}

// ownNames is TopicNames for topics that have their own streams.
func (c *Conn) ownNames(ctx context.Context, q TopicQuery) (names []string, next string, err error) {
	names, next, err = c.streamedNames(ctx, &q)
	if err != nil || len(q.noted) == 0 {
		return names, next, err
	}
	return c.withNoted(ctx, &q, names, next)
}

// streamedNames is ownNames; of dead-letter topics it returns those whose streams
// say so.
func (c *Conn) streamedNames(ctx context.Context, q *TopicQuery) (names []string, next string, err error) {
	subject := q.Pattern
	if q.Dead {
		if subject = deadPrefix + ">"; q.Pattern != "" {
			subject = deadPrefix + q.Pattern
		}
	}
	want := topicStreams
	if q.After != "" {
		want = topicStream(q.After)
	}
	at, err := c.seekStream(ctx, subject, want)
	if err != nil {
		return nil, "", err
	}
	for read := 0; ; {
		page, total, err := c.streamNames(ctx, subject, at)
		if err != nil {
			return nil, "", err
		}
		for i, stream := range page {
			if q.After != "" && stream <= topicStream(q.After) || !strings.HasPrefix(stream, topicStreams) {
				continue
			}
			name, err := c.nameOf(ctx, stream, topicStreams)
			if err != nil {
				return nil, "", err
			}
			if name == "" || q.Match != nil && !q.Match(name) {
				continue
			}
			if names = append(names, name); len(names) == q.Limit {
				if at+i+1 < total {
					next = name
				}
				return names, next, nil
			}
		}
		at += len(page)
		if read += len(page); at >= total || len(page) == 0 {
			return names, "", nil
		}
		if read >= maxNamesRead {
			last, err := c.nameOf(ctx, page[len(page)-1], topicStreams)
			return names, last, err
		}
	}
}

// topicStreams is the prefix of the names of the streams of topics.
var topicStreams = topicStream("")

// seekStream returns the offset from which to read names of streams so that the
// first read includes the first name after want.
func (c *Conn) seekStream(ctx context.Context, subject, want string) (int, error) {
	page, high, err := c.streamNames(ctx, subject, 0)
	if err != nil || len(page) == high {
		return 0, err
	}
	low, reads := 0, len(page)
	for high-low > reads {
		middle := (low + high) / 2
		if page, _, err = c.streamNames(ctx, subject, middle); err != nil {
			return 0, err
		}
		if len(page) > 0 && page[0] <= want {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// streamNames returns sorted names of streams from an offset on, and how many there
// are in all.
func (c *Conn) streamNames(ctx context.Context, subject string, offset int) (names []string, total int, err error) {
	var answer struct {
		Streams []string `json:"streams"`
		Total   int      `json:"total"`
	}
	ask := map[string]any{"offset": offset}
	if subject != "" {
		ask["subject"] = subject
	}
	err = c.askAPI(ctx, "STREAM.NAMES", ask, &answer)
	return answer.Streams, answer.Total, err
}

// askAPI makes a request of JetStream's API that the client does not offer.
func (c *Conn) askAPI(ctx context.Context, what string, request, answer any) error {
	if c.js == nil {
		return c.refuse(string(driver.Stored))
	}
	text, err := json.Marshal(request)
	if err != nil {
		return err
	}
	return c.admin(ctx, func(ctx context.Context) error {
		watchSubject(ctx, c.apiPrefix()+what)
		m, err := c.nc.RequestWithContext(ctx, c.apiPrefix()+what, text)
		if err != nil {
			return passing(err)
		}
		var failed struct {
			Error *jetstream.APIError `json:"error"`
		}
		if err := json.Unmarshal(m.Data, &failed); err != nil {
			return err
		}
		if failed.Error != nil {
			return failed.Error
		}
		return json.Unmarshal(m.Data, answer)
	})
}

// nameOf returns the topic or pattern of a stream whose name begins with prefix, or
// "" if the stream is gone.
func (c *Conn) nameOf(ctx context.Context, stream, prefix string) (string, error) {
	escaped := strings.TrimPrefix(stream, prefix)
	if strings.Contains(escaped, "~~") { // the name was cut
		found := ""
		err := c.admin(ctx, func(ctx context.Context) error {
			s, err := c.api(ctx).Stream(ctx, stream)
			if err == nil {
				found = s.CachedInfo().Config.Metadata[metaTopic]
			}
			return err
		})
		return found, err
	}
	return assetOf(escaped), nil // it may not be one of hark's
}

// PurgeTopic removes messages of a stored topic: those before the sequence upTo if
// that is not 0, or all but the newest keep.
func (c *Conn) PurgeTopic(ctx context.Context, name string, upTo, keep uint64) (removed uint64, err error) {
	ask := map[string]any{}
	if upTo == 0 && keep > 0 {
		ask["keep"] = keep
	}
	b, err := c.backingNow(ctx, name)
	if err != nil {
		return 0, err
	}
	if filter := b.all(name); filter != "" {
		ask["filter"] = filter
	}
	err = c.find(ctx, "topic "+name, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, b.stream)
		if err != nil {
			return err
		}
		if upTo > 0 { // past the end, the server would give the next message that sequence
			ask["seq"] = min(upTo, stream.CachedInfo().State.LastSeq+1)
		}
		var answer struct {
			Purged uint64 `json:"purged"`
		}
		err = c.askAPI(ctx, "STREAM.PURGE."+b.stream, ask, &answer)
		removed = answer.Purged
		return err
	})
	return removed, err
}

// ReadMessage returns the message with a sequence of a stored topic, or
// ErrNotFound.
func (c *Conn) ReadMessage(ctx context.Context, topic string, seq uint64) (r *driver.Received, err error) {
	b, err := c.backingNow(ctx, topic)
	if err != nil {
		return nil, err
	}
	err = c.find(ctx, fmt.Sprintf("message %d of topic %s", seq, topic), func(ctx context.Context) error {
		m, err := c.messageAt(ctx, b.stream, map[string]any{"seq": seq})
		switch {
		case err != nil:
			return err
		case m.Seq == 0 || !b.holds(topic, m.Subject):
			return jetstream.ErrMsgNotFound
		}
		r = c.fromStore(topic, &m)
		return nil
	})
	return r, err
}

// fromStore decodes a stored message. Headers that cannot be read are left out, as the
// client does when it receives the message.
func (c *Conn) fromStore(topic string, m *rawMsg) *driver.Received {
	msg := nats.Msg{Subject: m.Subject, Data: m.Data}
	if headers, err := nats.DecodeHeadersMsg(m.Header); err == nil {
		msg.Header = headers
	}
	r := c.decode(&msg, topic)
	r.Seq = m.Seq
	if r.Time.IsZero() {
		r.Time = m.Time
	}
	return r
}

// find calls f as admin does, but returns ErrNotFound if the object does not exist.
func (c *Conn) find(ctx context.Context, what string, f func(ctx context.Context) error) error {
	absent := false
	err := c.admin(ctx, func(ctx context.Context) error {
		err := f(ctx)
		for _, kind := range []error{jetstream.ErrStreamNotFound, jetstream.ErrConsumerNotFound, jetstream.ErrMsgNotFound} {
			absent = absent || errors.Is(err, kind)
		}
		return err
	})
	if absent {
		return fmt.Errorf("%s is %w", what, ErrNotFound)
	}
	return err
}

// streamSubjects returns the subjects with messages in a stream, without a prefix;
// none if there is no stream.
func (c *Conn) streamSubjects(ctx context.Context, stream, prefix, pattern string) (subjects []string, err error) {
	if pattern == "" {
		pattern = ">"
	}
	err = c.admin(ctx, func(ctx context.Context) error {
		s, err := c.api(ctx).Stream(ctx, stream)
		if err != nil {
			return err
		}
		info, err := s.Info(ctx, jetstream.WithSubjectFilter(prefix+pattern))
		if err != nil {
			return err
		}
		subjects = subjects[:0]
		for subject := range info.State.Subjects {
			subjects = append(subjects, strings.TrimPrefix(subject, prefix))
		}
		return nil
	})
	return subjects, err
}
