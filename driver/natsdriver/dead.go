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

// Topics for dead letters are found among many by the ends of their names, .dead, or by the
// subject that their streams have for it. One that is there for something else already, or in
// a store, gets neither: the name of such a topic is a message of the stream hark-dead, which
// may be written by users who may not change streams.
const (
	deadStream     = "hark-dead"
	deadNotePrefix = "$HARK.d." // and the topic
	// notePatience is how long a server gets to answer. One that does not say what it does
	// not permit is silent.
	notePatience = 2 * time.Second
)

// PrepareDeadLetters makes what is needed to note topics for dead letters, for users who may
// not make it.
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

// noteDead notes that the topic is for dead letters, if that is wanted and its stream does
// not say so. Where it cannot be noted, because the user may not or nothing more can be
// stored, the topic is one for dead letters all the same.
func (t *stored) noteDead(ctx context.Context) error {
	c := t.conn
	if !t.wanted.DeadLetters || strings.HasSuffix(t.topic, deadSuffix) || slices.Contains(t.config.Load().Subjects, deadPrefix+t.topic) {
		return nil
	}
	if _, ok := c.noted.Load(t.topic); ok {
		return nil
	}
	err := c.state.do(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, notePatience)
		defer cancel()
		err := c.noteOnce(ctx, t.topic)
		if errors.Is(err, nats.ErrNoResponders) {
			if err = c.makeDeadStream(ctx); err == nil {
				err = c.noteOnce(ctx, t.topic)
			}
		}
		return err
	})
	switch {
	case err == nil, errors.Is(err, ErrNotAllowed):
		c.noted.Store(t.topic, true) // it is not tried again
	case errors.Is(err, driver.ErrFull), errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
	default:
		return fmt.Errorf("note that %s is for dead letters: %w", t.topic, err)
	}
	return nil
}

// noteOnce writes a name, unless it is there.
func (c *Conn) noteOnce(ctx context.Context, topic string) error {
	m := nats.NewMsg(deadNotePrefix + topic)
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, "0")
	asks(ctx, m.Subject)
	answer, err := c.nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return err
	}
	var said struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &said); err != nil {
		return fmt.Errorf("the server has said %q", answer.Data)
	}
	if said.Error == nil || said.Error.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return nil
	}
	return passing(storeError(said.Error))
}

// deadNotes returns the names that were noted, of topics that match a pattern if that is not
// empty.
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

// withNoted adds those topics to a page of own topics for dead letters that were noted, and
// whose streams do not say what they are for.
func (c *Conn) withNoted(ctx context.Context, q *TopicQuery, page []string, next string) ([]string, string, error) {
	all := page
	for _, topic := range slices.Sorted(maps.Keys(q.noted)) {
		stream := topicStream(topic)
		switch {
		case q.After != "" && stream <= topicStream(q.After), next != "" && stream > topicStream(next), // on another page
			slices.Contains(page, topic), q.Match != nil && !q.Match(topic):
			continue
		}
		h, err := c.homeNow(ctx, topic)
		switch {
		case errors.Is(err, ErrNotFound), err == nil && h.shared():
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
