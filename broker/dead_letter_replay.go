package broker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// replayRequest says which dead letters to replay, and how.
type replayRequest struct {
	deadSelection
	To     string  `json:"to,omitempty" doc:"the topic to publish to; by default, the topic to which each message was published"`
	Rate   float64 `json:"rate,omitempty" doc:"the maximum number of messages per second; 0 for no limit"`
	DryRun bool    `json:"dry_run,omitempty" doc:"dry run: only report what would be done"`
	Force  bool    `json:"force,omitempty" doc:"whether to replay also messages that failed again after a replay, and messages to topics that are not stored"`
}

// deadOutcome is what happened to a dead letter, or at the end to all of them.
type deadOutcome struct {
	Seq     uint64 `json:"seq,omitempty" doc:"the dead letter"`
	ID      string `json:"id,omitempty" doc:"the ID of the message"`
	To      string `json:"to,omitempty" doc:"the topic to which the message was published"`
	Outcome string `json:"outcome,omitempty" enum:"done dry skipped failed gone" doc:"what was done; dry: it would have been done; gone: the dead letter does not exist"`
	Reason  string `json:"reason,omitempty" doc:"why the dead letter was skipped, or the error"`

	Total   *uint64      `json:"total,omitempty" doc:"how many are selected; only in the first line"`
	Summary *deadSummary `json:"summary,omitempty" doc:"the summary, only in the last line; if it is missing, the work was interrupted"`
}

// deadSummary counts dead letters by outcome.
type deadSummary struct {
	Done    uint64 `json:"done" doc:"replayed, or removed"`
	Dry     uint64 `json:"dry" doc:"would be replayed or removed (dry run)"`
	Skipped uint64 `json:"skipped" doc:"skipped for the given reason, and left unchanged"`
	Failed  uint64 `json:"failed" doc:"failed, and left unchanged"`
	Gone    uint64 `json:"gone" doc:"selected by sequence and not found, or removed by somebody else meanwhile"`
}

func (s *deadSummary) count(o *deadOutcome) {
	switch o.Outcome {
	case "done":
		s.Done++
	case "dry":
		s.Dry++
	case "skipped":
		s.Skipped++
	case "gone":
		s.Gone++
	default:
		s.Failed++
	}
}

// replayer moves dead letters of a topic back to the topics that they come from. It
// publishes a copy, with an ID that makes a repeat harmless, and deletes the dead
// letter once the copy is stored. So wherever it is interrupted, nothing is lost,
// and nothing is duplicated as long as the target remembers IDs.
type replayer struct {
	broker  *Broker
	topic   string
	request *replayRequest
	allowed func(topic string) bool
	targets map[string]*target
}

// target is a topic to which messages are published.
type target struct {
	topic  driver.Topic
	stored bool
	err    error
}

// open returns a topic to publish to.
func (r *replayer) open(ctx context.Context, name string) *target {
	if t := r.targets[name]; t != nil {
		return t
	}
	t := &target{}
	cfg := driver.TopicConfig{Name: name}
	if t.stored, t.err = r.broker.conn.HasTopic(ctx, name); t.stored {
		cfg.Stored = &driver.StoredConfig{Existing: true, Dedup: time.Minute} // IDs are sent; the topic decides how long it remembers them
	}
	if t.err == nil {
		t.topic, t.err = r.broker.conn.OpenTopic(ctx, cfg)
	}
	if t.err == nil {
		r.targets[name] = t
	}
	return t
}

// replay handles one dead letter.
func (r *replayer) replay(ctx context.Context, seq uint64) *deadOutcome {
	o := &deadOutcome{Seq: seq}
	m, err := r.broker.conn.ReadMessage(ctx, r.topic, seq)
	switch {
	case errors.Is(err, natsdriver.ErrNotFound):
		return o.gone()
	case err != nil:
		return o.fail(err)
	}
	d := readDead(m)
	o.ID = d.ID
	if o.To = r.request.To; o.To == "" {
		o.To = d.from()
	}
	switch n := d.replays(); {
	case o.To == "":
		return o.fail(errors.New("the record does not name the topic where it was published; say where to publish it: to in the request, --to on the command line"))
	case checkTopic(o.To) != nil:
		return o.fail(checkTopic(o.To))
	case o.To == r.topic:
		return o.fail(errors.New("that is where it is"))
	case !r.allowed(o.To):
		return o.fail(fmt.Errorf("the user may not publish to %s", o.To))
	case n > 0 && !r.request.Force:
		return o.skip(fmt.Sprintf("it was replayed %s and has failed again", times(n)))
	}
	t := r.open(ctx, o.To)
	switch {
	case t.err != nil:
		return o.fail(t.err)
	case !t.stored && !r.request.Force:
		return o.skip(fmt.Sprintf("topic %s is not stored: perhaps nobody listens", o.To))
	case r.request.DryRun:
		o.Outcome = "dry"
		return o
	}
	if err := r.move(ctx, t, d); err != nil {
		return o.fail(err)
	}
	o.Outcome = "done"
	return o
}

// move publishes a dead letter, and then deletes it.
func (r *replayer) move(ctx context.Context, t *target, d *deadLetter) error {
	r.step("publish")
	if err := t.topic.Publish(ctx, []*driver.Message{replayOf(r.topic, d)}); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if !t.stored {
		if err := r.broker.conn.Flush(ctx); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	r.step("delete")
	if err := r.broker.conn.DeleteMessage(ctx, r.topic, d.Seq); err != nil {
		return fmt.Errorf("it was published, but could not be removed here: %w", err)
	}
	r.step("done")
	return nil
}

func (r *replayer) step(name string) {
	if r.broker.onReplay != nil {
		r.broker.onReplay(name)
	}
}

// replayOf returns the original message of a dead letter, with its number of
// replays, and with a deduplication ID that depends only on the dead letter.
func replayOf(topic string, d *deadLetter) *driver.Message {
	m := d.Message
	m.Time = time.Now()
	m.Headers = maps.Clone(m.Headers)
	if m.Headers == nil {
		m.Headers = map[string]string{}
	}
	sum := sha256.New() // tells it from a dead letter with this sequence in a recreated topic
	fmt.Fprintf(sum, "%s\n%s\n", d.ID, d.Headers[failureHeader])
	sum.Write(d.Data)
	m.DedupID = "replay/" + topic + "/" + uintText(d.Seq) + "/" + hex.EncodeToString(sum.Sum(nil)[:8])
	delete(m.Headers, failureHeader)
	if m.Headers[cePrefix+"type"] == topic { // hark derives this type from the topic
		delete(m.Headers, cePrefix+"type")
	}
	m.Headers[replayedHeader] = strconv.Itoa(d.replays() + 1)
	m.Headers[replayOfHeader] = topic + "/" + uintText(d.Seq)
	return &m
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return strconv.Itoa(n) + " times"
}

func (o *deadOutcome) skip(reason string) *deadOutcome {
	o.Outcome, o.Reason = "skipped", reason
	return o
}

func (o *deadOutcome) gone() *deadOutcome {
	o.Outcome, o.Reason = "gone", "it is not there"
	return o
}

func (o *deadOutcome) fail(err error) *deadOutcome {
	o.Outcome, o.Reason = "failed", err.Error()
	return o
}
