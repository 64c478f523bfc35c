package natsdriver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/names"
)

// Among many topics, those for dead letters are found by the ending .dead of their
// names, or by the extra subject that their streams have. A topic that already
// exists for another purpose, or is in a store, has neither. The name of such a
// topic is stored as a message in the stream hark-dead, to which users can publish
// even if they may not change streams.
const (
	deadStream     = "hark-dead"
	deadNotePrefix = "$HARK.d." // followed by the topic
	// noteTimeout is how long a server has to answer. A server that does not
	// report refusals stays silent.
	noteTimeout = 2 * time.Second
)

// PrepareDeadLetters creates what is needed to note topics for dead letters, on
// behalf of users who may not create it.
func (c *Conn) PrepareDeadLetters(ctx context.Context) error {
	if c.js == nil {
		return nil
	}
	return c.state.do(ctx, c.makeDeadStream)
}

func (c *Conn) makeDeadStream(ctx context.Context) error {
	_, err := c.api(ctx).Stream(ctx, deadStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = c.api(ctx).CreateStream(ctx, jetstream.StreamConfig{
			Name: deadStream, Description: "names of topics for dead letters of hark", Subjects: []string{deadNotePrefix + ">"},
			MaxMsgsPerSubject: 1, MaxMsgs: -1, MaxBytes: -1, Discard: jetstream.DiscardOld, Storage: jetstream.FileStorage, Replicas: c.opts.replicas,
		})
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			err = nil
		}
	}
	return passing(err)
}

// noteDead notes that the topic is for dead letters, if that is asked for and its
// stream does not say so. If it cannot be noted, because the user lacks permission
// or nothing more can be stored, the topic is still used for dead letters.
func (t *stored) noteDead(ctx context.Context) error {
	c := t.conn
	if !t.wanted.DeadLetters || strings.HasSuffix(t.topic, deadSuffix) || slices.Contains(t.config.Load().Subjects, deadPrefix+t.topic) {
		return nil
	}
	if _, ok := c.noted.Load(t.topic); ok {
		return nil
	}
	err := c.state.do(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, noteTimeout)
		defer cancel()
		err := c.noteOnce(ctx, t.topic)
		if errors.Is(err, nats.ErrNoResponders) {
			if err = c.makeDeadStream(ctx); err == nil {
				err = c.noteOnce(ctx, t.topic)
			}
		}
		if errors.Is(err, nats.ErrNoResponders) { // this server of a cluster does not know yet who has the stream
			err = fmt.Errorf("%w: %w", driver.ErrAgain, err)
		}
		return err
	})
	switch {
	case err == nil, errors.Is(err, ErrNotAllowed):
		c.noted.Store(t.topic, true) // do not try again
	case errors.Is(err, driver.ErrFull), errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
	default:
		return fmt.Errorf("note that %s is for dead letters: %w", t.topic, err)
	}
	return nil
}

// noteOnce stores a name, unless it is already there.
func (c *Conn) noteOnce(ctx context.Context, topic string) error {
	m := nats.NewMsg(deadNotePrefix + topic)
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, "0")
	watchSubject(ctx, m.Subject)
	answer, err := c.nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return err
	}
	var said struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &said); err != nil {
		return fmt.Errorf("the server answered %q", answer.Data)
	}
	if said.Error == nil || said.Error.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return nil
	}
	return passing(storeError(said.Error))
}

// deadNotes returns the noted names, only those that match the pattern if that is
// not empty.
func (c *Conn) deadNotes(ctx context.Context, pattern string) (noted map[string]bool, err error) {
	err = c.admin(ctx, func(ctx context.Context) error {
		noted = map[string]bool{}
		stream, err := c.api(ctx).Stream(ctx, deadStream)
		if err != nil {
			return err
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(deadNotePrefix+">"))
		if err != nil {
			return passing(err)
		}
		for subject := range info.State.Subjects {
			if topic := strings.TrimPrefix(subject, deadNotePrefix); pattern == "" || names.Match(pattern, topic) {
				noted[topic] = true
			}
		}
		return nil
	})
	return noted, err
}

// withNoted adds to a page of dead-letter topics with their own streams those that
// were noted, and whose streams do not show their purpose.
func (c *Conn) withNoted(ctx context.Context, q *TopicQuery, page []string, next string) ([]string, string, error) {
	all := page
	for _, topic := range slices.Sorted(maps.Keys(q.noted)) {
		stream := topicStream(topic)
		switch {
		case q.After != "" && stream <= topicStream(q.After), next != "" && stream > topicStream(next), // belongs to another page
			slices.Contains(page, topic), q.Match != nil && !q.Match(topic):
			continue
		}
		b, err := c.backingNow(ctx, topic)
		switch {
		case errors.Is(err, ErrNotFound), err == nil && b.shared():
			continue
		case err != nil:
			return nil, "", err
		}
		all = append(all, topic)
	}
	if len(all) == len(page) {
		return page, next, nil
	}
	slices.SortFunc(all, func(a, b string) int { return strings.Compare(topicStream(a), topicStream(b)) })
	if len(all) > q.Limit {
		all = all[:q.Limit]
		next = all[q.Limit-1]
	}
	return all, next, nil
}
